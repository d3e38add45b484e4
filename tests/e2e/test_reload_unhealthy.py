"""New code that imports but does not serve stops at the first pod, and the fix goes through."""

from __future__ import annotations

import pytest

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.support.kube import Kube

REPLICAS = 3
UNHEALTHY = "VERSION = '2'\nHEALTH = '500 Internal Server Error'\n"
# Ends the server, and so the container, when it is imported anywhere.
DEADLY = "import os, signal\nVERSION = '2'\nos.kill(1, signal.SIGTERM)\n"


def test_code_whose_health_path_answers_500_stops_at_the_first_pod(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", replicas=REPLICAS)
    with under_load(app, "health path answers 500 after a reload, then a fix") as load:
        before = app.reload_hash()
        kube.apply(steady_app.build_code(UNHEALTHY), namespace=namespace)
        app.wait_reload(after=before, status="False", within_s=60)
        load.run_on(15)  # longer than the kubelet needs to find a pod unready
        assert app.condition("Reloaded").reason == "ReloadFailed"
        assert len(app.serving_pods()) >= REPLICAS - 1
        assert app.status()["reload"]["updatedPods"] <= 1

        before = app.reload_hash()
        code = steady_app.build_code(steady_app.build_release("3"))
        kube.apply(code, namespace=namespace)
        app.wait_reload(after=before, status="True", within_s=120)
        load.finish(in_place=False)
    app.wait_condition("Ready", "True", within_s=30)


@pytest.mark.full
def test_code_that_ends_its_container_takes_one_pod_and_is_remembered(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", replicas=REPLICAS)
    case = "code that ends its container at import, then a fix"
    with under_load(app, case, post_reuse=False) as load:
        before = app.reload_hash()
        kube.apply(steady_app.build_code(DEADLY), namespace=namespace)
        app.wait_reload(after=before, status="False", within_s=180)
        first = app.status()["reload"]["failedPod"]
        # Its container is started anew, with what served before.
        app.wait_serving_pods(REPLICAS, within_s=90)

        # The failure outlives the pod: its successor does not make another one the next to try.
        kube.kubectl("delete", "pod", first, "-n", namespace, "--wait=true")
        assert app.condition("Reloaded").reason == "ReloadFailed"
        app.wait_serving_pods(REPLICAS, within_s=90)  # it has booted the last good code
        assert app.status()["reload"]["updatedPods"] == 0

        before = app.reload_hash()
        kube.apply(steady_app.build_code(steady_app.build_release("3")), namespace=namespace)
        app.wait_reload(after=before, status="True", within_s=240)
        app.wait_condition("Ready", "True", within_s=120)
        report = load.finish(in_place=False)
    assert list(report.versions) == ["1", "3"]
