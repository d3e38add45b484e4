"""What serves keeps its own code and files, whatever the mounted ones have become, and comes back with them."""

from __future__ import annotations

import pytest

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.support.kube import Kube
from tests.support.wait import NotYetError, wait_until
from tests.support.wsgi_app import WsgiApp

BROKEN = "VERSION = '2'\nimport not_there\n"
REPLICAS = 2


def break_code(app: WsgiApp, kube: Kube) -> None:
    """Bring code that does not import, with other files; wait until a pod has failed with it."""
    before = app.reload_hash()
    kube.apply(steady_app.build_code(BROKEN, own="2"), namespace=app.namespace)
    app.wait_reload(after=before, status="False", within_s=60)


def wait_own(app: WsgiApp, own: str, *, within_s: float = 60) -> None:
    """Wait until each pod that serves reads and imports files of that version, by every path."""
    expected = f"late {own}, page {own}, page {own}"

    def all_are_right() -> bool:
        pods = app.serving_pods()
        seen = {pod: app.fetch(pod, "/own") for pod in pods}
        if len(pods) < REPLICAS or set(seen.values()) != {(200, expected)}:
            raise NotYetError(f"{seen}, not {expected!r} of {REPLICAS} pods")
        return True

    wait_until(all_are_right, within_s=within_s, what=f"files of version {own} in every pod")


def test_old_code_keeps_its_files_and_comes_back_with_them(
    steady: AppMaker, under_load: LoadMaker, kube: Kube
) -> None:
    app = steady(version="1", replicas=REPLICAS)
    case = "failed reload, then molds and workers killed"
    # Each request imports and reads, before, during and after the reload that fails.
    own = {"get_path": "/own", "post_share": 0.0, "slow_share": 0.0}
    with under_load(app, case, **own) as load:
        break_code(app, kube)
        wait_own(app, "1")
        for pod in app.serving_pods():
            app.kill_mold(pod)
        for pod in app.serving_pods():
            app.kill_worker(pod)
        wait_own(app, "1")
        report = load.finish(in_place=True)
    assert set(report.versions) == {"late 1, page 1, page 1"}
    before = app.reload_hash()
    good = steady_app.build_code(steady_app.build_release("3"), own="3")
    kube.apply(good, namespace=app.namespace)
    app.wait_reload(after=before, status="True", within_s=60)
    wait_own(app, "3")


@pytest.mark.full
def test_restarted_container_boots_what_served_in_its_pod(steady: AppMaker, kube: Kube) -> None:
    app = steady(version="1", replicas=REPLICAS)
    break_code(app, kube)
    app.restart_containers(*app.serving_pods())
    wait_own(app, "1", within_s=120)
