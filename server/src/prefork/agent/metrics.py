"""Prometheus metrics out of the stats table; the only importer of prometheus_client.

A custom collector reads the table at each scrape. What each metric means is declared in `metric_table`. Labels are
bounded: no path, no pid, no host; `worker` is the slot's number, which a replacement inherits.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar as OpenMetricsExemplar
from prometheus_client.samples import Timestamp

from prefork.agent.metric_table import ROWS
from prefork.agent.readiness import Fault, Reason
from prefork.agent.table import TableFile
from prefork.base.exemplars import Exemplar
from prefork.base.stats import (
    CODE_CLASSES,
    CODES,
    HISTOGRAM_CELLS,
    METHODS,
    ExitReason,
    Table,
    WorkerState,
)

# A pod shows at most 300 series in all: those of each worker for so many workers, …
WORKERS_SHOWN = 22
# … so many pairs of method and code, and so many contents.
REQUEST_SERIES = 40
CONTENTS_SHOWN = 8

FindFault = Callable[[float], Fault | None]

# name of the metric, cell of the slots, divisor
SUMMED_COUNTERS = (
    ("wsgi_worker_busy_seconds_total", "busy_us", 1e6),
    ("wsgi_request_timeouts_total", "timeouts", 1),
    ("wsgi_http_requests_rejected_total", "rejects", 1),
    ("wsgi_http_disconnects_total", "disconnects", 1),
    ("wsgi_http_received_bytes_total", "bytes_in", 1),
    ("wsgi_http_sent_bytes_total", "bytes_out", 1),
    ("wsgi_connections_accepted_total", "accepted", 1),
    ("wsgi_connections_handed_over_total", "handed_over", 1),
    ("wsgi_probe_requests_total", "probes", 1),
)
# name of the metric, cell of the header, divisor
HEADER_VALUES = (
    ("wsgi_workers_desired", "workers_desired", 1),
    ("wsgi_generation", "generation", 1),
    ("wsgi_listen_queue_depth", "listen_depth", 1),
    ("wsgi_listen_queue_limit", "listen_limit", 1),
    ("wsgi_crash_loop_backoff_seconds", "crash_loop_backoff_us", 1e6),
    ("wsgi_listen_overflows_total", "listen_overflows", 1),
    ("wsgi_listen_drops_total", "listen_drops", 1),
)
# name of the metric, cell of the header; only where there is a limit
MEMORY_VALUES = (
    ("wsgi_memory_working_set_bytes", "memory_used"),
    ("wsgi_memory_limit_bytes", "memory_limit"),
)
# name of the metric, cell of the slots
SUMMED_GAUGES = (
    ("wsgi_http_requests_in_flight", "in_flight"),
    ("wsgi_http_requests_waiting", "waiting"),
    ("wsgi_connections", "connections"),
)


class Metrics:
    """Renders one scrape."""

    def __init__(self, collector: Collector) -> None:
        # A registry of its own: no process or platform collectors of this agent.
        self.registry = CollectorRegistry()
        self.registry.register(collector)

    def render(self, accept: str) -> tuple[str, bytes]:
        """Return content type and body in the format that the Accept field asks for."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self.registry)


class TableCollector(Collector):
    """Yields all metrics of the server's current run; `find_fault` says why it is not ready."""

    def __init__(self, table: TableFile, find_fault: FindFault, *, version: str) -> None:
        self.table = table
        self.find_fault = find_fault
        self.version = version

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        now = time.monotonic()
        yield family("wsgi_build_info", {(self.version,): 1})
        yield from collect_readiness(self.find_fault(now))
        table = self.table.get()
        if table is not None:
            yield from collect_requests(table.sum_counters(), table.bounds_us, table.exemplars())
            yield from collect_header(table)
            yield from collect_workers(table, now)


def family(name: str, values: Mapping[tuple[str, ...], float]) -> Metric:
    """Return a counter or gauge of the table of metrics, with its values by the values of its labels."""
    row = ROWS[name]
    kind = CounterMetricFamily if row.kind == "counter" else GaugeMetricFamily
    made = kind(name, row.help, labels=row.labels)
    for labels, value in values.items():
        made.add_metric(labels, value)
    return made


def collect_readiness(fault: Fault | None) -> Iterator[Metric]:
    yield family("wsgi_ready", {(): 0 if fault else 1})
    found = fault.reason if fault else None
    yield family("wsgi_not_ready", {(reason.value,): int(reason is found) for reason in Reason})


class Counts(NamedTuple):
    """What is known of one histogram: its cells in the stats table, and exemplars by bucket."""

    cells: list[int]
    exemplars: Mapping[int, Exemplar]


def collect_requests(
    sums: dict[str, list[int]],
    bounds_us: list[int],
    exemplars: Mapping[tuple[str, int], Exemplar] = MappingProxyType({}),
) -> Iterator[Metric]:
    """Yield what engines counted, summed over living and retired workers."""

    def counts(name: str, start: int = 0) -> Counts:
        cells = range(start, start + HISTOGRAM_CELLS)
        found = {at - start: exemplars[name, at] for at in cells if (name, at) in exemplars}
        return Counts(sums[name][start : start + HISTOGRAM_CELLS], found)

    yield family("wsgi_http_requests_total", count_requests(sums["requests"]))
    by_class: dict[tuple[str, ...], Counts] = {}
    for index, code_class in enumerate(CODE_CLASSES):
        of_class = counts("duration", index * HISTOGRAM_CELLS)
        # 2xx always, so that rates are there from the first scrape on.
        if any(of_class.cells) or code_class == "2xx":
            by_class[(code_class,)] = of_class
    yield histogram("wsgi_http_request_duration_seconds", by_class, bounds_us)
    for name, cell in (
        ("wsgi_http_request_queue_duration_seconds", "queue"),
        ("wsgi_http_response_time_seconds", "response"),
    ):
        yield histogram(name, {(): counts(cell)}, bounds_us)
    for name, cell, divisor in SUMMED_COUNTERS:
        yield family(name, {(): sums[cell][0] / divisor})


def count_requests(cells: list[int]) -> Mapping[tuple[str, ...], float]:
    """Return the requests by method and code; of very many pairs, by method and class of code."""
    counts: dict[tuple[str, ...], float] = {
        (METHODS[index // len(CODES)], CODES[index % len(CODES)]): count
        for index, count in enumerate(cells)
        if count
    }
    if len(counts) <= REQUEST_SERIES:
        return counts
    by_class: dict[tuple[str, ...], float] = defaultdict(float)
    for (method, code), count in counts.items():
        by_class[method, f"{code[0]}xx"] += count
    return by_class


def histogram(name: str, values: Mapping[tuple[str, ...], Counts], bounds_us: list[int]) -> Metric:
    """Return a histogram; the stats table counts per bucket, Prometheus wants sums up to each bound.

    Exemplars are shown in the OpenMetrics format alone; Prometheus' text format has none.
    """
    row = ROWS[name]
    made = HistogramMetricFamily(name, row.help, labels=row.labels)
    for labels, (cells, exemplars) in values.items():
        total = 0
        buckets: list[tuple[str, float] | tuple[str, float, OpenMetricsExemplar]] = []
        for number, (bound, count) in enumerate(zip([*bounds_us, None], cells, strict=False)):
            total += count
            le = "+Inf" if bound is None else repr(bound / 1e6)
            found = exemplars.get(number)
            buckets.append((le, total, show_exemplar(found)) if found else (le, total))
        made.add_metric(labels, buckets, sum_value=cells[-1] / 1e6)
    return made


def show_exemplar(found: Exemplar) -> OpenMetricsExemplar:
    time_s = Timestamp(found.time_us // 1_000_000, found.time_us % 1_000_000 * 1000)
    return OpenMetricsExemplar({"trace_id": found.trace_id}, found.value_us / 1e6, time_s)


def collect_header(table: Table) -> Iterator[Metric]:
    for name, cell, divisor in HEADER_VALUES:
        yield family(name, {(): table.header(cell) / divisor})
    has_limit = table.header("memory_limit") > 0
    for name, cell in MEMORY_VALUES:
        yield family(name, {(): table.header(cell)} if has_limit else {})
    exits: dict[tuple[str, ...], float] = {
        (reason.value,): table.header(f"exits_{reason.value}") for reason in ExitReason
    }
    yield family("wsgi_worker_exits_total", exits)
    reloads = {("succeeded",): "reloads_ok", ("failed",): "reloads_failed"}
    yield family("wsgi_reloads_total", {key: table.header(cell) for key, cell in reloads.items()})
    yield SummaryMetricFamily(
        "wsgi_worker_boot_duration_seconds", ROWS["wsgi_worker_boot_duration_seconds"].help,
        count_value=table.header("boot_count"), sum_value=table.header("boot_us_sum") / 1e6,
    )  # fmt: skip
    contents = list(table.content().items())[:CONTENTS_SHOWN]
    yield family("wsgi_content_info", {(name, digest[:16]): 1 for name, digest in contents})


def collect_workers(table: Table, now: float) -> Iterator[Metric]:
    """Yield gauges of the living workers."""
    slots = table.taken_slots()
    in_state = {state: [s for s in slots if table.slot(s, "worker_state") == state.value] for state in WorkerState}  # fmt: skip
    yield family(
        "wsgi_workers", {(state.name.lower(),): len(in_state[state]) for state in in_state}
    )
    for name, cell in SUMMED_GAUGES:
        yield family(name, {(): sum(table.slot(slot, cell) for slot in slots)})
    busy = {slot: table.slot(slot, "in_flight") for slot in slots}
    yield family("wsgi_workers_busy", {(): sum(map(bool, busy.values()))})
    # Threads of other workers take no further request: they are not what is left to work with.
    serving = in_state[WorkerState.SERVING]
    yield family("wsgi_threads", {(): sum(table.slot(slot, "threads") for slot in serving)})
    yield family("wsgi_threads_busy", {(): sum(busy[slot] for slot in serving)})
    yield per_worker("wsgi_worker_threads_busy", busy)
    for kind, cell in (("resident", "rss_bytes"), ("proportional", "pss_bytes")):
        # 0 until it is measured, which is not what the worker uses.
        measured = {slot: size for slot in slots if (size := table.slot(slot, cell))}
        yield per_worker(f"wsgi_worker_{kind}_memory_bytes", measured)
    starts_us = {slot: table.slot(slot, "oldest_start_us") for slot in slots}
    ages_s = {slot: now - start / 1e6 if start else 0.0 for slot, start in starts_us.items()}
    yield per_worker("wsgi_worker_request_elapsed_seconds", {s: max(0.0, age) for s, age in ages_s.items()})  # fmt: skip


def per_worker(name: str, values: Mapping[int, float]) -> Metric:
    """Return a gauge with one series per worker; of very many workers, those with the largest values."""
    largest = sorted(values, key=lambda slot: values[slot], reverse=True)[:WORKERS_SHOWN]
    return family(name, {(str(slot),): values[slot] for slot in sorted(largest)})
