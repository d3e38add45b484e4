"""Bad input is told clearly where a user looks, and harms nothing that runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.support.kube import Kube
from tests.support.wait import NotYetError, wait_until
from tests.support.wsgi_app import Condition, WsgiApp


def _wait_told(app: WsgiApp, *words: str, within_s: float = 60) -> Condition:
    """Wait until Ready is False and its message has all the words."""

    def told() -> Condition:
        found = app.condition("Ready")
        if found.status == "False" and all(word in found.message for word in words):
            return found
        raise NotYetError(str(found))

    return wait_until(told, within_s=within_s, what=f"Ready=False with {words}", every_s=0.3)


def test_wrong_callable_is_told_and_the_old_pods_serve_on(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1")
    pods = app.serving_pods()
    with under_load(app, "wrong `app` in the spec, then the right one", post_reuse=False) as load:
        kube.patch("wsgiapp", app.name, {"spec": {"app": "main:nope"}}, namespace=namespace)
        _wait_told(app, "nope")
        assert set(pods) <= set(app.serving_pods())
        change = {"spec": {"app": "main:application"}}
        kube.patch("wsgiapp", app.name, change, namespace=namespace)
        app.wait_condition("Ready", "True", within_s=60)
        report = load.finish(in_place=False, least_s=8)
    assert set(report.versions) == {"1"}
    assert set(pods) <= set(app.serving_pods())


@pytest.mark.parametrize(
    ("release", "words"),
    [
        ("import flsk\n", ("ModuleNotFoundError", "flsk")),
        ("VERSION = = 1\n", ("SyntaxError",)),
        ("VERSION = open('/etc/nothing-here').read()\n", ("FileNotFoundError", "nothing-here")),
    ],
)
def test_app_that_does_not_import_is_told_with_the_last_line(
    view: Callable[[str], WsgiApp], kube: Kube, namespace: str, release: str, words: tuple[str, ...]
) -> None:
    objects = steady_app.build_code(release), steady_app.build_app(namespace, replicas=1)
    kube.apply(*objects, namespace=namespace)
    _wait_told(view(steady_app.NAME), *words)


def test_missing_configmap_is_told_by_name_and_mended_by_its_creation(
    view: Callable[[str], WsgiApp], kube: Kube, namespace: str
) -> None:
    kube.apply(steady_app.build_app(namespace, replicas=1), namespace=namespace)
    app = view(steady_app.NAME)
    _wait_told(app, "steady-code", within_s=30)
    code = steady_app.build_code(steady_app.build_release("1"))
    kube.apply(code, namespace=namespace)
    app.wait_condition("Ready", "True", within_s=150)


def test_configmap_deleted_under_a_running_app_harms_nothing(
    steady: AppMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", replicas=1)
    pods = app.serving_pods()
    kube.kubectl("delete", "configmap", "steady-code", "-n", namespace)

    def told() -> Any:
        found = [app.condition(kind) for kind in ("Ready", "Reloaded")]
        if any("steady-code" in condition.message for condition in found):
            return found
        raise NotYetError(str(found))

    wait_until(told, within_s=30, what="the missing ConfigMap in a condition")
    assert app.serving_pods() == pods
    code = steady_app.build_code(steady_app.build_release("1"))
    kube.apply(code, namespace=namespace)
    app.wait_condition("Ready", "True", within_s=60)
    assert app.serving_pods() == pods
