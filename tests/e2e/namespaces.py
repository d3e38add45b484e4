"""A test's namespace as a careful cluster gives it out: restricted Pod Security, a quota, a LimitRange; pure."""

from __future__ import annotations

from typing import Any

LABELS = {"pod-security.kubernetes.io/enforce": "restricted", "wsgiapp-e2e": "true"}


def build_namespace(name: str) -> list[dict[str, Any]]:
    """Return the namespace and what bounds it.

    The quota counts requests and limits of CPU and memory, so a pod that leaves one of them out would be refused;
    the LimitRange fills in what a container does not say, and refuses what is larger than any app of the tests.
    """
    quota = {
        "pods": "40",
        "requests.cpu": "2",
        "requests.memory": "6Gi",
        "limits.cpu": "200",
        "limits.memory": "24Gi",
    }
    limits = {
        "type": "Container",
        "defaultRequest": {"cpu": "10m", "memory": "32Mi"},
        "default": {"cpu": "2", "memory": "256Mi"},
        "max": {"cpu": "2", "memory": "1Gi"},
    }
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": LABELS}},
        {
            "apiVersion": "v1",
            "kind": "ResourceQuota",
            "metadata": {"name": "bounds", "namespace": name},
            "spec": {"hard": quota},
        },
        {
            "apiVersion": "v1",
            "kind": "LimitRange",
            "metadata": {"name": "bounds", "namespace": name},
            "spec": {"limits": [limits]},
        },
    ]
