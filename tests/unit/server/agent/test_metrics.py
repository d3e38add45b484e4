"""Metrics out of the cells of the table."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from prefork.agent.metric_table import ROWS, SECTIONS
from prefork.agent.metrics import (
    REQUEST_SERIES,
    Counts,
    collect_header,
    collect_requests,
    collect_workers,
    count_requests,
    histogram,
)
from prefork.base.stats import CODES, COUNTERS, HISTOGRAM_CELLS, METHODS, Table, create_table
from prometheus_client.core import Metric

from tests.unit.server.slots import occupy

QUEUE = "wsgi_http_request_queue_duration_seconds"


def test_histograms_are_summed_up_to_each_bound():
    cells = [1, 2, 0, 4, *[0] * (HISTOGRAM_CELLS - 5), 9_000_000]
    family = histogram(QUEUE, {(): Counts(cells, {})}, [1_000, 2_500, 30_000_000])
    values = {sample.labels.get("le", sample.name): sample.value for sample in family.samples}
    assert values == {
        "0.001": 1, "0.0025": 3, "30.0": 3, "+Inf": 7, f"{QUEUE}_count": 7, f"{QUEUE}_sum": 9.0,
    }  # fmt: skip


def test_requests_are_named_by_method_and_code():
    sums = {name: [0] * length for name, length in COUNTERS.items()}
    sums["requests"][2 * len(CODES) + CODES.index("404")] = 7
    family = next(iter(collect_requests(sums, [])))
    assert [(s.labels, s.value) for s in family.samples] == [({"method": "POST", "code": "404"}, 7)]


def test_of_very_many_pairs_of_method_and_code_only_the_class_of_the_code_is_shown():
    cells = [0] * (len(METHODS) * len(CODES))
    cells[:REQUEST_SERIES] = [1] * REQUEST_SERIES
    assert len(count_requests(cells)) == REQUEST_SERIES
    cells[len(CODES)] = 5
    shown = count_requests(cells)
    assert shown["HEAD", "2xx"] == 5
    assert sum(shown.values()) == REQUEST_SERIES + 5
    assert len(count_requests([1] * len(cells))) == len(METHODS) * 5 == REQUEST_SERIES


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    made, descriptor = create_table(tmp_path / "stats", worker_slots=2)
    yield made
    made.close()
    os.close(descriptor)


def samples(families: Iterable[Metric], name: str) -> dict[tuple[str, ...], float]:
    (found,) = (family for family in families if family.name == name)
    return {tuple(sample.labels.values()): sample.value for sample in found.samples}


def test_memory_is_shown_against_its_limit_where_there_is_one(table: Table):
    names = ("wsgi_memory_working_set_bytes", "wsgi_memory_limit_bytes")
    assert [samples(collect_header(table), name) for name in names] == [{}, {}]
    table.set_header("memory_limit", 512 << 20)
    table.set_header("memory_used", 100 << 20)
    shown = [samples(collect_header(table), name) for name in names]
    assert shown == [{(): 100 << 20}, {(): 512 << 20}]


def test_memory_of_a_worker_is_not_0_before_it_is_measured(table: Table):
    for slot in (1, 2):
        occupy(table, slot)
    table.set_slot(2, "pss_bytes", 5)
    found = samples(collect_workers(table, 1.0), "wsgi_worker_proportional_memory_bytes")
    assert found == {("2",): 5}


# What Prometheus and Kubernetes' service discovery put on a target, and what is usual to add.
TARGET_LABELS = {
    "app", "cluster", "container", "endpoint", "env", "exported_namespace", "instance", "job", "name", "namespace",
    "node", "pod", "prometheus", "region", "service", "zone",
}  # fmt: skip


def test_no_label_clashes_with_those_of_a_target():
    assert not {label for row in ROWS.values() for label in row.labels} & TARGET_LABELS


def test_each_metric_is_declared_once_and_says_which_question_it_answers():
    assert len(ROWS) == sum(len(section.rows) for section in SECTIONS)
    assert all(
        row.question.endswith((".", "?")) and row.help.endswith(".") for row in ROWS.values()
    )
    assert all(name.endswith("_total") == (row.kind == "counter") for name, row in ROWS.items())
