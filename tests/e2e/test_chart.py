"""The operator can be upgraded, removed and put back while the apps serve on."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster
from tests.cluster.packages import install_helm3
from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.support.kube import Kube
from tests.support.operator_release import CHART, ROOT, OperatorRelease
from tests.support.wait import NotYetError, wait_until

pytestmark = pytest.mark.alone
# Annotations of Ingresses that the tests set.
NAMES = {
    "body": "nginx.org/client-max-body-size",
    "foreign": "example.com/team",
    "hsts": "nginx.org/hsts",
}


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
            wait_until(lambda: not list_leases(kube), within_s=30, what="no Lease left")
            assert app.serving_pods() == pods
            before = app.reload_hash()
        finally:
            operator.install()
        app.wait_reload(after=before, status="True", within_s=60)
        report = load.finish(in_place=True, least_s=8)
    assert list(report.versions) == ["1", "2"]
    assert app.serving_pods() == pods


def list_leases(kube: Kube) -> list[dict[str, Any]]:
    """Return the operator's Leases."""
    selector = "app.kubernetes.io/managed-by=wsgiapp-operator"
    return kube.list("leases", namespace="kube-system", selector=selector)


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
def test_only_the_annotations_that_the_chart_allows_reach_an_ingress(
    steady: AppMaker, kube: Kube, operator: OperatorRelease, namespace: str
) -> None:
    app = steady(version="1", replicas=1)

    def annotate(**annotations: str | None) -> None:
        """Set annotations of the Ingress by the names below; None removes."""
        change = {NAMES[name]: value for name, value in annotations.items()}
        spec = {"spec": {"ingress": {"annotations": change}}}
        kube.patch("wsgiapp", app.name, spec, namespace=namespace)

    def wait_annotations(**wanted: str | None) -> None:
        def has() -> bool:
            found = kube.get("ingresses", app.name, namespace=namespace)["metadata"]["annotations"]
            seen = {name: found.get(NAMES[name]) for name in wanted}
            if seen != wanted:
                raise NotYetError(str(seen))
            return True

        wait_until(has, within_s=30, what=f"annotations {wanted}")

    try:
        operator.install("apps.ingressAnnotations={nginx.org/client-max-*,example.com/*}")
        annotate(body="3m", foreign="web")
        wait_annotations(body="3m", foreign="web")
        annotate(body=None, foreign=None)
        wait_annotations(body=str(16 << 20), foreign=None)  # the operator's own is back
        annotate(hsts="true")
        refused = app.wait_condition("Ready", "False", reason="InvalidSpec", within_s=30)
        for word in (NAMES["hsts"], "nginx.org/client-max-* or example.com/*"):
            assert word in refused.message
        wait_annotations(hsts=None)
        annotate(hsts=None, foreign="web")
        app.wait_condition("Ready", "True", within_s=60)
        wait_annotations(foreign="web")
        # What was there before the list does not hold up the app; it is refused, and stays as it is.
        operator.install("apps.ingressAnnotations={nginx.org/*}")
        app.wait_condition("Ready", "False", reason="InvalidSpec", within_s=60)
        wait_annotations(foreign="web")
        assert app.serving_pods()
    finally:
        operator.install()
    app.wait_condition("Ready", "True", within_s=60)


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


@pytest.mark.full
def test_helm_takes_over_the_crd_of_a_plain_installation_as_the_page_says(
    kube: Kube, operator: OperatorRelease, tmp_path: Path
) -> None:
    crd = "manifests/crd/wsgiapps.yaml"
    try:
        operator.uninstall()
        kube.kubectl("delete", "crd", "wsgiapps.wsgi.dev")
        kube.kubectl("apply", "--server-side", "-f", str(ROOT / crd))
        for command in read_take_over():
            kube.kubectl(*command)
        # The chart may be newer than the plain installation, and is upgraded later.
        for description in ("Pods of the new template.", "Pods of the newer template."):
            change_crd(dataclasses.replace(operator, chart=tmp_path / "chart"), description)
    finally:
        operator.install()


def read_take_over() -> list[list[str]]:
    """Return the arguments of each kubectl command with which the page makes the CRD Helm's."""
    page = (ROOT / "docs/operations/uninstall.md").read_text()
    section = page.partition("## From the plain installation to Helm")[2].partition("\n## ")[0]
    commands = [shlex.split(line) for line in section.splitlines() if line.startswith("kubectl ")]
    assert len(commands) == 3
    return [arguments for _, *arguments in commands]


def change_crd(release: OperatorRelease, description: str) -> None:
    """Install or upgrade by a chart whose CRD has another description of a field."""
    shutil.copytree(CHART, release.chart, dirs_exist_ok=True)
    crd = release.chart / "templates" / "crd.yaml"
    text = crd.read_text()
    assert "Pods of the newest template." in text
    crd.write_text(text.replace("Pods of the newest template.", description))
    release.install()


def unpack_chart(commit: str, folder: Path) -> Path:
    """Write the chart of a commit into a folder and return where it is."""
    packed = folder / "chart.tar"
    inside = "charts/wsgiapp-operator"
    command = ["git", "-C", ROOT, "archive", f"--output={packed}", commit, inside]
    subprocess.run(command, check=True)
    subprocess.run(["tar", "-x", "-C", folder, "-f", packed], check=True)
    return folder / inside
