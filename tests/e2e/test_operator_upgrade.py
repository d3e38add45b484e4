"""A new version of the operator reaches the apps a few at a time, and stops before it can take them down."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e import steady_app
from tests.support.kube import Kube
from tests.support.operator_release import OperatorRelease
from tests.support.wait import NotYetError, wait_until

pytestmark = pytest.mark.alone

APPS, AT_A_TIME = 20, 3
NAMES = [f"app-{number:02}" for number in range(APPS)]
QUICK = {
    "replicas": 1,
    "healthCheck": {"path": "/healthz", "startupTimeoutSeconds": 10},
    "rollout": {"minReadySeconds": 1, "progressDeadlineSeconds": 20},
    "resources": {"requests": {"cpu": "1m", "memory": "16Mi"}},
}


@pytest.mark.full
def test_twenty_apps_are_upgraded_no_more_than_three_at_a_time(
    kube: Kube, operator: OperatorRelease, namespace: str
) -> None:
    def deployments() -> list[dict[str, Any]]:
        return kube.list("deployments", namespace=namespace)

    def upgraded(pod_id: int) -> set[str]:
        return {d["metadata"]["name"] for d in deployments() if pod_id_of(d) == pod_id}

    def all_serve() -> bool:
        behind = [d["metadata"]["name"] for d in deployments() if not is_rolled_out(d)]
        if behind or len(deployments()) < APPS:
            raise NotYetError(f"not rolled out: {behind}")
        return True

    code = steady_app.build_code(steady_app.build_release("1"))
    apps = [{**steady_app.build_app(namespace, **QUICK), "metadata": {"name": n}} for n in NAMES]
    for app in apps:
        app["spec"].pop("ingress", None)
    try:
        operator.install(f"upgrade.appsAtATime={AT_A_TIME}")
        kube.apply(code, *apps, namespace=namespace)
        wait_until(all_serve, within_s=180, what="every app to serve")

        most = 0
        done: set[str] = set()  # what befalls them later is not the upgrade's

        def all_upgraded() -> bool:
            nonlocal most
            seen = deployments()
            begun = {d["metadata"]["name"]: d for d in seen if pod_id_of(d) == 10002}
            done.update(name for name, each in begun.items() if is_rolled_out(each))
            most = max(most, len(begun.keys() - done))
            behind = [d["metadata"]["name"] for d in seen if pod_id_of(d) != 10002]
            if behind:
                raise NotYetError(f"not upgraded: {behind}")
            return all_serve()

        operator.install(f"upgrade.appsAtATime={AT_A_TIME}", "apps.podId=10002")
        wait_until(all_upgraded, within_s=300, what="every app to be upgraded", every_s=0.2)
        assert 1 <= most <= AT_A_TIME

        # A version whose image does not exist: what has begun waits for it, nothing else is touched.
        bad = ("apps.podId=10003", "prefork.image.tag=missing")
        operator.install(f"upgrade.appsAtATime={AT_A_TIME}", *bad)

        def stopped() -> bool:
            apps = kube.list("wsgiapps", namespace=namespace)
            reasons = [c["reason"] for a in apps for c in a["status"]["conditions"]]
            if reasons.count("UpgradeStopped") < APPS - AT_A_TIME:
                raise NotYetError(f"stopped: {reasons.count('UpgradeStopped')}")
            if "UpgradeFailed" not in reasons:
                raise NotYetError("no app says that the upgrade stops at it")
            return True

        wait_until(stopped, within_s=120, what="the upgrade to be stopped")
        assert len(upgraded(10003)) <= AT_A_TIME
        assert all(d["status"].get("readyReplicas") == 1 for d in deployments()), "all serve on"

        operator.install("apps.podId=10002")
        wait_until(all_upgraded, within_s=180, what="every app to be back", every_s=0.2)
    finally:
        operator.install()


def pod_id_of(deployment: dict[str, Any]) -> int:
    return int(deployment["spec"]["template"]["spec"]["securityContext"]["runAsUser"])


def is_rolled_out(deployment: dict[str, Any]) -> bool:
    status = deployment.get("status", {})
    is_observed = status.get("observedGeneration", 0) >= deployment["metadata"]["generation"]
    numbers = {status.get(k, 0) for k in ("replicas", "updatedReplicas", "availableReplicas")}
    return is_observed and numbers == {deployment["spec"]["replicas"]}
