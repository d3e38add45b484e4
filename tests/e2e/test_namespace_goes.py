"""A watched namespace that is deleted costs the apps of others nothing, and is served again when it is back."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.cluster import Cluster
from tests.e2e import steady_app
from tests.e2e.conftest import READY_S, AppMaker, LoadMaker
from tests.e2e.namespaces import build_namespace
from tests.support.kube import Kube
from tests.support.operator_release import NAMESPACE, OperatorRelease
from tests.support.wait import wait_until
from tests.support.wsgi_app import WsgiApp

pytestmark = pytest.mark.alone


@pytest.fixture
def doomed(kube: Kube, namespace: str, operator: OperatorRelease) -> Iterator[str]:
    """The name of a namespace beside the test's own that is there at first."""
    name = f"{namespace}-doomed"
    kube.apply(*build_namespace(name), namespace=name)
    yield name
    operator.install()  # it must not be left with namespaces that go now
    kube.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=false")


def declare(kube: Kube, namespace: str) -> WsgiApp:
    code = steady_app.build_code(steady_app.build_release("1"))
    app = steady_app.build_app(namespace, replicas=1)
    app["spec"].pop("ingress")
    kube.apply(code, app, namespace=namespace)
    return WsgiApp(kube, namespace, steady_app.NAME, "", "")


def delete_and_wait(kube: Kube, namespace: str) -> None:
    kube.kubectl("delete", "namespace", namespace, "--timeout=110s")


def operator_starts(kube: Kube, operator: OperatorRelease) -> tuple[str, int]:
    """Return the operator's pod and how often its container was started anew."""
    name = operator.wait_ready()
    pod = kube.get("pods", name, namespace=NAMESPACE)
    return name, sum(each["restartCount"] for each in pod["status"]["containerStatuses"])


def reload_to(app: WsgiApp, kube: Kube, version: str, *, within_s: float) -> None:
    before = app.reload_hash()
    code = steady_app.build_code(steady_app.build_release(version))
    kube.apply(code, namespace=app.namespace)
    app.wait_reload(after=before, status="True", within_s=within_s)


@pytest.mark.full
def test_one_of_the_named_namespaces_is_deleted_and_made_anew(
    steady: AppMaker,
    under_load: LoadMaker,
    cluster: Cluster,
    kube: Kube,
    namespace: str,
    doomed: str,
    operator: OperatorRelease,
) -> None:
    both = f"watchNamespaces={{{namespace},{doomed}}}"
    operator.install(both)
    app = steady(version="1")
    declare(kube, doomed).wait_condition("Ready", "True", within_s=READY_S)
    first = operator_starts(kube, operator)
    with under_load(app, "a watched namespace is deleted", post_reuse=False) as load:
        delete_and_wait(kube, doomed)
        if os.environ.get("CLUSTER", "local") == "local":
            cluster.restart_apiserver()  # a watch that is under way goes on without the permission
            wait_until(kube.is_ready, within_s=60, what="the API server")
        load.run_on(60)
        reload_to(app, kube, "2", within_s=60)
        assert operator_starts(kube, operator) == first, "the operator ended"

        kube.apply(*build_namespace(doomed), namespace=doomed)
        operator.install(both)  # its RoleBinding went with the namespace
        back = declare(kube, doomed)
        back.wait_condition("Ready", "True", within_s=READY_S)
        reload_to(back, kube, "2", within_s=60)
        reload_to(app, kube, "3", within_s=60)
        report = load.finish(in_place=False)
    assert list(report.versions) == ["1", "2", "3"]
    assert operator_starts(kube, operator) == first, "the operator ended"


@pytest.mark.full
def test_namespace_of_an_operator_for_all_is_deleted_and_made_anew(
    kube: Kube, doomed: str, operator: OperatorRelease
) -> None:
    first = operator_starts(kube, operator)
    for _ in range(2):
        app = declare(kube, doomed)
        app.wait_condition("Ready", "True", within_s=READY_S)
        reload_to(app, kube, "2", within_s=60)
        delete_and_wait(kube, doomed)
        kube.apply(*build_namespace(doomed), namespace=doomed)
    assert operator_starts(kube, operator) == first
