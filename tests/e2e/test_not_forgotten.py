"""An app goes on being kept, whatever is done to its objects and its pods."""

from __future__ import annotations

import pytest

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker
from tests.support.kube import Kube, NotFoundError
from tests.support.wait import wait_until

FOREIGN_ACCOUNT = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "steady"}}


@pytest.mark.full
def test_app_that_is_made_anew_at_once_comes_back_each_time(
    steady: AppMaker, kube: Kube, namespace: str
) -> None:
    app = steady(replicas=1)
    for _ in range(3):
        kube.kubectl("delete", "wsgi", app.name, "-n", namespace)
        kube.apply(steady_app.build_app(namespace, replicas=1), namespace=namespace)
        app.wait_condition("Ready", "True", within_s=120)
        uid = app.get()["metadata"]["uid"]
        deployment = kube.get("deployments", app.name, namespace=namespace)
        assert [owner["uid"] for owner in deployment["metadata"]["ownerReferences"]] == [uid]


@pytest.mark.full
def test_pod_that_is_taken_out_by_its_label_and_deleted_leaves_the_app_working(
    steady: AppMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", replicas=2)
    pod = app.serving_pods()[0]
    label = "wsgi.dev/app=quarantine"
    kube.kubectl("label", "pod", pod, "-n", namespace, label, "--overwrite")
    app.wait_serving_pods(2, within_s=90)
    kube.kubectl("delete", "pod", pod, "-n", namespace)
    before = app.reload_hash()
    kube.apply(steady_app.build_code(steady_app.build_release("2")), namespace=namespace)
    app.wait_reload(after=before, status="True", within_s=120)
    kube.patch("wsgiapp", app.name, {"spec": {"replicas": 3}}, namespace=namespace)
    app.wait_serving_pods(3, within_s=90)


def test_no_pod_runs_as_a_foreign_service_account(kube: Kube, namespace: str) -> None:
    kube.apply(FOREIGN_ACCOUNT, namespace=namespace)
    code = steady_app.build_code(steady_app.build_release("1"))
    kube.apply(code, steady_app.build_app(namespace, replicas=1), namespace=namespace)

    def reason() -> str:
        status = kube.get("wsgiapps", steady_app.NAME, namespace=namespace).get("status", {})
        found = [c for c in status.get("conditions", []) if c["type"] == "Ready"]
        return found[0]["reason"] if found else ""

    wait_until(lambda: reason() == "NameConflict", within_s=30, what="Ready=False/NameConflict")
    assert kube.list("deployments", namespace=namespace) == []
    kube.kubectl("delete", "serviceaccount", steady_app.NAME, "-n", namespace)

    def is_made() -> bool:
        try:
            kube.get("deployments", steady_app.NAME, namespace=namespace)
        except NotFoundError:
            return False
        return True

    wait_until(is_made, within_s=60, what="the Deployment, once the name is free")
