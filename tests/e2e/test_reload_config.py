"""A changed Secret with settings reaches every worker in place, and no request fails."""

from __future__ import annotations

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.support.kube import Kube


def test_config_reload_by_secret(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", secret="a")
    pods = app.serving_pods()
    with under_load(app, "config reload by Secret") as load:
        before = app.reload_hash()
        kube.apply(steady_app.build_secret("b"), namespace=namespace)
        app.wait_reload(after=before, status="True", within_s=60)
        reloaded_s = load.elapsed_s
        report = load.finish(in_place=True)
    assert list(report.versions) == ["1/a", "1/b"]
    assert report.versions["1/a"].last_s < reloaded_s + 1
    assert app.serving_pods() == pods
