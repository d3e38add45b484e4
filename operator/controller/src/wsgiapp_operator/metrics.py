"""The operator's own figures, and the port on which they and its health are read."""

import contextlib
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    make_wsgi_app,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

logger = logging.getLogger(__name__)

STANDSTILL_S = 30.0
CONNECTIONS_MAX = 64
TIMEOUT_S = 5.0  # that a client may let pass between two parts of its request
StartResponse = Callable[..., Any]


APP_LABELS = ("wsgiapp_namespace", "wsgiapp")


@dataclass(frozen=True, slots=True)
class AppFigures:
    """What is shown of one app: its image, and (type, status, reason) of its conditions."""

    image: str
    conditions: tuple[tuple[str, str, str], ...]

    @property
    def is_ready(self) -> bool:
        return any(kind == "Ready" and status == "True" for kind, status, _ in self.conditions)


class Apps(Collector):
    """One info, one readiness and a few conditions of each app.

    Made at each scrape: objects that live on would cost more memory than all the rest of what is known of an app.
    The labels are not `namespace` and `name`: a target has those, and Prometheus would rename these.
    """

    def __init__(self) -> None:
        self.figures: dict[tuple[str, str], AppFigures] = {}

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("wsgiapp_info", "Each WsgiApp.", labels=(*APP_LABELS, "image"))
        ready = GaugeMetricFamily(
            "wsgiapp_ready", "1 where what is declared serves.", labels=APP_LABELS
        )
        condition = GaugeMetricFamily(
            "wsgiapp_status_condition",
            "1 for the status that each condition of each WsgiApp has, and its reason.",
            labels=(*APP_LABELS, "type", "status", "reason"),
        )
        for key, app in list(self.figures.items()):
            info.add_metric((*key, app.image), 1)
            ready.add_metric(key, int(app.is_ready))
            for kind, status, reason in app.conditions:
                condition.add_metric((*key, kind, status, reason), 1)
        return iter((info, ready, condition))


class Metrics:
    """All figures. Labels are bounded: by kind, result, and a few series an app."""

    def __init__(self) -> None:
        # One more series for each that is there, and nobody reads it.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # prometheus_client types most, not this
        self.registry = CollectorRegistry()
        self.reconcile_seconds = Histogram(
            "wsgiapp_operator_reconcile_duration_seconds",
            "Time to bring one app a step further.",
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.reconciles = Counter(
            "wsgiapp_operator_reconciles_total",
            "Reconciles by result.",
            ["result"],
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "wsgiapp_operator_queue_depth",
            "Apps that are due or being handled.",
            registry=self.registry,
        )
        self.applies = Counter(
            "wsgiapp_operator_applies_total",
            "Owned resources looked at: true was applied, false was as wanted, deleted was pruned.",
            ["kind", "changed"],
            registry=self.registry,
        )
        self.status_writes = Counter(
            "wsgiapp_operator_status_writes_total", "Statuses written.", registry=self.registry
        )
        self.reloads = Counter(
            "wsgiapp_operator_reloads_total",
            "Rolling reloads that ended.",
            ["result"],
            registry=self.registry,
        )
        self.upgrades = Gauge(
            "wsgiapp_operator_upgrade_apps",
            "Apps whose pods a new version of operator or cluster changes: waiting, under_way, stuck.",
            ["state"],
            registry=self.registry,
        )
        # From the first scrape on: an increase is only seen from a value that was there before.
        for result in ("success", "retry", "gone", "error"):
            self.reconciles.labels(result=result)
        for result in ("succeeded", "failed"):
            self.reloads.labels(result=result)
        self.leader = Gauge(
            "wsgiapp_operator_leader",
            "1 where this replica holds the Lease.",
            registry=self.registry,
        )
        self.apps = Apps()
        self.registry.register(self.apps)

    def record_app(
        self, namespace: str, name: str, image: str, conditions: Sequence[Mapping[str, str]]
    ) -> None:
        """Show an app as its status has it."""
        shown = tuple((c["type"], c["status"], c["reason"]) for c in conditions)
        self.apps.figures[namespace, name] = AppFigures(image, shown)

    def drop_all_apps(self) -> None:
        """Another replica reports them from now on."""
        self.upgrades.clear()
        self.queue_depth.set(0)
        self.apps.figures.clear()

    def drop_app(self, namespace: str, name: str) -> None:
        self.apps.figures.pop((namespace, name), None)


class Heartbeat:
    """Beaten by the event loop; when it stops, /healthz says so. `waits_for` is what /readyz answers."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.waits_for: str | None = (
            "the Lease, and a first look at the cluster"  # None: reconciles, or stands by for who does
        )

    def beat(self) -> None:
        self._last = time.monotonic()

    def wait_for(self, what: str | None) -> None:
        """Be not ready because of this; None takes it back."""
        self.waits_for = what

    def set_ready(self) -> None:
        """Nothing is waited for any more."""
        self.waits_for = None

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._last


class ThreadingServer(ThreadingMixIn, WSGIServer):
    """Has a thread for each connection, and closes the oldest one where there are more than CONNECTIONS_MAX.

    Its port can be reached from the whole cluster. Who sends a request is answered within milliseconds, so
    the oldest connection is idle or slow.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self._open: dict[Any, None] = {}  # sockets, oldest first
        self._guard = threading.Lock()
        super().__init__(*arguments, **more)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open[request] = None
            if len(self._open) > CONNECTIONS_MAX:
                oldest = next(iter(self._open))
                del self._open[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # which ends what its thread waits for
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("connection ended: client=%s error=%r", client_address, sys.exception())


class ThreadingServer6(ThreadingServer):
    """At `[::]`, IPv4 is answered too."""

    address_family = socket.AF_INET6


class QuietHandler(WSGIRequestHandler):
    timeout = TIMEOUT_S

    def log_message(self, format: str, *args: Any) -> None:
        logger.debug("probe: %s", format % args)


def start_server(listen: str, metrics: Metrics, heartbeat: Heartbeat) -> ThreadingServer:
    """Serve /metrics, /healthz and /readyz from a thread of its own, so that a stuck loop is reported.

    `listen` is HOST:PORT. Raises OSError where the address cannot be had.
    """
    show_metrics = make_wsgi_app(metrics.registry)

    def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/metrics":
            shown: Iterable[bytes] = show_metrics(environ, start_response)
            return shown
        status, text = "200 OK", "ok"
        if environ["PATH_INFO"] not in ("/healthz", "/readyz"):
            status, text = "404 Not Found", "here are /metrics, /healthz and /readyz"
        elif heartbeat.age_s >= STANDSTILL_S:
            status = "503 Service Unavailable"
            text = f"the event loop stands still for {heartbeat.age_s:.0f} s"
        elif environ["PATH_INFO"] == "/readyz" and heartbeat.waits_for is not None:
            status, text = "503 Service Unavailable", f"waits for {heartbeat.waits_for}"
        start_response(status, [("Content-Type", "text/plain")])
        return [f"{text}\n".encode()]

    host, _, port = listen.rpartition(":")
    server = make_server(
        host.strip("[]"),
        int(port),
        answer,
        server_class=ThreadingServer6 if "[" in host else ThreadingServer,
        handler_class=QuietHandler,
    )
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
