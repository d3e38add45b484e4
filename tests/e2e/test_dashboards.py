"""Every query of the dashboards returns data on the real Prometheus, of a time in which something happened."""

from __future__ import annotations

import time

import pytest

from tests.cluster import Cluster
from tests.dashboards import recording, scenario
from tests.dashboards.pictures import DATA
from tests.support.kube import Kube

SETTLE_S = 6  # two scrapes, and the agent's own reading


@pytest.mark.full
@pytest.mark.alone
def test_every_query_of_the_dashboards_returns_data(
    cluster: Cluster, kube: Kube, namespace: str
) -> None:
    span = scenario.play(kube, namespace, cluster.ingress_url, say=print)
    time.sleep(SETTLE_S)
    recorded = recording.record(cluster, span, namespace=namespace, app=scenario.SHOP)
    recording.save(recorded, DATA)
    empty = [answer for answer in recording.answers(recorded) if not answer.has_numbers]
    assert [(each.board, each.panel, each.query) for each in empty] == []
    flat = [answer.query for answer in recording.answers(recorded) if not answer.rises]
    for metric in ("wsgi_request_timeouts_total", "wsgi_http_disconnects_total"):
        assert not [query for query in flat if metric in query], f"{metric} stands still"
