"""The Deployment: its rollout, and the template with the podTemplate laid over it.

docs/contracts.md §5 is the contract with the server. Everything passes the restricted Pod Security
Standard (https://kubernetes.io/docs/concepts/security/pod-security-standards/) on a read-only root.
"""

import json
from collections.abc import Mapping

from wsgiapp.digest import digest_json
from wsgiapp.names import (
    AGENT_PORT,
    PODS_ANNOTATION,
    RESTART_ANNOTATION,
    REVISION_ANNOTATION,
    TEMPLATE_ANNOTATION,
)
from wsgiapp.overlay import lay_over
from wsgiapp.resources.owned import build_owned, labels, selector
from wsgiapp.resources.platform import Platform
from wsgiapp.resources.pod import build_pod
from wsgiapp.types import App, Manifest


def build_deployment(app: App, platform: Platform, restart_digests: Mapping[str, str]) -> Manifest:
    """Return the desired Deployment; pure."""
    rollout = app.rollout
    spec = {
        "replicas": app.replicas,
        "selector": {"matchLabels": selector(app)},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {
                "maxSurge": rollout.max_surge,
                "maxUnavailable": rollout.max_unavailable,
            },
        },
        "minReadySeconds": rollout.min_ready_s,
        "progressDeadlineSeconds": rollout.progress_deadline_s,
        "paused": rollout.paused,
        "revisionHistoryLimit": 3,
        "template": build_template(app, platform, restart_digests),
    }
    deployment = build_owned(app, "apps/v1", "Deployment", spec=spec)
    deployment["metadata"]["annotations"] = {PODS_ANNOTATION: app.pods_digest}
    return deployment


def build_template(app: App, platform: Platform, restart_digests: Mapping[str, str]) -> Manifest:
    revision = pod_revision(app, restart_digests)
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(AGENT_PORT),
        REVISION_ANNOTATION: revision,
    }
    if restart_digests:
        annotations[RESTART_ANNOTATION] = json.dumps(dict(restart_digests), sort_keys=True)
    template: Manifest = {
        "metadata": {"labels": labels(app), "annotations": annotations},
        "spec": build_pod(app, platform, revision),
    }
    template = lay_over(template, app.pod_template)
    template["metadata"]["annotations"][TEMPLATE_ANNOTATION] = digest_json(template)
    return template


def pod_revision(app: App, restart_digests: Mapping[str, str]) -> str:
    """Return what names the app's own part of its pods.

    A last good content is good for one of these: not for another image, and not for another version of a
    content whose change replaces the pods.
    """
    return digest_json([app.own_digest, dict(restart_digests)])


def read_restart_digests(deployment: Manifest) -> dict[str, str]:
    """Return the restart digests in a live Deployment's template."""
    annotations = deployment["spec"]["template"]["metadata"].get("annotations", {})
    try:
        digests = dict(json.loads(annotations.get(RESTART_ANNOTATION, "{}")))
    except (ValueError, TypeError, RecursionError):  # edited by hand: drift repair writes it anew
        return {}
    return {name: digest for name, digest in digests.items() if isinstance(digest, str)}
