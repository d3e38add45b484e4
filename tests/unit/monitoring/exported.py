"""What agent and operator export, by their own tables."""

from __future__ import annotations

from prefork.agent.metric_table import ROWS
from wsgiapp_operator.metrics import Metrics

_PARTS = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


def names_of_all_metrics() -> set[str]:
    """Return the names of all series; also of metrics whose labels have not been used so far."""
    names = set()
    for row in ROWS.values():
        names |= {row.name + part for part in _PARTS.get(row.kind, ("",))}
    for family in Metrics().registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        names |= {name + part for part in _PARTS.get(family.type, ("",))}
    return names
