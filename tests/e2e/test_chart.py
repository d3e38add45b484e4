"""The operator can be upgraded, removed and put back while the apps serve on."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.cluster.packages import install_helm3
from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.support.kube import Kube
from tests.support.operator_release import ROOT, OperatorRelease

pytestmark = pytest.mark.alone


def test_chart_upgrade_and_uninstall_leave_the_apps_alone(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, operator: OperatorRelease, namespace: str
) -> None:
    app = steady(version="1")
    pods = app.serving_pods()
    with under_load(app, "chart upgraded, uninstalled, installed") as load:
        try:
            operator.install("logLevel=debug")
            operator.test()
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


@pytest.mark.full
def test_chart_goes_from_the_commit_before_to_this_one_and_back(
    steady: AppMaker,
    under_load: LoadMaker,
    operator: OperatorRelease,
    tmp_path: Path,
) -> None:
    app = steady(version="1")
    before = dataclasses.replace(operator, chart=unpack_chart("HEAD~1", tmp_path))
    with under_load(app, "chart upgraded and rolled back", post_reuse=False) as load:
        try:
            before.install()
            operator.install()
            operator.test()
            operator.roll_back()
            app.wait_condition("Ready", "True", within_s=60)
        finally:
            operator.install()
        load.finish(in_place=False)


@pytest.mark.full
def test_the_oldest_helm_installs_and_upgrades(
    steady: AppMaker, operator: OperatorRelease, cluster: Cluster
) -> None:
    oldest = dataclasses.replace(operator, helm=install_helm3(cluster.paths))
    try:
        operator.uninstall()
        oldest.install()
        oldest.install("logLevel=debug")
        oldest.test()
        steady(version="1", replicas=1)
        oldest.uninstall()
    finally:
        operator.install()


@pytest.mark.full
def test_crd_that_was_deleted_and_installed_again_is_served_again(
    steady: AppMaker, kube: Kube, operator: OperatorRelease
) -> None:
    steady(version="1", replicas=1)
    try:
        kube.kubectl("delete", "crd", "wsgiapps.wsgi.dev")
    finally:
        operator.install()
    steady(version="2", replicas=1)


def unpack_chart(commit: str, folder: Path) -> Path:
    """Write the chart of a commit into a folder and return where it is."""
    packed = folder / "chart.tar"
    inside = "charts/wsgiapp-operator"
    command = ["git", "-C", ROOT, "archive", f"--output={packed}", commit, inside]
    subprocess.run(command, check=True)
    subprocess.run(["tar", "-x", "-C", folder, "-f", packed], check=True)
    return folder / inside
