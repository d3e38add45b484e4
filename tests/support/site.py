"""`make docs`: the documentation site in build/site, built strictly.

The pages are docs/ and the READMEs next to the code they are about. Here they are laid together: links between them are
rewritten, a file of the tree that is linked but is not a page comes along as it is, and pages that a program knows best
(command line, list of decisions) are made. Zensical then builds and checks the links between pages; links to anchors and
files are checked here first, as GitHub shows the pages too.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from tests.cluster.paths import Paths

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SOURCE = ROOT / "build" / "site-source"
SITE = ROOT / "build" / "site"
# Pages that lie next to what they are about, and their place on the site.
ELSEWHERE = {
    "server/README.md": "server.md",
    "operator/README.md": "operator.md",
    "charts/wsgiapp-operator/README.md": "chart.md",
    "tests/cluster/README.md": "cluster.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
}
LINK = re.compile(r"(?<!!)\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def pages() -> dict[Path, str]:
    """Each page of the tree, with its place on the site."""
    found = {path: path.relative_to(DOCS).as_posix() for path in sorted(DOCS.rglob("*.md"))}
    return found | {ROOT / source: place for source, place in ELSEWHERE.items()}


def links(text: str) -> Iterator[str]:
    """The targets of a page's links and pictures, code left out."""
    for match in LINK.finditer(FENCE.sub("", text)):
        yield match[1] or match[2]


def broken_links(path: Path, text: str) -> Iterator[str]:
    """Links of a page that lead to no file, or to no heading of a page."""
    for target in links(text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        aim = (path.parent / file).resolve() if file else path
        if not aim.exists() or (
            anchor and aim.suffix == ".md" and anchor not in anchors(aim.read_text())
        ):
            yield target


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#{1,6} (.+?)\s*$", FENCE.sub("", text), re.MULTILINE)
    return {slug(heading) for heading in headings}


def slug(heading: str) -> str:
    """GitHub's anchor of a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def move_links(path: Path, text: str, places: dict[Path, str]) -> tuple[str, set[Path]]:
    """The page's text with links as they are on the site, and the files that have to come along."""
    here = Path(places[path]).parent
    files: set[Path] = set()

    def moved(match: re.Match[str]) -> str:
        target = match[1] or match[2]
        if target.startswith("#") or re.match(r"[a-z]+:", target):
            return match[0]
        file, mark, anchor = target.partition("#")
        aim = (path.parent / file).resolve()
        aim = aim / "index.md" if aim == DOCS / "decisions" else aim
        place = places.get(aim) or aim.relative_to(ROOT).as_posix()
        if aim not in places and aim.is_file():
            place = place.removeprefix("docs/")
            files.add(aim)
        elif aim.is_dir():
            return f"`{place}`"
        new = Path(os.path.relpath(place, here)).as_posix() + mark + anchor
        return match[0].replace(f"({target})", f"({new})")

    code = [(match.start(), match.end()) for match in FENCE.finditer(text)]

    def outside_code(match: re.Match[str]) -> str:
        inside = any(begin <= match.start() < end for begin, end in code)
        return match[0] if inside else moved(match)

    return LINK.sub(outside_code, text), files


def decisions() -> str:
    """The page that lists the decisions."""
    rows = ["# Decisions", "", "Context, choice, what was rejected and what would disprove it.", ""]
    for path in sorted((DOCS / "decisions").glob("[0-9]*.md")):
        title = re.sub(r"^\W*\d*[.:]?\s*", "", path.read_text().splitlines()[0])
        rows.append(f"{int(path.name[:4])}. [{title}]({path.name})")
    return "\n".join(rows) + "\n"


def command_lines() -> str:
    """The page with the help of each command."""
    commands = ["prefork", "prefork agent", "prefork status", "prefork reload", "prefork stop"]
    commands += ["wsgiapp", "wsgiapp run", "wsgiapp render", "wsgiapp-operator"]
    parts = ["# Command line", "", "What each command says to `--help`."]
    for command in commands:
        program, *words = command.split()
        environment = os.environ | {"COLUMNS": "100"}
        argv = [str(ROOT / ".venv" / "bin" / program), *words, "--help"]
        said = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment)
        parts += ["", f"## {command}", "", "```text", said.stdout.strip(), "```"]
    return "\n".join(parts) + "\n"


def lay_together() -> None:
    """Write the site's sources."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    places = pages() | {DOCS / "decisions" / "index.md": "decisions/index.md"}
    texts = {path: path.read_text() for path in places if path.exists()}
    for path, place in places.items():
        text, files = move_links(path, texts[path] if path in texts else decisions(), places)
        write(SOURCE / place, text)
        for file in files:
            copy = SOURCE / file.relative_to(ROOT).as_posix().removeprefix("docs/")
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
    write(SOURCE / "cli.md", command_lines())
    shutil.copytree(DOCS / "assets", SOURCE / "assets")


def write(path: Path, text: str) -> None:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def absent_files(site: Path) -> set[str]:
    """What the site's pages load or link to on the site itself and is not there."""
    found = set()
    for page in site.rglob("*.html"):
        for target in re.findall(r'(?:href|src)="?([^"\s>]+)', page.read_text()):
            file = unquote(re.split("[?#]", target)[0])
            if file and not re.match(r"[a-z]+:|/", file) and not (page.parent / file).exists():
                found.add(f"{page.relative_to(site)}: {file}")
    return found


def main() -> int:
    """Check links, build, look for what is missing; 0 when all is well."""
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in [*pages(), ROOT / "README.md"]
        for target in broken_links(path, path.read_text())
    ]
    if broken:
        sys.stderr.write("broken links:\n" + "\n".join(broken) + "\n")
        return 1
    lay_together()
    zensical = Paths.from_environ().cache / "docs" / "bin" / "zensical"
    command = [str(zensical), "build", "--clean", "--strict"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        sys.stderr.write(built.stdout + built.stderr)
        return 1
    if absent := sorted(absent_files(SITE)):
        sys.stderr.write("not on the site:\n" + "\n".join(absent) + "\n")
        return 1
    print(f"  ok {len(list(SITE.rglob('*.html')))} pages in {SITE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
