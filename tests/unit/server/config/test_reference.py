"""The reference page is generated from the table."""

from pathlib import Path

from prefork.config.reference import render

DOCS = Path(__file__).parents[4] / "docs" / "options.md"


def test_reference_is_up_to_date():
    assert DOCS.read_text() == render(), "docs/options.md is stale: run `make generate`"
