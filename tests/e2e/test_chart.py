"""The operator can be upgraded, removed and put back while the apps serve on."""

from __future__ import annotations

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.support.kube import Kube
from tests.support.operator_release import OperatorRelease


def test_chart_upgrade_and_uninstall_leave_the_apps_alone(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, operator: OperatorRelease, namespace: str
) -> None:
    app = steady(version="1")
    pods = app.serving_pods()
    with under_load(app, "chart upgraded, uninstalled, installed") as load:
        try:
            operator.install("logLevel=debug")
            operator.uninstall()
            code = steady_app.build_code(steady_app.build_release("2"))
            kube.apply(code, namespace=namespace)  # nobody acts on it yet
            assert app.serving_pods() == pods
            before = app.reload_hash()
        finally:
            operator.install()
        app.wait_reload(after=before, status="True", within_s=60)
        report = load.finish(in_place=True, least_s=8)
    assert list(report.versions) == ["1", "2"]
    assert app.serving_pods() == pods
