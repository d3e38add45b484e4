"""The figures of each promise: kept while the tests run, shown and written at their end."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support.load_report import LoadReport

_HEADINGS = (
    "case",
    "seconds",
    "requests",
    "failed",
    "wrong",
    "GET retried",
    "p50 ms",
    "p99 ms",
    "worst ms",
)


@dataclass(frozen=True, slots=True)
class Case:
    """One promise under load."""

    name: str
    report: LoadReport

    def row(self) -> tuple[str, ...]:
        """Return its line of the table."""
        seen = self.report
        counts = (seen.sent, seen.failed, seen.wrong, seen.retried_reused_get)
        times = (seen.p50_s, seen.p99_s, seen.max_s)
        return (
            self.name,
            f"{seen.elapsed_s:.0f}",
            *(str(count) for count in counts),
            *(f"{seconds * 1000:.1f}" for seconds in times),
        )


def to_table(cases: list[Case]) -> str:
    """Return a Markdown table, padded so that it reads well in a terminal too."""
    rows = [_HEADINGS, *(case.row() for case in cases), _total(cases)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = [
        "| "
        + " | ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def _total(cases: list[Case]) -> tuple[str, ...]:
    reports = [case.report for case in cases]
    return (
        "all",
        f"{sum(r.elapsed_s for r in reports):.0f}",
        str(sum(r.sent for r in reports)),
        str(sum(r.failed for r in reports)),
        str(sum(r.wrong for r in reports)),
        str(sum(r.retried_reused_get for r in reports)),
        "",
        "",
        f"{max((r.max_s for r in reports), default=0) * 1000:.1f}",
    )


def write(cases: list[Case], folder: Path) -> None:
    """Write figures.md and figures.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "figures.md").write_text(to_table(cases) + "\n")
    values = [{"case": case.name} | asdict(case.report) for case in cases]
    (folder / "figures.json").write_text(json.dumps(values, indent=1) + "\n")
