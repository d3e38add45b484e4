"""Prometheus finds the pods by itself and counts each request exactly once."""

from __future__ import annotations

from typing import Any

from tests.cluster import Cluster
from tests.e2e.conftest import AppMaker
from tests.support.background_load import BackgroundLoad
from tests.support.wait import NotYetError, wait_until


def test_prometheus_counts_every_request_over_a_reload_of_workers(
    steady: AppMaker, cluster: Cluster, namespace: str
) -> None:
    app = steady()
    # POST only: probes and health checks are GETs, so the counts must be equal, not just close.
    plan = app.load_plan(rate=100.0, post_share=1.0, slow_share=0.0)
    with BackgroundLoad(plan) as load:
        load.run_until(3)
        app.kill_worker(app.serving_pods()[0])
        load.run_until(6)
        report = load.finish()
    assert report.sent > 200
    answered = report.sent - report.failed  # a POST in the killed worker's hands may be lost

    def ask(query: str) -> float:
        found = cluster.prometheus_query(query)
        if not found:
            raise NotYetError(f"nothing for {query}")
        return float(found[0]["value"][1])

    posts = f'sum(wsgi_http_requests_total{{namespace="{namespace}",method="POST",code="200"}})'
    # The killed worker may have answered on both its threads, and counted neither.
    wait_until(
        lambda: answered - 2 <= ask(posts) <= report.sent,
        within_s=60,
        what=f"{answered} to {report.sent} POSTs counted by Prometheus",
        every_s=1,
    )
    workers = f'sum(wsgi_workers_desired{{namespace="{namespace}"}})'
    assert ask(workers) == 4
    exits = f'sum(wsgi_worker_exits_total{{namespace="{namespace}",reason="crash"}})'
    exits_killed = f'sum(wsgi_worker_exits_total{{namespace="{namespace}"}})'
    assert ask(exits_killed) >= 1
    assert ask(exits) <= 1


def test_prometheus_shows_probes_contents_threads_and_conditions(
    steady: AppMaker, cluster: Cluster, namespace: str
) -> None:
    steady()
    of_pods, of_app = f'{{namespace="{namespace}"}}', f'{{wsgiapp_namespace="{namespace}"}}'

    def ask(query: str) -> list[dict[str, Any]]:
        return cluster.prometheus_query(query)

    def values(query: str) -> list[float]:
        return [float(found["value"][1]) for found in ask(query)]

    wait_until(
        lambda: (
            values(f"wsgi_ready{of_pods}") == [1, 1]
            and min(values(f"wsgi_probe_requests_total{of_pods}")) > 1
        ),
        within_s=60,
        what="two ready pods whose probes are counted",
        every_s=1,
    )
    assert ask(f"wsgi_http_requests_total{of_pods}") == [], "nobody but the agents asked"
    versions = ask(f"count by (content, digest) (wsgi_content_info{of_pods})")
    assert [found["value"][1] for found in versions if found["metric"]["content"] == "source"] == [
        "2"
    ]
    assert values(f"sum(wsgi_threads{of_pods}) / sum(wsgi_workers_desired{of_pods})") >= [1]
    assert sum(values(f"wsgi_not_ready{of_pods}")) == 0
    wait_until(
        lambda: values(f"wsgiapp_ready{of_app}") == [1],
        within_s=60,
        what="the operator's metrics of the app",
        every_s=1,
    )
    [ready] = ask(f'wsgiapp_status_condition{{type="Ready",{of_app[1:]}')
    assert ready["metric"]["status"] == "True"
    assert not [name for name in ready["metric"] if name.startswith("exported_")]
