"""`python -m tests.dashboards`: draws what the end-to-end test of the dashboards recorded, into docs/img.

With `--of NAMESPACE/APP` it records the last minutes of that app on the running cluster first.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

from tests.cluster import Cluster
from tests.dashboards import recording
from tests.dashboards.pictures import DATA, ROOT, CannotDrawError, draw
from tests.dashboards.scenario import Span

IMAGES = ROOT / "docs" / "img"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--data", type=Path, default=DATA, help="recorded data (default: %(default)s)"
    )
    parser.add_argument(
        "--folder", type=Path, default=IMAGES, help="where pictures go (default: %(default)s)"
    )
    parser.add_argument("--of", metavar="NAMESPACE/APP", help="record this app first, now")
    parser.add_argument(
        "--minutes", type=float, default=5, help="how much to record (default: %(default)s)"
    )
    chosen = parser.parse_args()
    try:
        if chosen.of:
            record_last(Cluster.from_env(), chosen.of, chosen.minutes, chosen.data)
        for path in draw(chosen.data, chosen.folder):
            print(path)
    except (CannotDrawError, subprocess.CalledProcessError) as error:
        sys.exit(f"dashboards: {error}")


def record_last(cluster: Cluster, app: str, minutes: float, data: Path) -> None:
    """Record the last minutes of an app, `NAMESPACE/NAME`, into a file."""
    namespace, _, name = app.partition("/")
    span = Span(time.time() - minutes * 60, time.time())
    recording.save(recording.record(cluster, span, namespace=namespace, app=name), data)


if __name__ == "__main__":
    main()
