"""Code that needs more memory than the limit leaves costs its reload, not what serves."""

from __future__ import annotations

import pytest

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.support.kube import Kube
from tests.support.wait import wait_until
from tests.support.wsgi_app import WsgiApp

REPLICAS = 3
LIMIT_MIB = 256
RESOURCES = {
    "requests": {"cpu": "20m", "memory": "64Mi"},
    "limits": {"memory": f"{LIMIT_MIB}Mi"},
}
GREEDY = "VERSION = '2'\nheap = [bytearray(b'x' * (1 << 20)) for _ in range(400)]\n"
_USED = """
import pathlib
root = pathlib.Path("/sys/fs/cgroup")
for use, stat, free in (
    ("memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
):
    if (root / use).exists():
        stats = dict(line.split() for line in (root / stat).read_text().splitlines())
        print(int((root / use).read_text()) - int(stats[free]))
        break
"""


def used_mib(app: WsgiApp, pod: str) -> float:
    """Return what a pod's app container holds of its limit, as the kubelet counts it."""
    inside = ("exec", "-n", app.namespace, pod, "-c", "app", "--")
    return int(app.kube.kubectl(*inside, "python3", "-c", _USED)) / (1 << 20)


def build_release(version: str, mib: int) -> str:
    """Return a release.py that keeps so much memory, shared by the workers that are forked from it."""
    return f"VERSION = {version!r}\nheap = [bytearray(b'x' * (1 << 20)) for _ in range({mib})]\n"


@pytest.mark.full
def test_new_code_that_is_killed_for_memory_stops_at_the_first_pod(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", replicas=REPLICAS, resources=RESOURCES)
    case = "new code is killed for memory, then a fix"
    # What a killed process has in hand is lost; nginx asks another pod for a GET again.
    with under_load(app, case, post_share=0.0, slow_share=0.0) as load:
        before = app.reload_hash()
        kube.apply(steady_app.build_code(GREEDY), namespace=namespace)
        failed = app.wait_reload(after=before, status="False", within_s=120)
        print(failed.message)
        assert app.status()["reload"]["updatedPods"] == 0
        app.wait_serving_pods(REPLICAS, within_s=90)
        before = app.reload_hash()
        kube.apply(steady_app.build_code(steady_app.build_release("3")), namespace=namespace)
        app.wait_reload(after=before, status="True", within_s=240)
        report = load.finish(in_place=False)
    assert set(report.versions) == {"1", "3"}
    assert "memory" in failed.message


@pytest.mark.full
def test_app_at_85_percent_of_its_memory_limit_reloads_or_says_why_not(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", resources=RESOURCES)
    app.wait_condition("Reloaded", "True", within_s=30)
    base = used_mib(app, app.serving_pods()[0])
    ballast = round(0.85 * LIMIT_MIB - base)
    before = app.reload_hash()
    code = steady_app.build_code(build_release("2", ballast))
    kube.apply(code, namespace=namespace)
    app.wait_reload(after=before, status="True", within_s=90)
    pods = app.serving_pods()
    wait_until(
        lambda: all(used_mib(app, pod) >= 0.8 * LIMIT_MIB for pod in pods),
        within_s=30,
        what="80 % of the limit in use",
    )
    with under_load(app, "reload at 85 % of the memory limit") as load:
        before = app.reload_hash()
        kube.apply(steady_app.build_code(build_release("3", ballast)), namespace=namespace)
        done = app.wait_reload(after=before, status="True", within_s=120)
        print([used_mib(app, pod) / LIMIT_MIB for pod in pods], done.message)
        report = load.finish(in_place=True)
    assert list(report.versions) == ["2", "3"]
    assert app.serving_pods() == pods
    restarts = [s["restartCount"] for p in app.pods() for s in p["status"]["containerStatuses"]]
    assert set(restarts) == {0}
