"""The changelog holds every fragment, under its kind, and a section is written once."""

from __future__ import annotations

from tests.support.changelog import insert, read_fragments, render

FRAGMENTS = {
    "1.feature.md": "A new thing,\nin two lines.\n\nAnother one.\n",
    "2.topic.fix.md": "A repaired thing.\n",
    "3.topic.md": "A thing that is different.\n",
}
SECTION = """\
## 1.2.0

### Added

- A new thing,
  in two lines.
- Another one.

### Changed

- A thing that is different.

### Fixed

- A repaired thing.
"""


def test_entries_stand_under_their_kind() -> None:
    assert render("1.2.0", FRAGMENTS) == SECTION


def test_section_comes_first_and_replaces_an_earlier_one_of_its_version() -> None:
    once = insert("", SECTION)
    older = insert("", "## 1.1.0\n\n- Old.\n")
    assert insert(once, SECTION) == once
    both = insert(older, SECTION)
    assert both.index("## 1.2.0") < both.index("## 1.1.0")


def test_every_fragment_of_the_tree_is_in_the_section() -> None:
    fragments = read_fragments()
    text = render("0.1.0", fragments)
    for fragment in fragments.values():
        assert fragment.split()[0] in text
