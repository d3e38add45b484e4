"""No page leads nowhere, and from the README every page is reached."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.support.site import DOCS, ROOT, absent_files, broken_links, links, pages

PAGES = [ROOT / "README.md", *pages()]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_files_and_headings(page: Path) -> None:
    assert list(broken_links(page, page.read_text())) == []


def test_a_link_to_nothing_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    text = "# A title\n\n[a](#a-title) [b](#no-title) [c](page.md#a-title) [d](gone.md) ![e](gone.svg)\n"
    page.write_text(text)
    assert list(broken_links(page, text)) == ["#no-title", "gone.md", "gone.svg"]


def test_every_page_is_reached_from_the_readme() -> None:
    reached, todo = set[Path](), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        for link in links(page.read_text()):
            aim = (page.parent / link.partition("#")[0]).resolve()
            found = list(aim.glob("*.md")) if aim.is_dir() else [aim]
            new = {path for path in found if path.suffix == ".md" and path.is_file()} - reached
            reached |= new
            todo += new
    assert {path.relative_to(ROOT).as_posix() for path in set(pages()) - reached} == set()


def test_navigation_of_the_site_names_pages_that_there_are() -> None:
    text = (ROOT / "zensical.toml").read_text()
    assert tomllib.loads(text)["project"]["site_name"]
    named = set(re.findall(r'"([\w/-]+\.md)"', text))
    assert named - {"cli.md", "decisions/index.md"} - set(pages().values()) == set()


def test_each_picture_of_a_diagram_has_its_source() -> None:
    for source in (DOCS / "img").glob("*.mmd"):
        assert source.with_suffix(".svg").exists()


@pytest.mark.parametrize("page", ["comparison.md", "operations/security.md"])
def test_what_is_said_to_show_a_claim_exists(page: str) -> None:
    shown = re.findall(
        r"`((?:tests|server|operator)/[\w/.-]+|\.github/[\w/.-]+)`", (DOCS / page).read_text()
    )
    assert shown
    assert [path for path in shown if not (ROOT / path).exists()] == []


def test_what_a_page_of_the_site_loads_and_is_not_there_is_found(tmp_path: Path) -> None:
    (tmp_path / "there.css").touch()
    (tmp_path / "page.html").write_text(
        '<link href="./there.css"><link href="assets/site.css?v=1"><a href="#top">'
        "<a href=https://example.com/x><a href=/from-the-root><img src=img/a%20b.png>"
    )
    assert absent_files(tmp_path) == {"page.html: assets/site.css", "page.html: img/a b.png"}
