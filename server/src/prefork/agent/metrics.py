"""Prometheus metrics out of the stats table; the only importer of prometheus_client.

A custom collector reads the table at each scrape. Labels are bounded: no path, no pid, no host;
`worker` is the slot's number, which a replacement inherits.
"""

import time
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from prefork.agent.table import TableFile
from prefork.base.stats import (
    BOUNDS_US,
    CODE_CLASSES,
    CODES,
    HISTOGRAM_CELLS,
    METHODS,
    ExitReason,
    Table,
    WorkerState,
)

# A pod shows at most 300 series in all.
WORKERS_SHOWN = 40

# name of the metric, cell of the slots, divisor, help
SUMMED_COUNTERS = (
    ("wsgi_worker_busy_seconds", "busy_us", 1e6, "Time workers spent in the app."),
    ("wsgi_request_timeouts", "timeouts", 1, "Requests that took longer than the timeout."),
    ("wsgi_http_requests_rejected", "rejects", 1, "Requests the server answered itself because they were not valid."),
    ("wsgi_http_disconnects", "disconnects", 1, "Clients that left before their answer was sent."),
    ("wsgi_http_received_bytes", "bytes_in", 1, "Bytes received from clients."),
    ("wsgi_http_sent_bytes", "bytes_out", 1, "Bytes sent to clients."),
    ("wsgi_connections_accepted", "accepted", 1, "Connections taken from the accept queue."),
    ("wsgi_connections_handed_over", "handed_over", 1, "Connections passed on to another worker."),
)  # fmt: skip
HEADER_COUNTERS = (
    ("wsgi_listen_overflows", "listen_overflows", "Connections refused because an accept queue was full (whole pod)."),
    ("wsgi_listen_drops", "listen_drops", "Connections dropped before they were accepted (whole pod)."),
)  # fmt: skip
HEADER_GAUGES = (
    ("wsgi_workers_desired", "workers_desired", 1, "Workers wanted."),
    ("wsgi_generation", "generation", 1, "Serving generation; each reload that succeeds adds one or more."),
    ("wsgi_listen_queue_depth", "listen_depth", 1, "Connections waiting in the accept queues."),
    ("wsgi_listen_queue_limit", "listen_limit", 1, "Room in the accept queues."),
    ("wsgi_crash_loop_backoff_seconds", "crash_loop_backoff_us", 1e6, "Time until the next worker is forked, while workers crash in a row."),
)  # fmt: skip


class Metrics:
    """Renders one scrape."""

    def __init__(self, table: TableFile, *, version: str) -> None:
        # A registry of its own: no process or platform collectors of this agent.
        self.registry = CollectorRegistry()
        self.registry.register(TableCollector(table, version=version))

    def render(self, accept: str) -> tuple[str, bytes]:
        """Return content type and body in the format that the Accept field asks for."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self.registry)


class TableCollector(Collector):
    """Yields all metrics of the server's current run."""

    def __init__(self, table: TableFile, *, version: str) -> None:
        self.table = table
        self.version = version

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        build = InfoMetricFamily("wsgi_build", "Version of prefork.")
        build.add_metric([], {"version": self.version})
        yield build
        table = self.table.get()
        if table is not None:
            yield from collect_requests(table.sum_counters())
            yield from collect_header(table)
            yield from collect_workers(table, time.monotonic())


def collect_requests(sums: dict[str, list[int]]) -> Iterator[Metric]:
    """Yield what engines counted, summed over living and retired workers."""
    requests = CounterMetricFamily(
        "wsgi_http_requests", "Requests answered.", labels=["method", "code"]
    )
    for index, count in enumerate(sums["requests"]):
        if count:
            requests.add_metric([METHODS[index // len(CODES)], CODES[index % len(CODES)]], count)
    yield requests
    duration = HistogramMetricFamily(
        "wsgi_http_request_duration_seconds", "Time from the call of the app to the end of its response.",
        labels=["code_class"],
    )  # fmt: skip
    for index, code_class in enumerate(CODE_CLASSES):
        cells = sums["duration"][index * HISTOGRAM_CELLS : (index + 1) * HISTOGRAM_CELLS]
        # 2xx always, so that rates are there from the first scrape on.
        if any(cells) or code_class == "2xx":
            add_histogram(duration, [code_class], cells)
    yield duration
    queue = HistogramMetricFamily(
        "wsgi_http_request_queue_duration_seconds", "Time from a request's complete head to the call of the app."
    )  # fmt: skip
    add_histogram(queue, [], sums["queue"])
    yield queue
    for name, cell, divisor, text in SUMMED_COUNTERS:
        yield CounterMetricFamily(name, text, value=sums[cell][0] / divisor)


def add_histogram(family: HistogramMetricFamily, labels: list[str], cells: list[int]) -> None:
    """Add one histogram; the table counts per bucket, Prometheus wants sums up to each bound."""
    total = 0
    buckets: list[tuple[str, float]] = []
    for bound, count in zip([*BOUNDS_US, None], cells, strict=False):
        total += count
        buckets.append(("+Inf" if bound is None else repr(bound / 1e6), total))
    family.add_metric(labels, buckets, sum_value=cells[-1] / 1e6)


def collect_header(table: Table) -> Iterator[Metric]:
    for name, cell, divisor, text in HEADER_GAUGES:
        yield GaugeMetricFamily(name, text, value=table.header(cell) / divisor)
    for name, cell, text in HEADER_COUNTERS:
        yield CounterMetricFamily(name, text, value=table.header(cell))
    exits = CounterMetricFamily("wsgi_worker_exits", "Workers that ended.", labels=["reason"])
    for reason in ExitReason:
        exits.add_metric([reason.value], table.header(f"exits_{reason.value}"))
    yield exits
    reloads = CounterMetricFamily("wsgi_reloads", "Reloads that ended.", labels=["result"])
    reloads.add_metric(["succeeded"], table.header("reloads_ok"))
    reloads.add_metric(["failed"], table.header("reloads_failed"))
    yield reloads
    yield SummaryMetricFamily(
        "wsgi_worker_boot_duration_seconds", "Time from the order to fork a worker until it was ready.",
        count_value=table.header("boot_count"), sum_value=table.header("boot_us_sum") / 1e6,
    )  # fmt: skip


def collect_workers(table: Table, now: float) -> Iterator[Metric]:
    """Yield gauges of the living workers."""
    slots = table.taken_slots()
    states = GaugeMetricFamily("wsgi_workers", "Worker processes.", labels=["state"])
    for state in WorkerState:
        count = sum(1 for slot in slots if table.slot(slot, "worker_state") == state.value)
        states.add_metric([state.name.lower()], count)
    yield states
    in_flight = [table.slot(slot, "in_flight") for slot in slots]
    yield GaugeMetricFamily(
        "wsgi_workers_busy", "Workers with a call running.", value=sum(map(bool, in_flight))
    )
    yield GaugeMetricFamily("wsgi_http_requests_in_flight", "Calls running.", value=sum(in_flight))
    connections = sum(table.slot(slot, "connections") for slot in slots)
    yield GaugeMetricFamily("wsgi_connections", "Connections open.", value=connections)
    for kind, cell in (("resident", "rss_bytes"), ("proportional", "pss_bytes")):
        yield per_worker(
            f"wsgi_worker_{kind}_memory_bytes",
            f"{kind.capitalize()} memory of a worker.",
            {slot: table.slot(slot, cell) for slot in slots},
        )
    starts_us = {slot: table.slot(slot, "oldest_start_us") for slot in slots}
    yield per_worker(
        "wsgi_worker_request_elapsed_seconds",
        "Age of a worker's oldest running call, 0 without one.",
        {slot: max(0.0, now - start / 1e6) if start else 0.0 for slot, start in starts_us.items()},
    )


def per_worker(name: str, text: str, values: Mapping[int, float]) -> Metric:
    """Return a gauge with one series per worker; of very many workers, those with the largest values."""
    family = GaugeMetricFamily(name, text, labels=["worker"])
    largest = sorted(values, key=lambda slot: values[slot], reverse=True)[:WORKERS_SHOWN]
    for slot in sorted(largest):
        family.add_metric([str(slot)], values[slot])
    return family
