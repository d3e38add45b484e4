"""Code that needs more memory than the limit leaves costs its reload, not what serves."""

from __future__ import annotations

import pytest

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.support.kube import Kube
from tests.support.wait import wait_until
from tests.support.wsgi_app import Condition, WsgiApp

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
    assert "SIGKILL" in failed.message
    assert "memory" in failed.message


def fill(app: WsgiApp, kube: Kube, *, holders: int) -> int:
    """Bring code that holds so much that 85 % of the limit are in use; return the MiB in each of its holders."""
    app.wait_condition("Reloaded", "True", within_s=30)
    pods = app.serving_pods()
    ballast = round((0.85 * LIMIT_MIB - used_mib(app, pods[0])) / holders)
    reload(app, kube, "2", ballast, "True")
    wait_until(
        lambda: all(used_mib(app, pod) >= 0.8 * LIMIT_MIB for pod in pods),
        within_s=30,
        what="80 % of the limit in use",
    )
    return ballast


def reload(app: WsgiApp, kube: Kube, version: str, ballast: int, status: str) -> Condition:
    """Bring code that holds so many MiB, and return how its reload ended."""
    before = app.reload_hash()
    code = steady_app.build_code(build_release(version, ballast))
    kube.apply(code, namespace=app.namespace)
    return app.wait_reload(after=before, status=status, within_s=120)


def restarts(app: WsgiApp) -> int:
    return sum(s["restartCount"] for p in app.pods() for s in p["status"]["containerStatuses"])


@pytest.mark.full
def test_app_whose_workers_fill_85_percent_of_the_limit_reloads(
    steady: AppMaker, under_load: LoadMaker, kube: Kube
) -> None:
    server = {"workers": 2, "threads": 2, "accessLog": "None", "extraArgs": ["--preload=never"]}
    app = steady(version="1", resources=RESOURCES, server=server)
    pods = app.serving_pods()
    ballast = fill(app, kube, holders=2)
    with under_load(app, "reload at 85 % of the memory limit") as load:
        reload(app, kube, "3", ballast, "True")
        print([f"{used_mib(app, pod) / LIMIT_MIB:.0%}" for pod in pods])
        report = load.finish(in_place=True)
    assert list(report.versions) == ["2", "3"]
    assert app.serving_pods() == pods
    assert restarts(app) == 0


@pytest.mark.full
def test_import_that_does_not_fit_beside_the_old_one_is_refused_with_the_figures(
    steady: AppMaker, under_load: LoadMaker, kube: Kube
) -> None:
    app = steady(version="1", resources=RESOURCES)
    pods = app.serving_pods()
    ballast = fill(app, kube, holders=1)  # one import, shared by the workers
    with under_load(app, "an import that does not fit at 85 % of the limit") as load:
        told = reload(app, kube, "3", ballast, "False").message
        assert f"of the limit of {LIMIT_MIB} MiB are free; raise the limit" in told
        report = load.finish(in_place=True)
    assert list(report.versions) == ["2"]
    assert app.serving_pods() == pods
    assert restarts(app) == 0
