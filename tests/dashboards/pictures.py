"""Pictures of the dashboards: recorded data, drawn by Perses' panels in headless Chromium.

Grafana itself comes from no package registry; Perses' panels do, and draw the same series, units, colours and
thresholds. Needs npm and a Chromium (Debian: `apt-get install npm chromium`); says so where one is missing.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.paths import Paths

ROOT = Path(__file__).resolve().parents[2]
WEB = Path(__file__).with_name("web")
DATA = ROOT / "build" / "dashboards" / "recorded.json"
BOARDS = ("wsgiapp-fleet", "wsgiapp-app", "wsgiapp-operator")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SOURCES = ("index.html", "page.jsx", "panels.js", "vite.config.js", "draw.mjs")


class CannotDrawError(Exception):
    """Something to draw with is missing; the message says what to do."""


def find_missing() -> str | None:
    """Return what is needed and is not here, or None."""
    if shutil.which("npm") is None:
        return "npm (Debian: apt-get install npm)"
    if _find_browser() is None:
        return "a Chromium (Debian: apt-get install chromium)"
    return None


def is_quick() -> bool:
    """Whether all is here that drawing takes, so that it is a matter of seconds."""
    site = _site()
    return (
        find_missing() is None and _is_installed(site) and (site / "dist" / "index.html").exists()
    )


def draw(
    data: Path,
    folder: Path,
    *,
    boards: Sequence[str] = BOARDS,
    themes: Sequence[str] = ("light", "dark"),
) -> list[Path]:
    """Draw recorded dashboards into a folder and return the pictures.

    Raises CannotDrawError when a tool or the data is missing, CalledProcessError when drawing fails.
    """
    if missing := find_missing():
        raise CannotDrawError(f"pictures need {missing}")
    if not data.exists():
        raise CannotDrawError(f"{data} is missing; `make dashboards` records it on the cluster")
    program, browser = _build_site() / "draw.mjs", _find_browser()
    assert browser is not None
    done = subprocess.run(
        ["node", program, data, folder, browser, ",".join(boards), ",".join(themes)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return [Path(line) for line in done.stdout.splitlines()]


def _site() -> Path:
    return Paths.from_environ().cache / "dashboards"


def _find_browser() -> str | None:
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def _build_site() -> Path:
    """Return the folder with the built page; installs and builds again only what has changed."""
    site = _site()
    site.mkdir(parents=True, exist_ok=True)
    if not _is_installed(site):
        for name in ("package.json", "package-lock.json"):
            shutil.copy(WEB / name, site / name)
        # Peers: Perses' plugins name editors that the pictures never show.
        subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--legacy-peer-deps", "--ignore-scripts", "--loglevel=error"],
            cwd=site,
            check=True,
        )  # fmt: skip
    for name in SOURCES:
        shutil.copy(WEB / name, site / name)
    subprocess.run(["npx", "vite", "build", "--logLevel=error"], cwd=site, check=True)
    return site


def _is_installed(site: Path) -> bool:
    """Whether npm has installed what the lock names; it leaves the folder's own lock when it is done."""
    lock = site / "package-lock.json"
    wanted = (WEB / "package-lock.json").read_bytes()
    return (site / "node_modules" / ".package-lock.json").exists() and lock.read_bytes() == wanted
