"""A changed ConfigMap with code reaches every worker in place, and no request fails."""

from __future__ import annotations

import pytest

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.support.kube import Kube


def test_code_reload_by_configmap(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1")
    pods = app.serving_pods()
    with under_load(app, "code reload by ConfigMap") as load:
        before = app.reload_hash()
        code = steady_app.build_code(steady_app.build_release("2"))
        kube.apply(code, namespace=namespace)
        app.wait_reload(after=before, status="True", within_s=60)
        reloaded_s = load.elapsed_s
        report = load.finish(in_place=True)
    assert list(report.versions) == ["1", "2"]
    # A call that the old generation had begun may still end; the longest takes 200 ms.
    assert report.versions["1"].last_s < reloaded_s + 1
    assert app.serving_pods() == pods
    assert app.status()["reload"]["updatedPods"] == 2


@pytest.mark.full
def test_reload_of_app_with_3_s_import(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", import_s=3)
    with under_load(app, "reload of an app with a 3 s import") as load:
        before = app.reload_hash()
        code = steady_app.build_code(steady_app.build_release("2"))
        kube.apply(code, namespace=namespace)
        app.wait_reload(after=before, status="True", within_s=90)
        report = load.finish(in_place=True)
    assert list(report.versions) == ["1", "2"]
