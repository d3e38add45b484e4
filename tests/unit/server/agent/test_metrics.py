"""Metrics out of the cells of the table."""

from prefork.agent.metrics import add_histogram, collect_requests
from prefork.base.stats import BOUNDS_US, CODES, COUNTERS


def test_histograms_are_summed_up_to_each_bound():
    from prometheus_client.core import HistogramMetricFamily

    family = HistogramMetricFamily("x", "help", labels=[])
    cells = [1, 2, *[0] * (len(BOUNDS_US) - 2), 4, 9_000_000]
    add_histogram(family, [], cells)
    values = {sample.labels.get("le", sample.name): sample.value for sample in family.samples}
    assert values["0.001"] == 1
    assert values["0.0025"] == 3
    assert values["30.0"] == 3
    assert values["+Inf"] == values["x_count"] == 7
    assert values["x_sum"] == 9.0


def test_requests_are_named_by_method_and_code():
    sums = {name: [0] * length for name, length in COUNTERS.items()}
    sums["requests"][2 * len(CODES) + CODES.index("404")] = 7
    family = next(iter(collect_requests(sums)))
    assert [(s.labels, s.value) for s in family.samples] == [({"method": "POST", "code": "404"}, 7)]
