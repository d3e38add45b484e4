"""The rules of Grafana's dashboard-linter, which cannot be had as a package: written anew from its documentation.

Left out, as its own configuration file allows: the rules on variables and matchers `job` and `instance`, since
`namespace` and `pod` select here and no scrape configuration's names are assumed; those on Loki.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.promql import with_values

Json = dict[str, Any]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
OVER_TIME = ("rate", "increase", "irate", "resets", "changes")


def faults(board: Json, promtool: Callable[..., str], folder: Path) -> Iterator[str]:
    """Yield a sentence for each rule that the dashboard breaks."""
    if board.get("editable", True):
        yield "the dashboard is editable; what is changed in Grafana is lost at the next load"
    if "__inputs" in board:
        yield "the dashboard has __inputs, which nobody fills when it is provisioned"
    yield from _variable_faults(board)
    for panel in board["panels"]:
        if panel["type"] != "row":
            yield from _panel_faults(panel)
    for title, target in _targets(board):
        yield from _query_faults(title, target["expr"])
    yield from _syntax_faults(board, promtool, folder)


def _variable_faults(board: Json) -> Iterator[str]:
    variables = {each["name"]: each for each in board["templating"]["list"]}
    source = variables.get("datasource")
    if source is None or (source["type"], source.get("query")) != ("datasource", "prometheus"):
        yield "there is no variable datasource for a Prometheus"
    for name, variable in variables.items():
        if not variable.get("label"):
            yield f"the variable {name} has no label"
        if variable["type"] == "query":
            if variable.get("datasource") != SOURCE:
                yield f"the datasource of the variable {name} is not the dashboard's"
            if variable.get("refresh") != 2:
                yield f"the variable {name} does not refresh when the time range changes"


def _panel_faults(panel: Json) -> Iterator[str]:
    title = panel.get("title")
    if not title or not panel.get("description"):
        yield f"panel {title!r} needs a title and a description"
    if panel.get("datasource") != SOURCE:
        yield f"the datasource of {title!r} is not the dashboard's"
    if not panel.get("targets"):
        yield f"panel {title!r} has no query"
    if not panel.get("fieldConfig", {}).get("defaults", {}).get("unit"):
        yield f"panel {title!r} has no unit"


def _query_faults(title: str, expr: str) -> Iterator[str]:
    for window in re.findall(r"\b(?:i?rate)\(\w+(?:\{.*?\})?\[([^\]]*)\]\)", expr):
        if window != "$__rate_interval":
            yield f"a rate of {title!r} is over {window} and not $__rate_interval"
    for before in re.findall(r"(\w*)\(?\w+_(?:total|bucket|count|sum)\b", expr):
        if before not in OVER_TIME:
            yield f"a counter of {title!r} is not in one of {', '.join(OVER_TIME)}"


def _syntax_faults(board: Json, promtool: Callable[..., str], folder: Path) -> Iterator[str]:
    """Let Prometheus read all queries at once, as recording rules."""
    rules = [
        {"record": "query", "expr": with_values(target["expr"]), "labels": {"number": str(number)}}
        for number, (_, target) in enumerate(_targets(board))
    ]
    file = folder / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    try:
        promtool("check", "rules", file)
    except AssertionError as error:
        yield f"not all queries are valid PromQL: {error}"


def _targets(board: Json) -> Iterator[tuple[str, Json]]:
    for panel in board["panels"]:
        for target in panel.get("targets") or ():
            yield panel["title"], target
