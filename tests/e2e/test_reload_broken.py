"""Code that does not import never replaces code that serves, and the reason is in the condition."""

from __future__ import annotations

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.support.kube import Kube

BROKEN = "VERSION = '2'\nimport not_there\n"
LAST_LINE = "ModuleNotFoundError: No module named 'not_there'"


def test_broken_reload_is_told_and_mended_by_the_next(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1")
    pods = app.serving_pods()
    with under_load(app, "broken reload, then a good one") as load:
        before = app.reload_hash()
        kube.apply(steady_app.build_code(BROKEN), namespace=namespace)
        failed = app.wait_reload(after=before, status="False", within_s=60)
        assert LAST_LINE in failed.message
        assert app.status()["reload"]["failedPod"] in pods
        assert LAST_LINE in app.status()["reload"]["message"]

        before = app.reload_hash()
        code = steady_app.build_code(steady_app.build_release("3"))
        kube.apply(code, namespace=namespace)
        app.wait_reload(after=before, status="True", within_s=60)
        report = load.finish(in_place=True)
    assert list(report.versions) == ["1", "3"]  # never 2
    assert app.serving_pods() == pods
    app.wait_condition("Ready", "True", within_s=30)
