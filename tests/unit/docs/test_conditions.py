"""Each reason that the operator writes into a condition is in the table of operator/README.md, with what to do."""

from __future__ import annotations

import re

from tests.support.site import ROOT

SOURCES = ROOT / "operator" / "controller" / "src" / "wsgiapp_operator"
# Words in quotes that are not reasons of conditions.
KINDS = {"ConfigMap", "IngressClass", "PodDisruptionBudget", "ReplicaSet", "ServiceAccount"}
CREDENTIALS = {"BearerToken"}
CONDITION_TYPES = {"PodScheduled", "ReplicaFailure", "SecretsRead", "UpToDate"}
EVENTS = {"ReloadFinished", "ReloadStarted"}
# What the kubelet or the API server says is passed on as it is; the table has examples.
KUBERNETES = {
    "ContainerStatusUnknown", "CreateContainerConfigError", "CreateContainerError", "ErrImageNeverPull", "ErrImagePull",
    "IfNotPresent", "ImagePullBackOff", "InvalidImageName", "NamespaceTerminating", "NodeLost", "NodeShutdown", "RunContainerError",
}  # fmt: skip


def test_every_reason_is_in_the_table() -> None:
    text = "".join(path.read_text() for path in SOURCES.glob("*.py"))
    words = set(re.findall(r'"((?:[A-Z][a-z]+){2,})"', text))
    page = (
        (ROOT / "operator" / "README.md").read_text().split("## What `kubectl get wsgi` reports")[1]
    )
    documented = set(re.findall(r"`(\w+)`", page))
    assert words - KINDS - CREDENTIALS - CONDITION_TYPES - EVENTS - KUBERNETES - documented == set()
