"""What a WsgiApp becomes is kept as declared, shown by kubectl, and goes when it goes."""

from __future__ import annotations

import pytest

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker
from tests.support.kube import Kube, NotFoundError
from tests.support.wait import NotYetError, wait_until


def test_changed_and_deleted_children_are_put_back(
    steady: AppMaker, kube: Kube, namespace: str
) -> None:
    app = steady(replicas=1)
    children = {
        kind: {item["metadata"]["name"] for item in kube.list(kind, namespace=namespace)}
        for kind in ("deployments", "services", "ingresses", "poddisruptionbudgets")
    }
    assert all(app.name in names for names in children.values()), children

    kube.kubectl("delete", "service,ingress,pdb", app.name, "-n", namespace)
    change = {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": 11}}}}
    wanted = _grace_s(kube, namespace)
    kube.patch("deployment", app.name, change, namespace=namespace)

    def all_back() -> bool:
        for kind in ("services", "ingresses", "poddisruptionbudgets"):
            kube.get(kind, app.name, namespace=namespace)
        return True

    wait_until(all_back, within_s=30, what="the children to be back")
    wait_until(
        lambda: _grace_s(kube, namespace) == wanted, within_s=30, what="the Deployment mended"
    )


def _grace_s(kube: Kube, namespace: str) -> int:
    deployment = kube.get("deployments", steady_app.NAME, namespace=namespace)
    return int(deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])


def test_field_taken_out_of_the_spec_takes_its_child_with_it(
    steady: AppMaker, kube: Kube, namespace: str
) -> None:
    app = steady(replicas=1)
    kube.patch("wsgiapp", app.name, {"spec": {"ingress": None}}, namespace=namespace)

    def is_gone() -> bool:
        try:
            kube.get("ingresses", app.name, namespace=namespace)
        except NotFoundError:
            return True
        return False

    wait_until(is_gone, within_s=30, what="the Ingress to be pruned")

    kube.kubectl("delete", "wsgi", app.name, "-n", namespace)
    wait_until(
        lambda: (
            not kube.list("services", namespace=namespace)
            and not kube.list("deployments", namespace=namespace)
        ),
        within_s=60,
        what="the children to go with their app",
    )


def test_kubectl_get_wsgi_shows_the_state(steady: AppMaker, kube: Kube, namespace: str) -> None:
    app = steady(replicas=1)

    def shown() -> list[str]:
        head, line = kube.kubectl("get", "wsgi", "-n", namespace).splitlines()
        assert head.split() == ["NAME", "READY", "REASON", "REPLICAS", "WORKERS", "URL", "AGE"]
        match line.split():
            case [app.name, "True", reason, "1", "2", url, _]:
                return [reason, url]
        # The workers' number is the agent's, which is asked now and then.
        raise NotYetError(line)

    reason, url = wait_until(shown, within_s=60, what="an app that is ready with its workers")
    assert reason.isalpha()
    assert url == f"http://{app.host}/"
    status = app.status()
    assert status["observedGeneration"] == app.get()["metadata"]["generation"]
    assert {c["type"] for c in status["conditions"]} >= {
        "Ready",
        "Available",
        "Progressing",
        "Reloaded",
    }


@pytest.mark.parametrize("name", ["flask", "django"])
def test_every_good_example_becomes_ready(
    name: str, kube: Kube, namespace: str, request: pytest.FixtureRequest
) -> None:
    kube.kubectl("apply", "-n", namespace, "-f", f"manifests/examples/{name}.yaml")
    app = request.getfixturevalue("view")(name)
    app.wait_condition("Ready", "True", within_s=90)
