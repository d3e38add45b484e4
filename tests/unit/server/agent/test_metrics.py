"""Metrics out of the cells of the table."""

from prefork.agent.metric_table import ROWS, SECTIONS
from prefork.agent.metrics import (
    REQUEST_SERIES,
    Counts,
    collect_requests,
    count_requests,
    histogram,
)
from prefork.base.stats import CODES, COUNTERS, HISTOGRAM_CELLS, METHODS

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
