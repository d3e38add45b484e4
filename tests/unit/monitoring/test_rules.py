"""The rules are valid, read metrics that exist, and each alert fires when it should and only then."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from charts.generate import ROOT, RULES
from tests.unit.monitoring.cases import CASES, Case
from tests.unit.monitoring.conftest import ALERTS, RULES_OF_FILE
from tests.unit.monitoring.exported import names_of_all_metrics

Promtool = Callable[..., str]


def test_promtool_finds_nothing_wrong(promtool: Promtool) -> None:
    assert f"{len(RULES_OF_FILE)} rules found" in promtool("check", "rules", "--lint-fatal", RULES)


def test_nothing_reads_a_bucket_by_its_bound() -> None:
    """An app may have other buckets (`--duration-buckets`, `durationBucketsSeconds`)."""
    boards = [path.read_text() for path in (ROOT / "monitoring" / "dashboards").glob("*.json")]
    assert boards
    for text in [RULES.read_text(), *boards]:
        assert not re.search(r"\ble\s*(=|!=)", text.replace("\\", ""))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.alert}: {case.why}")
def test_alert_fires_when_it_should_and_only_then(
    case: Case, promtool: Promtool, tmp_path: Path
) -> None:
    name = {"alertname": case.alert, "alertstate": "firing"}
    severity = {"severity": ALERTS[case.alert]["labels"]["severity"]}
    labels = ",".join(
        f'{key}="{value}"' for key, value in {**name, **severity, **(case.fires or {})}.items()
    )
    expected = [{"labels": f"ALERTS{{{labels}}}", "value": 1}] if case.fires is not None else []
    alerts = f'ALERTS{{alertname="{case.alert}",alertstate="firing"}}'
    run_rules(promtool, tmp_path, case.series, case.at, alerts, expected)


def run_rules(
    promtool: Promtool,
    folder: Path,
    series: tuple[tuple[str, str], ...],
    at: str,
    query: str,
    expected: list[dict[str, object]],
) -> None:
    """Let promtool compare what `query` gives at this time with what is expected."""
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": [{"expr": query, "eval_time": at, "exp_samples": expected}],
    }
    file = folder / "test.yaml"
    content = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [test]}
    file.write_text(yaml.safe_dump(content))
    promtool("test", "rules", file)


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_tried_firing_and_not_firing(alert: str) -> None:
    assert {case.fires is None for case in CASES if case.alert == alert} == {True, False}


@pytest.mark.parametrize("alert", ALERTS)
def test_texts_name_only_labels_that_the_alert_has(alert: str) -> None:
    texts = " ".join(ALERTS[alert]["annotations"].values())
    named = set(re.findall(r"\$labels\.(\w+)", texts))
    for case in CASES:
        if case.alert == alert and case.fires is not None:
            assert named <= case.fires.keys()


@pytest.mark.parametrize(
    ("pod", "app"),
    [
        ("shop-7d9c5b8f6d-x2k4z", "shop"),
        ("my-shop-2-7d9c5b8f6d-x2k4z", "my-shop-2"),
        ("shop-0", "shop-0"),
        ("alone", "alone"),
    ],
)
def test_the_app_is_read_from_the_name_of_a_deployments_pod(
    pod: str, app: str, promtool: Promtool, tmp_path: Path
) -> None:
    series = ((f'wsgi_build_info{{namespace="web",pod="{pod}"}}', "1x5"),)
    count = "namespace_wsgiapp:wsgi_targets:count"
    labels = f'{count}{{namespace="web",wsgiapp="{app}"}}'
    run_rules(promtool, tmp_path, series, "3m", count, [{"labels": labels, "value": 1}])


def test_rules_read_only_metrics_that_agent_and_operator_export() -> None:
    read = {
        name
        for rule in RULES_OF_FILE
        for name in re.findall(
            r"(?<![\w:])wsgi(?:app)?_\w+(?![\w:])", re.sub(r'"[^"]*"', "", rule["expr"])
        )
    }
    assert read
    assert read <= names_of_all_metrics()
