"""docs/metrics.md is written from the metrics that agent and operator declare."""

from __future__ import annotations

from charts.generate import ROOT
from monitoring.metrics_reference import render


def test_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert page == render(), "docs/metrics.md is stale: run `make generate`"
