"""The PodDisruptionBudget: node drains take one pod at a time."""

from wsgiapp.resources.owned import build_owned, selector
from wsgiapp.types import App, Manifest


def build_pod_disruption_budget(app: App) -> Manifest:
    spec = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": selector(app)},
        # Pods that never became ready serve nobody: they must not hold up a drain.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return build_owned(app, "policy/v1", "PodDisruptionBudget", spec=spec)
