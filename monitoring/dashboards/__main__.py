"""Writes the dashboards' JSON beside the code that makes them."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from monitoring.dashboards import app, fleet, operator

FOLDER = Path(__file__).parent


def generated() -> dict[Path, str]:
    """Return path → text of each dashboard."""
    boards = [made.build() for made in (fleet.build(), app.build(), operator.build())]
    for board in boards:
        # From 1 on, as Grafana does itself; without, it numbers them anew at each load.
        for number, panel in enumerate(board.panels or (), start=1):
            panel.id_val = number
    return {
        FOLDER / f"{board.uid}.json": json.dumps(board, cls=JSONEncoder, indent=2, sort_keys=True)
        + "\n"
        for board in boards
    }


def main() -> None:
    for path, text in generated().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
