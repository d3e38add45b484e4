"""After a change that does not work, every pod that starts serves the last good content of its revision."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.support.kube import Kube, KubectlError
from tests.support.operator_release import OperatorRelease
from tests.support.wait import NotYetError, wait_until
from tests.support.wsgi_app import WsgiApp

BROKEN = "VERSION = '2'\nimport not_there\n"
POSTS_APART = {"post_reuse": False}  # see test_rollout.py


def wait_kept(app: WsgiApp) -> None:
    """Wait until what is declared is last good."""

    def is_kept() -> bool:
        (source,) = app.status().get("contents", ({},))
        if source.get("lastGood") is None or source["lastGood"] != source["declared"]:
            raise NotYetError(str(source))
        return True

    wait_until(is_kept, within_s=60, what="the content is last good")


def break_code(app: WsgiApp, kube: Kube) -> None:
    """Bring code that does not import, with other files; wait until a pod has failed with it."""
    wait_kept(app)
    before = app.reload_hash()
    kube.apply(steady_app.build_code(BROKEN, own="2"), namespace=app.namespace)
    app.wait_reload(after=before, status="False", within_s=60)


def wait_all_serve(app: WsgiApp, own: str, count: int, *, within_s: float = 90) -> None:
    """Wait until so many pods, and no others, are ready and serve files of that version."""

    def is_served() -> bool:
        pods = app.wait_serving_pods(count, within_s=within_s)
        seen = {pod: app.fetch(pod, "/own")[1] for pod in pods}
        if set(seen.values()) != {f"late {own}, page {own}, page {own}"}:
            raise NotYetError(str(seen))
        return True

    wait_until(is_served, within_s=within_s, what=f"version {own} from {count} pods")


def is_last_good_told(app: WsgiApp, count: int) -> bool:
    """Whether the status says that so many pods, and no others, serve the last good content after a failed reload."""
    (source,) = app.status()["contents"]
    assert source["lastGood"] != source["declared"]
    reason = app.condition("Reloaded").reason
    if source["serving"] != [{"digest": source["lastGood"], "pods": count}]:
        raise NotYetError(f"{source}, {reason}")
    return reason == "ReloadFailed"


def mend_code(app: WsgiApp, kube: Kube, count: int, *, within_s: float = 120) -> None:
    before = app.reload_hash()
    good = steady_app.build_code(steady_app.build_release("3"), own="3")
    kube.apply(good, namespace=app.namespace)
    app.wait_reload(after=before, status="True", within_s=within_s)
    wait_all_serve(app, "3", count)


def test_pod_that_is_deleted_after_a_failed_reload_comes_back_with_the_last_good_code(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", replicas=2)
    with under_load(app, "failed reload, then each pod deleted in turn", **POSTS_APART) as load:
        break_code(app, kube)
        for pod in app.serving_pods():
            kube.kubectl("delete", "pod", pod, "-n", namespace)
            wait_all_serve(app, "1", 2)
        wait_until(lambda: is_last_good_told(app, 2), within_s=60, what="the status to say so")
        mend_code(app, kube, 2)
        report = load.finish(in_place=False)
    assert set(report.versions) == {"1", "3"}
    wait_kept(app)


@pytest.mark.full
def test_scale_up_eviction_and_restarts_after_a_failed_reload(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", replicas=2)
    case = "failed reload, then scaled up, evicted, restarted"
    with under_load(app, case, **POSTS_APART) as load:
        break_code(app, kube)
        kube.kubectl("scale", "wsgi", app.name, "--replicas=4", "-n", namespace)
        wait_all_serve(app, "1", 4)
        evicted = app.serving_pods()[0]
        wait_until(lambda: evict(kube, namespace, evicted), within_s=30, what="an eviction")
        wait_until(lambda: evicted not in app.serving_pods(), within_s=60, what="evicted")
        wait_all_serve(app, "1", 4)
        load.finish(in_place=False)
    app.restart_containers(*app.serving_pods())
    wait_all_serve(app, "1", 4, within_s=120)


def evict(kube: Kube, namespace: str, pod: str) -> bool:
    """Do what a node drain does to a pod; NotYetError while the budget, which counts late, allows none."""
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": namespace},
    }
    path = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
    try:
        kube.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    except KubectlError as error:
        if "disruption budget" not in str(error):
            raise
        raise NotYetError(str(error)) from error
    return True


@pytest.mark.full
def test_new_image_together_with_new_code_boots_that_code(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", replicas=2)
    wait_kept(app)
    with under_load(app, "new image together with new code", **POSTS_APART) as load:
        code = steady_app.build_code(steady_app.build_release("3"), own="3")
        spec = steady_app.build_app(namespace, image=steady_app.FLASK_IMAGE, replicas=2)
        kube.apply(spec, code, namespace=namespace)
        wait_all_serve(app, "3", 2, within_s=150)
        report = load.finish(in_place=False)
    assert "3/flask-image" in report.versions
    wait_kept(app)


@pytest.mark.full
def test_new_image_after_broken_code_stops_at_its_first_pod_and_old_pods_keep_their_pair(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", replicas=2)
    with under_load(app, "new image after broken code, then a fix", **POSTS_APART) as load:
        break_code(app, kube)
        change = {"spec": {"image": steady_app.FLASK_IMAGE}}
        kube.patch("wsgiapp", app.name, change, namespace=namespace)
        wait_until(lambda: len(app.pods()) == 3, within_s=60, what="the rollout's first pod")
        old = app.serving_pods()
        assert len(old) == 2
        kube.kubectl("delete", "pod", old[0], "-n", namespace)
        wait_until(lambda: len(app.serving_pods()) == 2, within_s=90, what="two that serve")
        for pod in app.serving_pods():
            assert app.fetch(pod, "/own")[1].startswith("late 1")
        code = steady_app.build_code(steady_app.build_release("3"), own="3")
        kube.apply(code, namespace=namespace)
        wait_all_serve(app, "3", 2, within_s=240)
        report = load.finish(in_place=False)
    assert not any(version.startswith("2") for version in report.versions)
    assert "3/flask-image" in report.versions


@pytest.fixture
def upgraded(operator: OperatorRelease) -> Iterator[OperatorRelease]:
    """The operator, put back as it was at the end."""
    yield operator
    operator.install()


@pytest.mark.full
def test_operator_upgrade_after_broken_code_rolls_pods_with_the_last_good_code(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, upgraded: OperatorRelease
) -> None:
    app = steady(version="1", replicas=2)
    old = app.serving_pods()
    with under_load(app, "operator upgrade after broken code", **POSTS_APART) as load:
        break_code(app, kube)
        upgraded.install("prefork.image.pullPolicy=Never")  # changes the template of every pod
        wait_until(
            lambda: not set(app.serving_pods()) & set(old), within_s=240, what="all pods replaced"
        )
        wait_all_serve(app, "1", 2)
        report = load.finish(in_place=False)
    assert set(report.versions) == {"1"}
    app.wait_condition("Reloaded", "False", within_s=30, reason="ReloadFailed")
    mend_code(app, kube, 2)


@pytest.mark.alone
@pytest.mark.full
def test_pods_start_with_the_last_good_code_without_an_operator(
    steady: AppMaker, kube: Kube, namespace: str, upgraded: OperatorRelease
) -> None:
    app = steady(version="1", replicas=2)
    break_code(app, kube)
    upgraded.uninstall()
    for pod in app.serving_pods():
        kube.kubectl("delete", "pod", pod, "-n", namespace)
        wait_all_serve(app, "1", 2)
