"""Results → two plain SVG bar charts: `python charts.py RESULTS.json DIRECTORY`.

Runs on the peers' Python, which has matplotlib, with the source tree as its import path.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib  # type: ignore[import-not-found,unused-ignore]  # only in the peers' environment
from matplotlib import pyplot
from matplotlib.axes import Axes  # type: ignore[import-not-found,unused-ignore]  # as above
from matplotlib.ticker import NullLocator  # type: ignore[import-not-found,unused-ignore]

from tests.bench.page import CASE_TITLES
from tests.bench.peers import OURS, SERVERS
from tests.bench.results import Results

_OURS, _PEER = "#1f6feb", "#9aa4b2"


def draw_cost(results: Results, path: Path) -> None:
    """One panel per case: CPU µs per request by server, the rounds' range as a whisker."""
    figure, panels = pyplot.subplots(1, len(CASE_TITLES), figsize=(9, 3), sharey=True)
    for panel, (case, title) in zip(panels, CASE_TITLES.items(), strict=True):
        bars = {
            server.name: spread
            for server in SERVERS
            if (spread := results.cost_us(server.name, case)) is not None
        }
        _bars(panel, {name: spread.median for name, spread in bars.items()}, unit="µs")
        panel.set_title(title, fontsize=9)
    figure.supxlabel("CPU µs per request (log scale, less is better)", fontsize=8)
    _save(figure, path)


def draw_instructions(results: Results, path: Path) -> None:
    """One panel per request head: thousands of user instructions per request by server."""
    cases = ("bare", "browser")
    figure, panels = pyplot.subplots(1, len(cases), figsize=(9, 3), sharey=True)
    for panel, case in zip(panels, cases, strict=True):
        counts = {
            server.name: results.instructions[server.name][case] / 1000
            for server in SERVERS
            if server.name in results.instructions
        }
        _bars(panel, counts, unit="k")
        panel.set_title(CASE_TITLES[case], fontsize=9)
    figure.supxlabel(
        "thousand user instructions per request (log scale, less is better)", fontsize=8
    )
    _save(figure, path)


def _bars(panel: Axes, values: dict[str, float], *, unit: str) -> None:
    names = list(values)
    colours = [_OURS if name == OURS else _PEER for name in names]
    bars = panel.barh(names, list(values.values()), color=colours, height=0.65)
    labels = [f"{value:.1f} {unit}" for value in values.values()]
    panel.bar_label(bars, labels, padding=2, fontsize=7)
    panel.set_xscale("log")
    panel.xaxis.set_minor_locator(NullLocator())
    panel.set_xlim(left=min(values.values(), default=1) / 2, right=max(values.values()) * 4)
    panel.tick_params(labelsize=8, length=2)
    panel.spines[["top", "right"]].set_visible(False)


def _save(figure: pyplot.Figure, path: Path) -> None:
    figure.axes[0].invert_yaxis()  # shared by all panels: the first server on top
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def main() -> None:
    results, directory = Results.read(Path(sys.argv[1])), Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    # Text stays text (small files, selectable), identifiers stay the same from run to run.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "bench"})
    draw_cost(results, directory / "bench-cpu.svg")
    draw_instructions(results, directory / "bench-instructions.svg")


if __name__ == "__main__":
    main()
