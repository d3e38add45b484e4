"""CHANGELOG.md from the fragments in changes/.

    python -m tests.support.changelog            # prints the section of the version in the tree
    python -m tests.support.changelog --write    # puts it into CHANGELOG.md, in place of an earlier one for that version

A fragment is `NUMBER[.topic][.kind].md`, each of its paragraphs one entry; the kind is feature, change or fix, and change where
left out. After a release its fragments are removed; the section stays.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
import tomllib
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHANGELOG = ROOT / "CHANGELOG.md"
HEAD = "# Changelog\n\nVersions follow [Semantic Versioning](https://semver.org); 0.x may change what it names as changed.\n"
KINDS = {"feature": "Added", "change": "Changed", "fix": "Fixed"}


def render(version: str, fragments: Mapping[str, str]) -> str:
    """The section of `version`; `fragments` maps file names to texts. Pure."""
    lines = [f"## {version}"]
    for kind, title in KINDS.items():
        texts = [text for name, text in sorted(fragments.items()) if kind_of(name) == kind]
        entries = [entry for text in texts for entry in re.split(r"\n\s*\n", text.strip())]
        if entries:
            lines += ["", f"### {title}", ""]
            lines += [textwrap.indent(entry, "  ").replace("  ", "- ", 1) for entry in entries]
    return "\n".join(lines) + "\n"


def kind_of(name: str) -> str:
    """The kind that a fragment's name says."""
    *_, last = name.removesuffix(".md").split(".")
    return last if last in KINDS else "change"


def insert(changelog: str, section: str) -> str:
    """The changelog with the section first, in place of one with the same title. Pure."""
    title = section.splitlines()[0]
    older = re.split(r"^(?=## )", changelog, flags=re.MULTILINE)[1:]
    kept = [part for part in older if part.splitlines()[0] != title]
    return "\n".join([HEAD, section, *kept]).rstrip() + "\n"


def read_fragments() -> dict[str, str]:
    """The fragments in the tree, by name."""
    return {path.name: path.read_text() for path in (ROOT / "changes").glob("*.md")}


def version() -> str:
    """The version in the tree."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", action="store_true", help="into CHANGELOG.md")
    section = render(version(), read_fragments())
    if parser.parse_args().write:
        old = CHANGELOG.read_text() if CHANGELOG.exists() else ""
        CHANGELOG.write_text(insert(old, section))
    else:
        print(section, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
