"""The page about the end-to-end tests names each of them."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_every_file_of_promises_is_in_the_table() -> None:
    page = (ROOT / "docs" / "e2e.md").read_text(encoding="utf-8")
    files = {path.name for path in (ROOT / "tests" / "e2e").glob("test_*.py")}
    assert files
    assert {name for name in files if f"`{name}`" not in page} == set()
