"""The PodDisruptionBudget: how many pods node drains take at a time."""

from wsgiapp.resources.owned import build_owned, selector
from wsgiapp.types import App, Manifest


def build_pod_disruption_budget(app: App) -> Manifest:
    budget = app.disruption_budget
    bound = (
        {"minAvailable": budget.min_available}
        if budget.min_available is not None
        else {"maxUnavailable": 1 if budget.max_unavailable is None else budget.max_unavailable}
    )
    spec = {
        **bound,
        "selector": {"matchLabels": selector(app)},
        # Pods that never became ready serve nobody: they must not hold up a drain.
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    return build_owned(app, "policy/v1", "PodDisruptionBudget", spec=spec)
