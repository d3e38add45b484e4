"""The table of figures sums what it should and is valid Markdown."""

from __future__ import annotations

import json
from pathlib import Path

from tests.e2e.figures import Case, to_table, write
from tests.support.load_report import LoadReport, Tally


def _report(*, ok: int, failed: int) -> LoadReport:
    tally = Tally()
    tally.sent = ok + failed
    for number in range(ok):
        tally.add_ok(number, number + 0.010)
    for number in range(failed):
        tally.add_failed(number, number + 0.5, reason="reset", detail="GET /")
    return tally.report(started_at=0.0, elapsed_s=20.0)


def test_table_has_a_row_for_each_case_and_their_sum() -> None:
    cases = [Case("reload", _report(ok=3, failed=1)), Case("scale", _report(ok=5, failed=0))]
    lines = to_table(cases).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][:4] == ["case", "seconds", "requests", "failed"]
    assert cells[2] == ["reload", "20", "4", "1", "0", "0", "10.0", "500.0", "500.0"]
    assert cells[-1][:4] == ["all", "40", "9", "1"]
    assert cells[-1][-1] == "500.0"
    assert len({len(line) for line in lines}) == 1


def test_files_hold_the_whole_reports(tmp_path: Path) -> None:
    write([Case("reload", _report(ok=2, failed=1))], tmp_path)
    (case,) = json.loads((tmp_path / "figures.json").read_text())
    assert case["case"] == "reload"
    assert case["reasons"] == {"failed: reset": 1}
    assert "| reload" in (tmp_path / "figures.md").read_text()
