"""Prometheus finds the pods by itself and counts each request exactly once."""

from __future__ import annotations

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
    assert report.sent > 400
    answered = report.sent - report.failed  # a POST in the killed worker's hands may be lost

    def ask(query: str) -> float:
        found = cluster.prometheus_query(query)
        if not found:
            raise NotYetError(f"nothing for {query}")
        return float(found[0]["value"][1])

    posts = f'sum(wsgi_http_requests_total{{namespace="{namespace}",method="POST",code="200"}})'
    wait_until(
        lambda: answered <= ask(posts) <= report.sent,
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
