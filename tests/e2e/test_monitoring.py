"""Each way to find the pods, the ten questions, exemplars and native histograms: on a real Prometheus."""

from __future__ import annotations

import math
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from monitoring.questions import QUESTIONS
from tests.cluster import Cluster
from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker
from tests.support.background_load import BackgroundLoad
from tests.support.kube import Kube
from tests.support.monitors import scrape_config
from tests.support.operator_release import CHART, NAMESPACE, RELEASE, ROOT
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.wait import NotYetError, wait_until
from tests.support.wsgi_app import WsgiApp

pytestmark = pytest.mark.full

SERVER = {
    "workers": 2,
    "threads": 2,
    "accessLog": "None",
    "durationBucketsSeconds": [0.05, 0.3, 1],
    "exemplars": True,
}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
WITHIN_S = 90.0
ASK = """
import sys, urllib.request
for _ in range(3):
    headers = {"Host": sys.argv[1], "traceparent": f"00-{sys.argv[2]}-00f067aa0ba902b7-01"}
    urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:8000/slow?ms=400", headers=headers)).read()
"""


def render(cluster: Cluster, *values: str) -> list[dict[str, Any]]:
    """Return what the chart makes with these values."""
    sets = [part for value in values for part in ("--set", value)]
    command = [cluster.helm, "template", RELEASE, CHART, "--namespace", NAMESPACE, *sets]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [each for each in yaml.safe_load_all(done.stdout) if each]


def annotated_pods(kubeconfig: Path, namespace: str) -> dict[str, Any]:
    """Return the scrape configuration of the tests' Prometheus, which follows the pods' annotations, for a namespace:
    pods of other tests come and go."""
    objects = yaml.safe_load_all(
        (ROOT / "tests" / "cluster" / "manifests" / "prometheus.yaml").read_text()
    )
    [text] = [each["data"]["prometheus.yml"] for each in objects if each["kind"] == "ConfigMap"]
    [config] = yaml.safe_load(text)["scrape_configs"]
    discovery = {"kubeconfig_file": str(kubeconfig), "namespaces": {"names": [namespace]}}
    config["kubernetes_sd_configs"] = [{"role": "pod", **discovery}]
    return {**config, "job_name": "annotations"}


def wait_answer(prometheus: Prometheus, promql: str, namespace: str) -> list[dict[str, Any]]:
    """Wait until a query has an answer of this namespace that is a number."""

    def answer() -> list[dict[str, Any]]:
        return [
            found
            for found in prometheus.query(promql)
            if found["metric"].get("namespace") == namespace
            and ("histogram" in found or not math.isnan(float(found["value"][1])))
        ]

    return wait_until(answer, WITHIN_S, what=f"no answer to {promql}", every_s=1)


def are_up(prometheus: Prometheus) -> bool:
    """Whether every target answers; one whose scrape was late is down until the next."""
    down = [each for each in prometheus.targets() if each["health"] != "up"]
    if down:
        raise NotYetError(str(down))
    return True


def test_each_way_to_find_the_pods_finds_all_of_them(
    steady: AppMaker, cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    pods = {*steady(server=SERVER).serving_pods()}
    watched = f"watchNamespaces={{{namespace}}}"
    rendered = {
        kind: render(cluster, f"metrics.{kind}.enabled=true", watched)
        for kind in ("podMonitor", "serviceMonitor")
    }
    [service] = [
        each
        for each in rendered["serviceMonitor"]
        if each["kind"] == "Service" and each["metadata"]["namespace"] == namespace
    ]
    cluster.run_kubectl("apply", "-f", "-", stdin=yaml.safe_dump(service).encode())
    monitors = [
        each for objects in rendered.values() for each in objects if "Monitor" in each["kind"]
    ]
    scrapes = [scrape_config(each, cluster.kubeconfig) for each in monitors]
    scrapes.append(annotated_pods(cluster.kubeconfig, namespace))
    with running_prometheus(cluster.paths.bin / "prometheus", scrapes, tmp_path) as prometheus:

        def found(job: str, metric: str) -> set[str]:
            answers = prometheus.query(f'{metric}{{job="{job}"}}')
            return {
                each["metric"]["pod"]
                for each in answers
                if metric == "wsgiapp_operator_leader" or each["metric"]["namespace"] == namespace
            }

        for config in scrapes:
            job = config["job_name"]
            is_of_apps = job.endswith("-apps") or job == "annotations"
            metric = "wsgi_ready" if is_of_apps else "wsgiapp_operator_leader"
            wait_until(
                lambda job=job, metric=metric: found(job, metric),  # type: ignore[misc]
                WITHIN_S,
                what=f"{job} finds nothing",
                every_s=1,
            )
            if is_of_apps:
                wait_until(
                    lambda job=job: found(job, "wsgi_ready") == pods,  # type: ignore[misc]
                    WITHIN_S,
                    what=f"{job} does not find {pods}",
                    every_s=1,
                )
            if job.endswith("-apps"):
                named = prometheus.query(f'wsgi_ready{{job="{job}",namespace="{namespace}"}}')
                assert {each["metric"]["wsgiapp"] for each in named} == {steady_app.NAME}
        wait_until(lambda: are_up(prometheus), WITHIN_S, what="every target up", every_s=1)


def test_questions_exemplars_and_native_histograms_are_answered(
    steady: AppMaker, cluster: Cluster, kube: Kube, namespace: str, tmp_path: Path
) -> None:
    app = steady(server=SERVER)
    began = time.time()
    with running_with_exemplars(cluster, namespace, tmp_path) as (classic, native):
        for prometheus in (classic, native):
            wait_answer(prometheus, "wsgi_ready", namespace)
        make_something_happen(app, kube)
        for question in QUESTIONS:
            wait_answer(classic, question.query, namespace)
        series = "wsgi_http_response_time_seconds"
        of_native = f"sum by (namespace, wsgiapp) (rate({series}[5m]))"
        # The classic series are kept.
        for quantile in (f"histogram_quantile(0.95, {of_native})", QUESTIONS[1].query):
            [answer] = wait_answer(native, quantile, namespace)
            assert 0 < float(answer["value"][1]) <= 1
        assert classic.query(of_native) == []
        check_exemplars(classic, f'{series}_bucket{{le="1.0"}}', began)
        check_exemplars(native, series, began)


@contextmanager
def running_with_exemplars(
    cluster: Cluster, namespace: str, folder: Path
) -> Iterator[tuple[Prometheus, Prometheus]]:
    """Run one Prometheus without and one with native histograms, on the chart's PodMonitor of the apps."""
    with ExitStack() as running:
        started = []
        for native in ("false", "true"):
            objects = render(
                cluster,
                "metrics.podMonitor.enabled=true",
                f"metrics.podMonitor.nativeHistograms={native}",
                f"watchNamespaces={{{namespace}}}",
            )
            [monitor] = [
                each
                for each in objects
                if each["kind"] == "PodMonitor" and each["metadata"]["name"].endswith("-apps")
            ]
            server = running_prometheus(
                cluster.paths.bin / "prometheus",
                [scrape_config(monitor, cluster.kubeconfig)],
                folder / native,
                "--enable-feature=exemplar-storage",
            )
            started.append(running.enter_context(server))
        yield started[0], started[1]


def make_something_happen(app: WsgiApp, kube: Kube) -> None:
    """Load, a reload, one that fails, a killed worker, a request that fails, slow ones with a trace."""
    with BackgroundLoad(app.load_plan(rate=60.0, slow_share=0.2, slow_ms=100)) as load:
        load.run_until(4)
        app.kill_worker(app.serving_pods()[0])
        before = app.reload_hash()
        broken = steady_app.build_code("import not_there\n")
        kube.apply(broken, namespace=app.namespace)
        app.wait_reload(after=before, status="False", within_s=60)
        load.run_until(load.elapsed_s + 3)
    for pod in app.serving_pods():
        arguments = ("-n", app.namespace, "-c", "app", "--", "python3")
        kube.kubectl("exec", pod, *arguments, "-c", ASK, app.host, TRACE)
        broken_request = "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/slow')"
        with pytest.raises(Exception, match="500"):
            kube.kubectl("exec", pod, *arguments, "-c", broken_request)


def check_exemplars(prometheus: Prometheus, series: str, began: float) -> None:
    """The slow requests' trace is there, with their duration and time."""

    def traced() -> list[dict[str, Any]]:
        found = prometheus.exemplars(series, start=began, end=time.time() + 5)
        exemplars = [exemplar for each in found for exemplar in each["exemplars"]]
        if not exemplars:
            raise NotYetError(f"{found}")
        return exemplars

    for exemplar in wait_until(traced, WITHIN_S, what=f"no exemplars of {series}", every_s=1):
        assert exemplar["labels"] == {"trace_id": TRACE}
        assert 0.4 <= float(exemplar["value"]) < 1
        assert began < exemplar["timestamp"] < time.time()
