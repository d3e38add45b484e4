"""A ConfigMap that is deleted, as GitOps tools prune one that has a successor, costs no pod its start."""

from __future__ import annotations

import pytest

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.e2e.test_last_good import POSTS_APART, wait_all_serve, wait_kept
from tests.support.kube import Kube


@pytest.mark.full
def test_pods_start_and_restart_while_their_code_is_deleted(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", replicas=2)
    wait_kept(app)
    with under_load(app, "code deleted, then pods restarted and deleted", **POSTS_APART) as load:
        kube.kubectl("delete", "configmap", f"{app.name}-code", "-n", namespace)
        app.wait_condition("Reloaded", "Unknown", within_s=30)
        first, second = app.serving_pods()
        kube.kubectl("delete", "pod", first, "-n", namespace)
        wait_all_serve(app, "1", 2)
        load.finish(in_place=False)
    app.restart_containers(second)
    wait_all_serve(app, "1", 2, within_s=120)
    before = app.reload_hash()
    code = steady_app.build_code(steady_app.build_release("2"), own="2")
    kube.apply(code, namespace=namespace)
    app.wait_reload(after=before, status="True", within_s=60)
    wait_all_serve(app, "2", 2)
