"""A picture of the app's dashboard of the demo's own minutes, where it takes seconds; else the command for it."""

from __future__ import annotations

from tests.cluster import Cluster
from tests.dashboards import pictures
from tests.dashboards.__main__ import record_last
from tests.demo import manifest
from tests.demo.cluster_part import NAMESPACE
from tests.demo.screen import Screen

_FOLDER = manifest.ROOT / "build" / "demo"


def show_dashboards(screen: Screen, cluster: Cluster, minutes: float) -> None:
    """Draw the dashboard of the last minutes, or say what does; never fails the demo."""
    app, folder = f"{NAMESPACE}/{manifest.APP}", _FOLDER.relative_to(manifest.ROOT)
    recorded = _FOLDER / "recorded.json"
    if not pictures.is_quick():
        screen.say(
            "The dashboards of this run, drawn in a minute or two (with npm and a Chromium):"
        )
    else:
        try:
            record_last(cluster, app, minutes, recorded)
            drawn = pictures.draw(recorded, _FOLDER, boards=["wsgiapp-app"], themes=["light"])
        except Exception as error:  # a picture is not a promise of the demo
            screen.say(
                f"The dashboard was not drawn ({type(error).__name__}: {error}). Again, with all:"
            )
        else:
            screen.say(
                f"The app's dashboard of this run is {drawn[0].relative_to(manifest.ROOT)}; all of them:"
            )
    screen.command(
        f".venv/bin/python -m tests.dashboards --of {app} --minutes {minutes:.0f} "
        f"--folder {folder} --data {folder / 'recorded.json'}"
    )
