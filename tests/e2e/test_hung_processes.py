"""Processes that hang cost a moment: an agent its own pod's readiness, the API server nothing that serves."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.e2e.hung import find_agent, find_apiserver, hung, needs_local_cluster
from tests.support.kube import Kube
from tests.support.operator_release import OperatorRelease
from tests.support.wait import NotYetError, wait_until
from tests.support.wsgi_app import WsgiApp

pytestmark = [needs_local_cluster, pytest.mark.full, pytest.mark.alone]
REPLICAS = 3
API_SERVER_HANGS_S = 40


def generations(app: WsgiApp) -> dict[str, int]:
    """Return the generation that serves, by pod: the first is 1, each reload that succeeds makes the next."""
    return {
        pod: int(json.loads(app.ask_agent(pod, "/status")[1])["generation"])
        for pod in app.serving_pods()
    }


def test_hung_agent_is_restarted_and_its_app_lives_on(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1")
    pods = app.serving_pods()
    victim = pods[0]
    with under_load(app, "agent hangs until its probe ends it", post_reuse=False) as load:
        pid = find_agent(app, victim)
        with hung(pid):

            def is_said() -> str:
                found = app.condition("Ready")
                if victim not in found.message:
                    raise NotYetError(str(found))
                return found.message

            print(wait_until(is_said, within_s=60, what="the pod in the status", every_s=0.3))
            wait_until(
                lambda: app.restarts(victim, "agent") > 0,
                within_s=90,
                what="the agent to be started anew",
                every_s=0.5,
            )
        wait_until(lambda: app.serving_pods() == pods, within_s=60, what="both pods to serve")
        before = app.reload_hash()
        kube.apply(steady_app.build_code(steady_app.build_release("2")), namespace=namespace)
        app.wait_reload(after=before, status="True", within_s=60)
        report = load.finish(in_place=False)
    assert list(report.versions) == ["1", "2"]
    assert [app.restarts(pod) for pod in pods] == [0, 0]


def test_api_server_that_hangs_in_the_middle_of_a_reload_and_goes_on(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str, operator: OperatorRelease
) -> None:
    app = steady(version="1", replicas=REPLICAS, import_s=2)
    pods = app.serving_pods()
    template = deployment_of(app)["metadata"]["generation"]
    with under_load(app, "API server hangs for 40 s in the middle of a reload") as load:
        before = app.reload_hash()
        kube.apply(steady_app.build_code(steady_app.build_release("2")), namespace=namespace)
        wait_until(
            lambda: (
                int(app.status().get("reload", {}).get("updatedPods", 0)) == 1
                and app.reload_hash() != before
            ),
            within_s=60,
            what="one pod reloaded and others not",
        )
        with hung(find_apiserver()):
            load.run_on(API_SERVER_HANGS_S)
        wait_until(kube.is_ready, within_s=60, what="the API server")
        app.wait_reload(after=before, status="True", within_s=120)
        assert set(generations(app).values()) == {2}, "each pod was reloaded once"

        # It leads again, and acts on what comes next.
        began = time.monotonic()
        before = app.reload_hash()
        kube.apply(steady_app.build_code(steady_app.build_release("3")), namespace=namespace)
        app.wait_reload(after=before, status="True", within_s=60)
        print(f"the next change was taken in {time.monotonic() - began:.1f} s")
        assert set(generations(app).values()) == {3}
        report = load.finish(in_place=True)
    assert list(report.versions) == ["1", "2", "3"]
    assert app.serving_pods() == pods
    assert deployment_of(app)["metadata"]["generation"] == template, "nothing was written twice"
    operator.wait_ready()


def deployment_of(app: WsgiApp) -> dict[str, Any]:
    return app.kube.get("deployments", app.name, namespace=app.namespace)


def test_app_made_anew_twenty_times_while_its_agent_hangs_delays_nobody(
    steady: AppMaker, kube: Kube, namespace: str
) -> None:
    other = {**steady_app.build_app(namespace, replicas=1), "metadata": {"name": "other"}}
    other["spec"].pop("ingress")
    app = steady(version="1", replicas=1)
    kube.apply(other, namespace=namespace)
    neighbour = WsgiApp(kube, namespace, "other", "", "")
    neighbour.wait_condition("Ready", "True", within_s=90)
    with hung(find_agent(app, app.serving_pods()[0])):
        for _ in range(20):
            kube.kubectl("delete", "wsgi", app.name, "-n", namespace)
            kube.apply(steady_app.build_app(namespace, replicas=1), namespace=namespace)
        began = time.monotonic()
        kube.patch("wsgiapp", "other", {"spec": {"replicas": 2}}, namespace=namespace)
        wait_until(
            lambda: kube.get("deployments", "other", namespace=namespace)["spec"]["replicas"] == 2,
            within_s=30,
            what="the neighbour to be scaled",
        )
        took_s = time.monotonic() - began
        app.wait_condition("Ready", "True", within_s=150)
    uid = app.get()["metadata"]["uid"]
    assert [each["uid"] for each in deployment_of(app)["metadata"]["ownerReferences"]] == [uid]
    assert took_s < 5, took_s
    app.wait_serving_pods(1, within_s=90)
    neighbour.wait_serving_pods(2, within_s=60)
