"""Pods are replaced, added, removed and deleted without a failed request."""

from __future__ import annotations

import pytest

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.support.kube import Kube
from tests.support.wait import wait_until

# The ingress reloads nginx on each change of endpoints, and a reloading nginx closes idle client
# connections. A GET then gets the one retry that every browser gives it, counted in the figures;
# for a POST there is no such rule, so here each has a connection of its own.
POSTS_APART = {"post_reuse": False}


def test_image_change(steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str) -> None:
    app = steady(version="1", image=steady_app.PLAIN_IMAGE)
    old = set(app.serving_pods())
    with under_load(app, "image change (rolling update)", **POSTS_APART) as load:
        change = {"spec": {"image": steady_app.FLASK_IMAGE}}
        kube.patch("wsgiapp", app.name, change, namespace=namespace)
        app.wait_condition("Ready", "True", within_s=120)
        new = set(app.wait_serving_pods(2, within_s=60))
        report = load.finish(in_place=False)
    assert not old & new
    assert list(report.versions) == ["1", "1/flask-image"]


def test_scale_2_4_2(steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str) -> None:
    app = steady(replicas=2)
    first = set(app.serving_pods())
    with under_load(app, "scale 2 -> 4 -> 2", **POSTS_APART) as load:
        kube.kubectl("scale", "wsgi", app.name, "--replicas=4", "-n", namespace)
        assert first < set(app.wait_serving_pods(4, within_s=60))
        load.run_on(3)  # all four serve under load
        kube.kubectl("scale", "wsgi", app.name, "--replicas=2", "-n", namespace)
        app.wait_serving_pods(2, within_s=60)
        load.finish(in_place=False)
    wait_until(lambda: app.status()["readyReplicas"] == 2, what="2 ready replicas in the status")


def test_pod_delete(steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str) -> None:
    app = steady()
    gone, stays = app.serving_pods()
    with under_load(app, "pod delete", **POSTS_APART) as load:
        kube.kubectl("delete", "pod", gone, "-n", namespace, "--wait=false")
        pods = app.wait_serving_pods(2, within_s=60)
        load.finish(in_place=False)
    assert stays in pods
    assert gone not in pods


@pytest.mark.full
def test_changed_code_reaches_what_serves_while_a_rollout_is_stuck(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    deadline = {"minReadySeconds": 2, "progressDeadlineSeconds": 15}
    health = {"path": "/healthz", "startupTimeoutSeconds": 10}
    app = steady(version="1", rollout=deadline, healthCheck=health)
    pods = app.serving_pods()
    with under_load(app, "rollout stuck at a bad image, then new code", **POSTS_APART) as load:
        bad = {"spec": {"image": "wsgiapp/not-there:1"}}
        kube.patch("wsgiapp", app.name, bad, namespace=namespace)
        app.wait_condition("Progressing", "False", within_s=90, reason="ProgressDeadlineExceeded")
        kube.apply(steady_app.build_code(steady_app.build_release("2")), namespace=namespace)

        def all_serve_it() -> bool:
            seen = {pod: app.fetch(pod, "/version")[1] for pod in app.serving_pods()}
            return seen == dict.fromkeys(pods, "2")

        wait_until(all_serve_it, within_s=60, what="the new code in the pods that serve")
        good = {"spec": {"image": steady_app.PLAIN_IMAGE}}
        kube.patch("wsgiapp", app.name, good, namespace=namespace)
        app.wait_condition("Ready", "True", within_s=90)
        report = load.finish(in_place=False)
    assert list(report.versions) == ["1", "2"]
    assert app.wait_serving_pods(2, within_s=60) == pods, "the old pods were never replaced"


@pytest.mark.full
def test_rollout_that_is_undone_by_hand_is_put_back(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1")
    change = {"spec": {"image": steady_app.FLASK_IMAGE}}
    kube.patch("wsgiapp", app.name, change, namespace=namespace)
    app.wait_condition("Ready", "True", within_s=120)
    app.wait_serving_pods(2, within_s=60)

    def image() -> str:
        template = kube.get("deployments", app.name, namespace=namespace)["spec"]["template"]
        (main,) = (c for c in template["spec"]["containers"] if c["name"] == "app")
        return str(main["image"])

    with under_load(app, "kubectl rollout undo", **POSTS_APART) as load:
        kube.kubectl("rollout", "undo", f"deployment/{app.name}", "-n", namespace)
        wait_until(
            lambda: image() == steady_app.FLASK_IMAGE, within_s=30, what="the image as declared"
        )
        app.wait_condition("Ready", "True", within_s=120)
        pods = app.wait_serving_pods(2, within_s=60)
        assert {app.fetch(pod, "/version")[1] for pod in pods} == {"1/flask-image"}
        load.finish(in_place=False)


@pytest.mark.full
def test_rollout_for_which_a_quota_has_no_room_says_so_and_goes_on_within_it(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", replicas=2)
    old = set(app.serving_pods())
    kube.patch("resourcequota", "bounds", {"spec": {"hard": {"pods": "2"}}}, namespace=namespace)
    with under_load(app, "rollout in a full quota", **POSTS_APART) as load:
        change = {"spec": {"image": steady_app.FLASK_IMAGE}}
        kube.patch("wsgiapp", app.name, change, namespace=namespace)
        told = app.wait_condition("Ready", "False", within_s=60, reason="FailedCreate").message
        assert "exceeded quota: bounds" in told
        assert "spec.rollout.maxSurge: 0, maxUnavailable: 1" in told
        assert set(app.serving_pods()) == old
        within = {"spec": {"rollout": {"maxSurge": 0, "maxUnavailable": 1}}}
        kube.patch("wsgiapp", app.name, within, namespace=namespace)
        app.wait_condition("Ready", "True", within_s=180)
        new = set(app.wait_serving_pods(2, within_s=60))
        report = load.finish(in_place=False)
    assert not old & new
    assert list(report.versions) == ["1", "1/flask-image"]
