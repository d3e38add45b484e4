"""The dashboards are what their code makes, read metrics that exist, and pass the linter's rules."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from monitoring.dashboards.__main__ import FOLDER, generated
from tests.unit.monitoring.exported import names_of_all_metrics
from tests.unit.monitoring.linter import faults

Json = dict[str, Any]
BOARDS: dict[str, Json] = {path.stem: json.loads(text) for path, text in generated().items()}
PANELS = [
    pytest.param(panel, id=f"{name}: {panel['title']}")
    for name, board in BOARDS.items()
    for panel in board["panels"]
    if panel["type"] != "row"
]


def expressions(panel: Json) -> Iterator[str]:
    for target in panel["targets"]:
        yield target["expr"]


@pytest.mark.parametrize("path", sorted(generated()), ids=lambda path: path.name)
def test_json_is_what_the_code_makes(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generated()[path], (
        f"{path.name} is stale; run `make generate`"
    )
    assert sorted(FOLDER.glob("*.json")) == sorted(generated())


@pytest.mark.parametrize("name", BOARDS)
def test_rules_of_dashboard_linter_hold(
    name: str, promtool: Callable[..., str], tmp_path: Path
) -> None:
    assert list(faults(BOARDS[name], promtool, tmp_path)) == []


def test_linter_finds_what_is_wrong(promtool: Callable[..., str], tmp_path: Path) -> None:
    board: Json = {
        "editable": True,
        "templating": {"list": [{"name": "app", "type": "query", "refresh": 1}]},
        "panels": [
            {
                "type": "timeseries",
                "title": "",
                "datasource": {"uid": "prometheus"},
                "targets": [{"expr": "sum(wsgi_reloads_total)"}, {"expr": "rate(x[5m])"}, {"expr": "sum("}],
            }
        ],
    }  # fmt: skip
    found = " ".join(faults(board, promtool, tmp_path))
    for word in (
        "editable", "no variable datasource", "label", "refresh", "title", "description", "unit",
        "datasource of", "$__rate_interval", "counter", "valid PromQL",
    ):  # fmt: skip
        assert word in found, word


@pytest.mark.parametrize("panel", PANELS)
def test_panel_reads_metrics_that_agent_and_operator_export(panel: Json) -> None:
    read = {name for expr in expressions(panel) for name in re.findall(r"\bwsgi(?:app)?_\w+", expr)}
    assert read
    assert read <= names_of_all_metrics()


@pytest.mark.parametrize("panel", PANELS)
def test_panel_asks_a_question(panel: Json) -> None:
    assert panel["title"].endswith("?")
    assert panel["fieldConfig"]["defaults"]["unit"]
    for target in panel["targets"]:
        assert target["legendFormat"]


def test_the_fleet_leads_to_each_app() -> None:
    (table,) = (panel for panel in BOARDS["wsgiapp-fleet"]["panels"] if panel["type"] == "table")
    links = [
        link["url"]
        for override in table["fieldConfig"]["overrides"]
        for prop in override["properties"]
        if prop["id"] == "links"
        for link in prop["value"]
    ]
    assert [link.partition("?")[0] for link in links] == ["/d/wsgiapp-app"]
    variables = {each["name"] for each in BOARDS["wsgiapp-app"]["templating"]["list"]}
    assert (
        set(re.findall(r"var-(\w+)=", links[0])) <= variables == {"datasource", "namespace", "app"}
    )


@pytest.mark.parametrize("name", ["wsgiapp-fleet", "wsgiapp-app"])
def test_reloads_are_marked_in_all_panels(name: str) -> None:
    marks = {each["name"]: each["iconColor"] for each in BOARDS[name]["annotations"]["list"]}
    assert marks == {"Reloads that succeeded": "blue", "Reloads that failed": "red"}


def test_panels_do_not_overlap_and_fill_their_rows() -> None:
    for board in BOARDS.values():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {
                (x, y)
                for x in range(at["x"], at["x"] + at["w"])
                for y in range(at["y"], at["y"] + at["h"])
            }
            assert not cells & taken
            taken |= cells
        height = max(y for _, y in taken) + 1
        assert len(taken) == 24 * height
