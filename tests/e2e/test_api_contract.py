"""The API server answers as the unit tests' fake does (tests/unit/operator/test_fake_cluster.py)."""

from __future__ import annotations

import pytest
from wsgiapp_operator.client import Cluster as ApiServer

from tests.cluster import Cluster
from tests.support.api_contract import CHECKS, Check


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_api_server_answers_as_the_fake(
    check: Check, cluster: Cluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    server = await ApiServer.connect()
    try:
        await check(server, namespace)
    finally:
        await server.close()
