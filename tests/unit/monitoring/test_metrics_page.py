"""docs/metrics.md is written from the metrics that agent and operator declare, and its queries can be run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from charts.generate import ROOT
from monitoring.metrics_reference import render
from monitoring.questions import QUESTIONS, Question
from tests.unit.monitoring.exported import names_of_all_metrics


def test_page_is_up_to_date() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text() == render(), "run make generate"


def test_queries_are_promql(promtool: Callable[..., str], tmp_path: Path) -> None:
    rules = [{"record": f"question:{n}", "expr": each.query} for n, each in enumerate(QUESTIONS)]
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "questions", "rules": rules}]}))
    assert "10 rules found" in promtool("check", "rules", file)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.text)
def test_question_is_asked_of_metrics_that_there_are(question: Question) -> None:
    named = set(re.findall(r"wsgi_[a-z0-9_]+", question.query))
    assert named
    assert named <= names_of_all_metrics()


def test_headless_service_of_the_page_is_the_chart_s() -> None:
    """The chart's is looked at by tests/unit/chart."""
    [text] = re.findall(r"```yaml\n(.*?)```", render(), re.DOTALL)
    service = yaml.safe_load(text)
    assert service["metadata"]["labels"] == {"wsgi.dev/metrics": "apps"}
    assert service["spec"]["ports"] == [{"name": "metrics", "port": 9000}]
