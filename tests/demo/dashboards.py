"""Pictures of the dashboards of the demo's own minutes: recorded at once, drawn where that takes seconds."""

from __future__ import annotations

from tests.cluster import Cluster
from tests.dashboards import pictures
from tests.dashboards.__main__ import record_last
from tests.demo import manifest
from tests.demo.cluster_part import NAMESPACE
from tests.demo.screen import Screen

_FOLDER = manifest.ROOT / "build" / "demo"
_RECORDED = _FOLDER / "recorded.json"


def show_dashboards(screen: Screen, cluster: Cluster, minutes: float) -> None:
    """Record the last minutes and draw the app's dashboard, or say what does; never fails the demo."""
    _RECORDED.unlink(missing_ok=True)  # of the run before
    try:
        record_last(cluster, f"{NAMESPACE}/{manifest.APP}", minutes, _RECORDED)
        _draw(screen)
    except Exception as error:  # a picture is not a promise of the demo
        screen.say(f"The dashboard was not drawn ({type(error).__name__}: {error})")
        if not _RECORDED.exists():
            return
    # Of what is recorded, not of the minutes before the command is called.
    folder = _FOLDER.relative_to(manifest.ROOT)
    screen.say("All dashboards of this run, light and dark (npm and a Chromium; a minute or two):")
    screen.command(
        f".venv/bin/python -m tests.dashboards --data {folder / _RECORDED.name} --folder {folder}"
    )


def _draw(screen: Screen) -> None:
    if pictures.is_quick():
        drawn = pictures.draw(_RECORDED, _FOLDER, boards=["wsgiapp-app"], themes=["light"])
        screen.say(f"The app's dashboard of this run is {drawn[0].relative_to(manifest.ROOT)}")
