"""A policy that refuses what the operator writes is told by the status, and what it does not touch goes on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker
from tests.support.kube import Kube, KubectlError
from tests.support.wait import NotYetError, wait_until

NAME = "no-annotations-on-pods"


def build_policy(namespace: str) -> list[dict[str, Any]]:
    """Return a policy that refuses every patch of the pods in a namespace."""
    group = "admissionregistration.k8s.io"
    rule = {
        "apiGroups": [""],
        "apiVersions": ["v1"],
        "operations": ["UPDATE"],
        "resources": ["pods"],
    }
    where = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule], **where},
        "validations": [{"expression": "false", "message": "pods are not to be touched here"}],
    }
    binding = {"policyName": NAME, "validationActions": ["Deny"]}
    return [
        {"apiVersion": f"{group}/v1", "kind": kind, "metadata": {"name": NAME}, "spec": body}
        for kind, body in (
            ("ValidatingAdmissionPolicy", spec),
            ("ValidatingAdmissionPolicyBinding", binding),
        )
    ]


@pytest.mark.full
def test_reload_request_that_a_policy_refuses_is_told_and_goes_out_when_it_is_allowed(
    steady: AppMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", replicas=2)
    pod = app.pods()[0]["metadata"]["name"]

    def is_in_force() -> bool:
        try:
            kube.kubectl("annotate", "pod", pod, "a=b", "-n", namespace, "--dry-run=server")
        except KubectlError:
            return True
        raise NotYetError("the policy admits the annotation")

    try:
        kube.apply(*build_policy(namespace), namespace=namespace)
        wait_until(is_in_force, within_s=30, what="the policy to be in force")
        kube.apply(steady_app.build_code(steady_app.build_release("2")), namespace=namespace)
        refused = app.wait_condition("Reloaded", "False", within_s=60, reason="ReloadRefused")
        assert "pods are not to be touched here" in refused.message
        assert "wsgi.dev/reload on Pod" in refused.message
        # The rest is kept as declared.
        kube.kubectl("scale", "wsgi", app.name, "--replicas=3", "-n", namespace)
        app.wait_serving_pods(3, within_s=60)
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            kube.kubectl("delete", kind, NAME, "--ignore-not-found")
    app.wait_condition("Reloaded", "True", within_s=120)
    app.wait_condition("Ready", "True", within_s=60)
