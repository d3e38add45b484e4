"""A worker that dies is replaced, and while idle workers exist no request fails."""

from __future__ import annotations

from tests.e2e.conftest import AppMaker, LoadMaker
from tests.support.wait import wait_until
from tests.support.wsgi_app import WsgiApp

KILLS = 4


def _workers_ready(app: WsgiApp) -> int:
    return int(app.status().get("workers", {}).get("ready", 0))


def test_worker_kill(steady: AppMaker, under_load: LoadMaker) -> None:
    # Few and quick calls: most workers are idle when one is killed. What a killed worker had
    # in hand is lost; nginx asks the other pod for a GET again, for a POST it must not.
    app = steady(server={"workers": 4, "threads": 1, "accessLog": "None"})
    pods = app.serving_pods()
    restarts = _restarts(app)
    with under_load(app, "worker kill -9", post_share=0.0, slow_share=0.0) as load:
        killed = set()
        for _ in range(KILLS):
            # One pod only: nginx takes a pod whose connection broke out for 10 s, both are too many.
            killed.add(app.kill_worker(pods[0]))
            load.run_on(3)
        wait_until(lambda: _workers_ready(app) == 8, within_s=90, what="8 ready workers")
        load.finish(in_place=True)
    assert len(killed) == KILLS
    assert app.serving_pods() == pods
    assert _restarts(app) == restarts  # the arbiter replaced them; no container did


def _restarts(app: WsgiApp) -> list[int]:
    return [
        status["restartCount"]
        for pod in app.pods()
        for status in pod["status"]["containerStatuses"]
    ]
