"""Figures of all sizes → an SVG: `python -m tests.scale.chart FIGURES.json CHART.svg`.

Runs on the Python of the benchmarks' peers, which has matplotlib.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib  # type: ignore[import-not-found,unused-ignore]  # only in the peers' environment
from matplotlib import pyplot

PANELS = (
    ("memory", "memory at rest, MiB", 150.0),
    ("rest_cpu", "CPU at rest, % of a core", 1.0),
    ("settled_s", "all apps ready after, s", 120.0),
    ("change_p99", "change → Deployment, p99, ms", 500.0),
)


def main() -> None:
    sizes = json.loads(Path(sys.argv[1]).read_text())
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "scale"})
    figure, panels = pyplot.subplots(1, len(PANELS), figsize=(11, 2.8))
    for panel, (name, title, target) in zip(panels, PANELS, strict=True):
        panel.plot(
            [size["apps"] for size in sizes], [size[name] for size in sizes], "o-", color="#1f6feb"
        )
        panel.axhline(target, color="#cf222e", linestyle="--", linewidth=1)
        panel.set_ylim(bottom=0)
        panel.set_title(title, fontsize=9)
        panel.tick_params(labelsize=8, length=2)
        panel.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("apps (dashed: the most that is allowed at 5,000)", fontsize=8)
    figure.tight_layout()
    figure.savefig(sys.argv[2], metadata={"Date": None})


if __name__ == "__main__":
    main()
