"""A reload that is interrupted half-way is finished, and no request fails meanwhile."""

from __future__ import annotations

import json
import os

import pytest

from tests.cluster import Cluster
from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.support.kube import Kube
from tests.support.operator_release import OperatorRelease
from tests.support.wait import NotYetError, wait_until
from tests.support.wsgi_app import WsgiApp

pytestmark = pytest.mark.alone

REPLICAS = 3
IMPORT_S = 2.0  # long enough to be in the middle of it


def _begin_reload(app: WsgiApp, kube: Kube) -> str:
    """Change the code and return when the first pod has it and others do not; the old hash."""
    before = app.reload_hash()
    kube.apply(steady_app.build_code(steady_app.build_release("2")), namespace=app.namespace)

    def is_half_way() -> bool:
        reload = app.status().get("reload", {})
        if reload.get("hash") in (None, before):
            raise NotYetError(f"reload {reload}")
        return 0 < int(reload.get("updatedPods", 0)) < REPLICAS

    wait_until(is_half_way, within_s=60, what="one pod reloaded and others not")
    return before


def _finish(app: WsgiApp, before: str) -> None:
    app.wait_reload(after=before, status="True", within_s=120)
    assert app.status()["reload"]["updatedPods"] == REPLICAS


def test_operator_killed_in_the_middle_of_a_reload(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, operator: OperatorRelease
) -> None:
    app = steady(replicas=REPLICAS, import_s=IMPORT_S)
    pods = app.serving_pods()
    with under_load(app, "operator killed in the middle of a reload") as load:
        before = _begin_reload(app, kube)
        killed = operator.kill()
        assert operator.wait_ready() != killed
        _finish(app, before)
        report = load.finish(in_place=True)
    assert list(report.versions) == ["1", "2"]
    assert app.serving_pods() == pods


@pytest.mark.full
def test_operator_killed_again_and_again_during_a_reload(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, operator: OperatorRelease
) -> None:
    app = steady(replicas=REPLICAS, import_s=IMPORT_S)
    pods = app.serving_pods()
    with under_load(app, "operator killed six times during a reload") as load:
        before = app.reload_hash()
        kube.apply(steady_app.build_code(steady_app.build_release("2")), namespace=app.namespace)
        for _ in range(6):
            killed = operator.kill()
            assert operator.wait_ready() != killed
        _finish(app, before)
        report = load.finish(in_place=True)
    assert list(report.versions) == ["1", "2"]
    assert app.serving_pods() == pods


@pytest.mark.full
def test_change_that_is_taken_back_while_the_first_pod_loads_it(
    steady: AppMaker, under_load: LoadMaker, kube: Kube
) -> None:
    app = steady(replicas=2, import_s=8)
    pods, first = app.serving_pods(), app.reload_hash()
    with under_load(app, "change taken back while it is loaded") as load:
        kube.apply(steady_app.build_code(steady_app.build_release("2")), namespace=app.namespace)

        def is_loading() -> bool:
            """Whether a pod loads the change, and the status knows of it: it is written after the pod was asked."""
            reloads = [json.loads(app.ask_agent(p, "/status")[1])["reload"] for p in pods]
            is_running = any(each is not None and each["result"] == "running" for each in reloads)
            return is_running and app.reload_hash() != first

        wait_until(is_loading, within_s=60, what="a pod loads the change")
        before = app.reload_hash()
        kube.apply(steady_app.build_code(steady_app.build_release("1")), namespace=app.namespace)
        app.wait_reload(after=before, status="True", within_s=120)
        assert {app.fetch(pod, "/version")[1] for pod in pods} == {"1"}
        load.finish(in_place=True)


@pytest.mark.skipif(
    os.environ.get("CLUSTER") == "existing", reason="not our API server: it is not restarted"
)
@pytest.mark.full
def test_api_server_restarted_in_the_middle_of_a_reload(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, cluster: Cluster
) -> None:
    app = steady(replicas=REPLICAS, import_s=IMPORT_S)
    pods = app.serving_pods()
    with under_load(app, "API server restarted in the middle of a reload") as load:
        before = _begin_reload(app, kube)
        cluster.restart_apiserver()
        wait_until(kube.is_ready, within_s=60, what="the API server")
        _finish(app, before)
        report = load.finish(in_place=True)
    assert list(report.versions) == ["1", "2"]
    assert app.serving_pods() == pods
