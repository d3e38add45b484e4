"""New code that imports but does not serve stops at the first pod, and the fix goes through."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.support.kube import Kube
from tests.support.wait import NotYetError, wait_until

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


@pytest.mark.full
@pytest.mark.skipif(
    os.environ.get("CLUSTER") in ("existing", "kind"), reason="kills by this machine's containerd"
)
def test_container_that_somebody_kills_after_its_reload_is_asked_once_more(
    steady: AppMaker, kube: Kube, cluster: Cluster, namespace: str
) -> None:
    """As the kernel of a node does that a neighbour has left without memory: the content is not the reason."""
    app = steady(version="1", replicas=2, rollout={"minReadySeconds": 5})
    before = app.reload_hash()
    kube.apply(steady_app.build_code(steady_app.build_release("2")), namespace=namespace)

    def first_that_serves_it() -> str:
        for name in app.serving_pods():
            if app.fetch(name, "/version")[1].startswith("2"):
                return name
        raise NotYetError("no pod serves the new code")

    killed = wait_until(first_that_serves_it, within_s=60, what="the first reload")
    kill_container(cluster, kube.get("pods", killed, namespace=namespace))
    app.wait_reload(after=before, status="True", within_s=180)
    events = [each["reason"] for each in kube.list("events", namespace=namespace)]
    assert "ReloadFailed" not in events
    pod = kube.get("pods", killed, namespace=namespace)
    assert json.loads(pod["metadata"]["annotations"]["wsgi.dev/reload-before"])["isSecond"]
    assert all(app.fetch(name, "/version")[1].startswith("2") for name in app.serving_pods())


def kill_container(cluster: Cluster, pod: dict[str, Any]) -> None:
    """Send SIGKILL to the app's container from outside: inside its first process does not take it."""
    (status,) = (c for c in pod["status"]["containerStatuses"] if c["name"] == "app")
    container = status["containerID"].removeprefix("containerd://")
    paths = cluster.paths
    ctr = [paths.bin / "ctr", f"--address={paths.containerd_socket}", "--namespace=k8s.io"]
    subprocess.run([*ctr, "tasks", "kill", "--signal", "SIGKILL", container], check=True)
