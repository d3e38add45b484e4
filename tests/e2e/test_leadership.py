"""One operator leads: it is replaced within seconds, and a second installation keeps its hands off."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import pytest

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.e2e.hung import find_operator, hung, needs_local_cluster
from tests.support.kube import Kube
from tests.support.operator_release import NAMESPACE, HelmError, OperatorRelease
from tests.support.wait import NotYetError, wait_until

pytestmark = pytest.mark.alone

LEASES = "kube-system"


def holder(kube: Kube) -> str:
    lease = kube.get("leases", "wsgiapp-operator", namespace=LEASES)
    return str(lease["spec"]["holderIdentity"])


def wait_holder(kube: Kube, *, other_than: str) -> float:
    """Return the seconds until somebody else leads."""
    began = time.monotonic()

    def changed() -> bool:
        if (now := holder(kube)) in ("", other_than):
            raise NotYetError(f"holder {now!r}")
        return True

    wait_until(changed, within_s=30, what="another leader", every_s=0.05)
    return time.monotonic() - began


@needs_local_cluster
@pytest.mark.full
def test_a_second_replica_takes_over_in_seconds(kube: Kube, operator: OperatorRelease) -> None:
    try:
        operator.install("replicaCount=2")
        first = holder(kube)
        with hung(find_operator(first)):
            after_hang = wait_holder(kube, other_than=first)
        # It has gone on, and must have seen that it leads no more.
        ready = ("wait", "--for=condition=Ready", "--timeout=90s")
        kube.kubectl(*ready, f"pod/{first}", "-n", NAMESPACE)
        assert holder(kube) != first
        stopped = holder(kube)
        kube.kubectl("delete", "pod", stopped, "-n", NAMESPACE, "--wait=false")
        after_stop = wait_holder(kube, other_than=stopped)
    finally:
        operator.install()
    print(f"another leader {after_hang:.2f} s after a hang, {after_stop:.2f} s after a stop")
    assert after_hang < 10, "4 s and one try, on a calm machine"
    assert after_stop < 5


@pytest.mark.full
def test_a_second_installation_waits_and_touches_nothing(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, operator: OperatorRelease
) -> None:
    app = steady(version="1")
    before = kube.get("deployments", app.name, namespace=app.namespace)["metadata"]["generation"]
    elsewhere = f"{app.namespace}-second"
    second = dataclasses.replace(operator, release="second", namespace=elsewhere)
    with under_load(app, "a second installation") as load:
        try:
            values = ("crds.enabled=false", "rbac.aggregateClusterRoles=false", "apps.podId=10007")
            with pytest.raises(HelmError, match=r"not ready|deadline|timed out"):
                second.install(*values, timeout_s=20)
            said = second.log()
        finally:
            second.uninstall()
            kube.kubectl("delete", "namespace", elsewhere, "--wait=false")
        load.finish(in_place=True)
    assert f"installation {NAMESPACE}/{operator.release} of the operator" in said
    after: dict[str, Any] = kube.get("deployments", app.name, namespace=app.namespace)
    assert after["metadata"]["generation"] == before, json.dumps(after)
    assert app.name == steady_app.NAME
