"""What Secrets hold shows nowhere, and an operator without any permission on Secrets works."""

from __future__ import annotations

import json

import pytest
from wsgiapp.digest import digest_object

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker
from tests.support.kube import Kube, KubectlError
from tests.support.operator_release import NAMESPACE, RELEASE, OperatorRelease
from tests.support.wait import NotYetError, wait_until

ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
DIGITS = 12  # of a digest, as messages show it


def may(kube: Kube, verb: str, resource: str, namespace: str) -> bool:
    """Return whether the operator may, as the API server decides it."""
    question = ("auth", "can-i", verb, resource, f"--as={ACCOUNT}", f"--namespace={namespace}")
    try:
        return kube.kubectl(*question).strip() == "yes"
    except KubectlError:
        return False  # `no` ends kubectl with 1


def gather(kube: Kube, operator: OperatorRelease, namespace: str) -> str:
    """Return all that a user with the role `view` can read."""
    kinds = ("wsgiapps", "deployments", "pods", "events", "configmaps")
    shown = [json.dumps(kube.list(kind, namespace=namespace)) for kind in kinds]
    names = [pod["metadata"]["name"] for pod in kube.list("pods", namespace=namespace)]
    shown += [kube.kubectl("logs", n, "-n", namespace, "--all-containers") for n in names]
    return "\n".join([*shown, operator.log(lines=-1)])


@pytest.mark.full
def test_no_digest_of_a_secret_is_shown(
    steady: AppMaker, kube: Kube, operator: OperatorRelease, namespace: str
) -> None:
    assert may(kube, "get", "secrets", namespace)
    for verb in ("list", "watch", "delete", "patch", "update"):
        assert not may(kube, verb, "secrets", namespace), verb
    app = steady(version="1", secret="a")
    before = app.reload_hash()
    kube.apply(steady_app.build_secret("b"), namespace=namespace)
    app.wait_reload(after=before, status="True", within_s=60)
    shown = gather(kube, operator, namespace)
    for version in ("a", "b"):
        secret = {"kind": "Secret", "data": {"version": {"a": "YQ==", "b": "Yg=="}[version]}}
        assert digest_object(secret)[:DIGITS] not in shown
    after = app.reload_hash()
    kube.kubectl(
        "annotate", "secret", f"{steady_app.NAME}-settings", "touched=yes", "-n", namespace
    )
    kube.apply(steady_app.build_code(steady_app.build_release("2")), namespace=namespace)
    app.wait_reload(after=after, status="True", within_s=60)


@pytest.mark.alone
@pytest.mark.full
def test_operator_without_permission_on_secrets(
    steady: AppMaker, kube: Kube, operator: OperatorRelease, namespace: str
) -> None:
    try:
        operator.install("secrets.read=false")
        for verb in ("get", "list", "watch", "create"):
            assert not may(kube, verb, "secrets", namespace), verb
        app = steady(version="1", secret="a")
        told = app.wait_condition("SecretsRead", "False", within_s=30, reason="NotPermitted")
        assert "secrets.read" in told.message
        assert "kubectl rollout restart" in told.message
        before = app.reload_hash()
        kube.apply(steady_app.build_code(steady_app.build_release("2")), namespace=namespace)
        app.wait_reload(after=before, status="True", within_s=60)
        assert "forbidden" not in operator.log(lines=-1)
    finally:
        operator.install()

    def is_read() -> bool:
        status = next(iter(kube.list("wsgiapps", namespace=namespace)))["status"]
        if any(each["type"] == "SecretsRead" for each in status["conditions"]):
            raise NotYetError("SecretsRead is still there")
        return True

    wait_until(is_read, within_s=60, what="the Secret to be read again")
    app.wait_condition("Ready", "True", within_s=60)
