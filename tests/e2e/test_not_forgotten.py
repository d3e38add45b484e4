"""An app goes on being kept, whatever is done to its objects and its pods."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker
from tests.support.kube import Kube, NotFoundError
from tests.support.wait import wait_until

FOREIGN = {
    "serviceaccount": {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": "steady"},
    },
    "service": {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "steady"},
        "spec": {"selector": {"app": "legacy"}, "ports": [{"port": 80}]},
    },
}
FINALIZER = "example.com/slow"


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


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_object_of_the_apps_name_is_neither_used_nor_harmed(
    kube: Kube, namespace: str, kind: str
) -> None:
    """No pod runs as the ServiceAccount of another, and no request is sent to the Service of another."""
    kube.apply(FOREIGN[kind], namespace=namespace)
    before = kube.get(f"{kind}s", steady_app.NAME, namespace=namespace)
    code = steady_app.build_code(steady_app.build_release("1"))
    kube.apply(code, steady_app.build_app(namespace, replicas=1), namespace=namespace)

    def reason() -> str:
        status = kube.get("wsgiapps", steady_app.NAME, namespace=namespace).get("status", {})
        found = [c for c in status.get("conditions", []) if c["type"] == "Ready"]
        return found[0]["reason"] if found else ""

    wait_until(lambda: reason() == "NameConflict", within_s=30, what="Ready=False/NameConflict")
    assert kube.list("ingresses", namespace=namespace) == []
    if kind == "serviceaccount":
        assert kube.list("deployments", namespace=namespace) == []
    assert kube.get(f"{kind}s", steady_app.NAME, namespace=namespace) == before
    kube.kubectl("delete", kind, steady_app.NAME, "-n", namespace)

    def is_made() -> bool:
        try:
            kube.get("deployments", steady_app.NAME, namespace=namespace)
            kube.get("ingresses", steady_app.NAME, namespace=namespace)
        except NotFoundError:
            return False
        return reason() != "NameConflict"

    wait_until(is_made, within_s=60, what="all objects, once the name is free")


@pytest.mark.full
def test_deployment_that_is_deleted_in_the_foreground_is_made_anew(
    steady: AppMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", replicas=2)
    before = uid_of(kube, "deployments", namespace)
    where = ("deployment", app.name, "-n", namespace)
    kube.kubectl("delete", *where, "--cascade=foreground", "--wait=false")

    def is_anew() -> bool:
        return uid_of(kube, "deployments", namespace) not in ("", before)

    wait_until(is_anew, within_s=90, what="another Deployment")
    app.wait_condition("Ready", "True", within_s=90)
    app.wait_serving_pods(2, within_s=90)


@pytest.mark.full
def test_ingress_that_takes_its_time_to_go_holds_up_nothing_else(
    steady: AppMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", replicas=1)
    before = uid_of(kube, "ingresses", namespace)
    held = {"metadata": {"finalizers": [FINALIZER]}}
    kube.patch("ingress", app.name, held, namespace=namespace)
    try:
        kube.kubectl("delete", "ingress", app.name, "-n", namespace, "--wait=false")
        told = app.wait_condition("Ready", "False", within_s=30)
        assert "Ingress" in told.message, told
        kube.patch("wsgiapp", app.name, {"spec": {"replicas": 2}}, namespace=namespace)
        app.wait_serving_pods(2, within_s=60)
        reload = app.reload_hash()
        kube.apply(steady_app.build_code(steady_app.build_release("2")), namespace=namespace)
        app.wait_reload(after=reload, status="True", within_s=60)
        assert uid_of(kube, "ingresses", namespace) == before
    finally:
        freed: dict[str, Any] = {"metadata": {"finalizers": None}}
        kube.patch("ingress", app.name, freed, namespace=namespace)

    def is_anew() -> bool:
        return uid_of(kube, "ingresses", namespace) not in ("", before)

    wait_until(is_anew, within_s=60, what="another Ingress")
    app.wait_condition("Ready", "True", within_s=60)


def uid_of(kube: Kube, kind: str, namespace: str) -> str:
    """Return the uid of the app's object of a kind, "" where there is none."""
    try:
        return str(kube.get(kind, steady_app.NAME, namespace=namespace)["metadata"]["uid"])
    except NotFoundError:
        return ""
