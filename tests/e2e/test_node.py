"""What befalls a node costs no request: its processes restarted one by one, its pods drained."""

from __future__ import annotations

import pytest

from tests.cluster import Cluster, local
from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.e2e.hung import needs_local_cluster
from tests.support.kube import Kube, KubectlError
from tests.support.wait import NotYetError, wait_until
from tests.support.wsgi_app import WsgiApp

pytestmark = [needs_local_cluster, pytest.mark.full, pytest.mark.alone]
REPLICAS = 3
# As long as a kubelet needs to ask every probe anew, and to look once at everything.
LOOKED_AT_S = 20


def wait_version(app: WsgiApp, version: str, count: int) -> None:
    """Wait until so many pods serve, and all of them that version."""

    def all_serve_it() -> bool:
        seen = {pod: app.fetch(pod, "/version")[1] for pod in app.serving_pods()}
        if len(seen) != count or set(seen.values()) != {version}:
            raise NotYetError(str(seen))
        return True

    wait_until(all_serve_it, within_s=90, what=f"version {version} from {count} pods")


PROCESSES = (
    "kubelet",
    "containerd",
    "kube-proxy",
    "kube-controller-manager",
    "kube-scheduler",
    "etcd",
)


@pytest.mark.parametrize("name", PROCESSES)
def test_process_of_the_node_is_restarted(
    name: str, steady: AppMaker, under_load: LoadMaker, kube: Kube, cluster: Cluster
) -> None:
    app = steady(version="1")
    pods = app.serving_pods()
    with under_load(app, f"{name} restarted", post_reuse=False) as load:
        local.restart(name, cluster.paths)
        wait_until(kube.is_ready, within_s=60, what="the API server")
        load.run_on(LOOKED_AT_S)
        wait_until(lambda: app.serving_pods() == pods, within_s=60, what="the same pods to serve")
        before = app.reload_hash()
        kube.apply(steady_app.build_code(steady_app.build_release("2")), namespace=app.namespace)
        app.wait_reload(after=before, status="True", within_s=60)
        app.wait_condition("Ready", "True", within_s=60)
        report = load.finish(in_place=False)
    assert list(report.versions) == ["1", "2"]
    assert app.serving_pods() == pods
    assert [app.restarts(pod, each) for pod in pods for each in ("app", "agent")] == [0] * 4


def test_drain_goes_as_far_as_the_disruption_budget_and_what_serves_goes_on(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    """The only node: what is evicted finds no other, so of three pods one may go, and no more."""
    mark = {"metadata": {"labels": {"example.com/drained": namespace}}}
    app = steady(version="1", replicas=REPLICAS, podTemplate=mark)
    node = app.pods()[0]["spec"]["nodeName"]
    selected = f"--pod-selector=example.com/drained={namespace}"
    with under_load(app, "node drained, then uncordoned", post_reuse=False) as load:
        try:
            with pytest.raises(KubectlError, match="disruption budget"):
                kube.kubectl("drain", node, selected, "--delete-emptydir-data", "--timeout=30s")
            assert len(app.serving_pods()) == REPLICAS - 1
            told = app.wait_condition("Ready", "False", within_s=30, reason="Unschedulable")
            assert "unschedulable" in told.message
            kube.apply(steady_app.build_code(steady_app.build_release("2")), namespace=namespace)
            wait_version(app, "2", REPLICAS - 1)
        finally:
            kube.kubectl("uncordon", node)
        wait_version(app, "2", REPLICAS)
        app.wait_condition("Ready", "True", within_s=60)
        report = load.finish(in_place=False)
    assert list(report.versions) == ["1", "2"]
