"""The operator's roles allow exactly what it asks of a real API server, as that has recorded it."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import pytest

from tests.cluster import Cluster
from tests.e2e import audit, steady_app
from tests.e2e.conftest import AppMaker
from tests.support.kube import Kube
from tests.support.operator_release import OperatorRelease
from tests.support.wait import NotYetError, wait_until

pytestmark = [
    pytest.mark.alone,
    pytest.mark.full,
    pytest.mark.skipif(
        os.environ.get("CLUSTER") in ("existing", "kind"), reason="not our API server: it keeps no audit log"
    ),
]  # fmt: skip
LEASE = "wsgiapp-operator"
LEASES = "kube-system"
COPY = f"{steady_app.NAME}.source.last-good"
# What the roles allow, and the story below does not ask for; each with its reason.
UNUSED: dict[audit.Right, str] = {}


def now() -> str:
    """Return the time as the API server writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def live_through_everything(
    steady: AppMaker, kube: Kube, operator: OperatorRelease, namespace: str
) -> None:
    """Start the operator, lose its Lease, make, reload and change an app, and take away what it had."""
    operator.kill()
    operator.wait_ready()
    kube.kubectl("delete", "lease", LEASE, "-n", LEASES)
    wait_until(lambda: kube.get("leases", LEASE, namespace=LEASES), within_s=30, what="the Lease")
    app = steady(replicas=1, secret="a")
    for version in ("2", "1", "2"):  # what has happened before is counted up in its Event
        before = app.reload_hash()
        kube.apply(steady_app.build_code(steady_app.build_release(version)), namespace=namespace)
        app.wait_reload(after=before, status="True", within_s=60)
    wait_until(
        lambda: kube.get("configmaps", COPY, namespace=namespace), within_s=60, what="the last good copy"
    )  # fmt: skip
    kube.kubectl(
        "create", "configmap", "other-code", "-n", namespace, "--from-literal=main.py=" + PLAIN
    )
    spec = {
        "source": None,
        "env": [{"name": "PYTHONPATH", "value": "/app"}],
        "config": [{"name": "code", "configMap": {"name": "other-code"}, "mountPath": "/app"}],
        "ingress": None,
        "disruptionBudget": {"enabled": False},
        "podTemplate": {"spec": {"serviceAccountName": "default"}},
    }
    kube.patch("wsgi", steady_app.NAME, {"spec": spec}, namespace=namespace)
    for kind in ("ingresses", "poddisruptionbudgets", "serviceaccounts"):
        wait_until(
            lambda kind=kind: not has(kube, kind, steady_app.NAME, namespace), within_s=60, what=f"no {kind} left"
        )  # fmt: skip
    wait_until(
        lambda: not has(kube, "configmaps", COPY, namespace), within_s=90, what="no copy left"
    )


PLAIN = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n"


def has(kube: Kube, kind: str, name: str, namespace: str) -> bool:
    return any(each["metadata"]["name"] == name for each in kube.list(kind, namespace=namespace))


def test_roles_allow_exactly_what_the_operator_asks_for(
    cluster: Cluster, steady: AppMaker, kube: Kube, operator: OperatorRelease, namespace: str
) -> None:
    log = cluster.paths.audit_log
    started = now()
    live_through_everything(steady, kube, operator, namespace)
    granted = audit.read_roles()

    def compare() -> tuple[list[audit.Right], list[audit.Right]]:
        """Return what is not allowed, of this run and those before, and what this story has not used."""
        asked = list(audit.read_log(log))
        # A watch that has begun before goes on for minutes.
        used = {
            each.right
            for each in asked
            if each.is_allowed and (each.at >= started or each.right.verb == "watch")
        }
        missing = sorted({each.right for each in asked} - granted)
        return missing, sorted(granted - used - UNUSED.keys())

    def is_all_used() -> bool:
        missing, unused = compare()
        if unused and not missing:
            raise NotYetError(f"allowed and not asked for: {unused}")
        return True

    # The log is written in batches.
    wait_until(is_all_used, within_s=60, what="each right used", every_s=2)
    assert compare()[0] == [], "asked for and not allowed"
