"""Each alert has its page, each page its alert, and the page says what the rule says."""

from __future__ import annotations

import re

import pytest

from charts.generate import ROOT
from tests.unit.monitoring.conftest import ALERTS

PAGES = ROOT / "docs" / "runbooks"
SECTIONS = ["Symptom", "Meaning", "Checks", "Remedy", "Time to fire"]


def test_each_alert_has_its_page_and_each_page_its_alert() -> None:
    assert {path.name for path in PAGES.iterdir()} == {f"{alert}.md" for alert in ALERTS}


@pytest.mark.parametrize("alert", ALERTS)
def test_page_has_all_sections_and_the_rule_s_severity_and_time(alert: str) -> None:
    text = (PAGES / f"{alert}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {alert}\n")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert f"Severity: {ALERTS[alert]['labels']['severity']}." in text
    assert f"`for: {ALERTS[alert]['for']}`" in text
    assert "```console\n" in text


@pytest.mark.parametrize("alert", ALERTS)
def test_alert_points_to_its_page(alert: str) -> None:
    path = ALERTS[alert]["annotations"]["runbook_url"]
    assert (ROOT / path).read_text(encoding="utf-8").startswith(f"# {alert}\n")


def test_overview_lists_each_alert_with_its_severity() -> None:
    text = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| \[(\w+)\]\(runbooks/\1\.md\) \| (\w+) \|", text, re.MULTILINE)
    assert listed == [(alert, rule["labels"]["severity"]) for alert, rule in ALERTS.items()]


def test_overview_says_how_each_alert_was_caused() -> None:
    text = (ROOT / "docs" / "alerts.md").read_text(encoding="utf-8")
    caused = re.findall(r"^\| (Wsgi\w+) \| [^|]+ \| [\d.]+ \|", text, re.MULTILINE)
    assert caused == [*ALERTS]


@pytest.mark.parametrize("page", ["alerts.md", *(f"runbooks/{alert}.md" for alert in ALERTS)])
def test_links_lead_to_files(page: str) -> None:
    path = ROOT / "docs" / page
    for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / link).exists(), link
