"""The port that Prometheus and the kubelet ask."""

import contextlib
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from wsgiapp_operator.metrics import CONNECTIONS_MAX, Heartbeat, Metrics, start_server

from tests.support.wait import wait_until


@pytest.fixture
def served() -> Iterator[tuple[str, Metrics, Heartbeat]]:
    metrics, heartbeat = Metrics(), Heartbeat()
    server = start_server("127.0.0.1:0", metrics, heartbeat)
    yield f"http://127.0.0.1:{server.server_port}", metrics, heartbeat
    server.shutdown()
    server.server_close()


def test_figures_of_an_app_come_and_go_with_it(served: tuple[str, Metrics, Heartbeat]) -> None:
    base, metrics, _ = served

    def read() -> str:
        with urllib.request.urlopen(f"{base}/metrics") as answer:
            return str(answer.read().decode())

    ready = {"type": "Ready", "status": "True", "reason": "Serving", "message": "2 of 2 pods"}
    metrics.record_app("web", "shop", "shop:1", [ready])
    assert 'wsgiapp_ready{wsgiapp="shop",wsgiapp_namespace="web"} 1.0' in read()
    metrics.record_app(
        "web", "shop", "shop:2", [{**ready, "status": "False", "reason": "ReloadFailed"}]
    )
    shown = read()
    assert 'wsgiapp_info{image="shop:2",wsgiapp="shop",wsgiapp_namespace="web"} 1.0' in shown
    assert "shop:1" not in shown
    assert 'wsgiapp_ready{wsgiapp="shop",wsgiapp_namespace="web"} 0.0' in shown
    condition = (
        'reason="ReloadFailed",status="False",type="Ready",wsgiapp="shop",wsgiapp_namespace="web"'
    )
    assert f"wsgiapp_status_condition{{{condition}}} 1.0" in shown
    assert 'status="True"' not in shown
    metrics.drop_app("web", "shop")
    assert "shop" not in read()


def test_health_is_bad_when_the_loop_stands_still(
    served: tuple[str, Metrics, Heartbeat], monkeypatch: pytest.MonkeyPatch
) -> None:
    base, _, _ = served
    with urllib.request.urlopen(f"{base}/healthz") as answer:
        assert answer.status == 200
    monkeypatch.setattr(Heartbeat, "age_s", 31.0)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{base}/healthz")
    assert refused.value.code == 503
    assert b"stands still for 31 s" in refused.value.read()
    refused.value.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_health_is_answered_over_both_families(host: str) -> None:
    """In a cluster whose pods have IPv6 addresses, and by `kubectl port-forward` over IPv4."""
    server = start_server("[::]:0", Metrics(), Heartbeat())
    with urllib.request.urlopen(f"http://{host}:{server.server_port}/healthz") as answer:
        assert answer.status == 200
    server.shutdown()
    server.server_close()


def test_health_is_answered_among_many_idle_connections(
    served: tuple[str, Metrics, Heartbeat],
) -> None:
    """The port can be reached from the whole cluster; a thread for each connection took the operator's memory."""
    base, _, _ = served
    port = int(base.rpartition(":")[2])
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        for n in range(500):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(b"GET /healthz HTTP/1.1\r\n"[: n % 20])
        with urllib.request.urlopen(f"{base}/healthz", timeout=60) as answer:
            assert answer.status == 200
        wait_until(
            lambda: threading.active_count() - before <= CONNECTIONS_MAX,
            what="threads of closed connections ended",
        )


def test_operator_is_ready_when_it_has_seen_everything_or_stands_by(
    served: tuple[str, Metrics, Heartbeat],
) -> None:
    base, _, heartbeat = served
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{base}/readyz")
    assert b"waits for the Lease" in refused.value.read()
    refused.value.close()
    heartbeat.set_ready()
    with urllib.request.urlopen(f"{base}/readyz") as answer:
        assert answer.status == 200


def test_other_paths_name_those_that_are_there(served: tuple[str, Metrics, Heartbeat]) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{served[0]}/")
    assert refused.value.code == 404
    assert b"/metrics" in refused.value.read()
    refused.value.close()
