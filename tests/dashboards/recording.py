"""What Prometheus answers to every query of the dashboards, kept in a file for the pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monitoring.dashboards.__main__ import generated
from tests.cluster import Cluster
from tests.dashboards.scenario import Span
from tests.support.operator_release import NAMESPACE as OPERATOR_NAMESPACE
from tests.support.promql import with_values

Json = dict[str, Any]
STEP_S = 3
# Of a data source whose scrape interval is said to be 5 s: four times that.
WINDOW = "20s"
# The width of a bar.
BAR_S = 12


@dataclass(frozen=True)
class Answer:
    """The series that one query of one panel gave."""

    board: str
    panel: str
    query: str
    series: list[Json]

    @property
    def has_numbers(self) -> bool:
        return any(
            not math.isnan(float(value)) for each in self.series for _, value in each["values"]
        )

    @property
    def rises(self) -> bool:
        """Whether it is ever above zero."""
        return any(float(value) > 0 for each in self.series for _, value in each["values"])


def record(cluster: Cluster, span: Span, *, namespace: str, app: str) -> Json:
    """Return all dashboards with what Prometheus answers to each query: of one namespace and app in it."""
    here = {"namespace": namespace, "app": app}
    variables = {
        "wsgiapp-fleet": here,
        "wsgiapp-app": here,
        "wsgiapp-operator": {"namespace": OPERATOR_NAMESPACE},
    }

    def ask(uid: str, query: Json) -> None:
        step_s = query["step"] = BAR_S if "$__interval" in query["expr"] else STEP_S
        filled = with_values(query["expr"], variables[uid], window=WINDOW, step=f"{step_s}s")
        query["series"] = cluster.prometheus_query_range(filled, start, end, step_s)

    # Whole seconds, so that each point's time is one of start + n * step.
    start, end = math.floor(span.start), math.floor(span.end)
    boards = {board["uid"]: board for board in map(json.loads, generated().values())}
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda each: ask(*each), _queries(boards)):
            pass
    return {"start": start, "end": end, "step": STEP_S, "boards": boards}


def _queries(boards: Mapping[str, Json]) -> Iterator[tuple[str, Json]]:
    """Yield the dashboard and each query of its panels and annotations."""
    for uid, board in boards.items():
        for panel in board["panels"]:
            for target in panel.get("targets") or ():
                yield uid, target
        for annotation in board.get("annotations", {}).get("list") or ():
            yield uid, annotation


def answers(recorded: Json) -> Iterator[Answer]:
    """Yield every query's answer, those of annotations too."""
    for uid, board in recorded["boards"].items():
        for panel in board["panels"]:
            for target in panel.get("targets") or ():
                yield Answer(uid, panel["title"], target["expr"], target["series"])
        for annotation in board.get("annotations", {}).get("list") or ():
            yield Answer(uid, annotation["name"], annotation["expr"], annotation["series"])


def save(recorded: Json, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(recorded), encoding="utf-8")
