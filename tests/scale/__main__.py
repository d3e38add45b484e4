"""`python -m tests.scale --apps 100,500`: what the operator costs as the number of apps grows."""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import platform
import signal
import subprocess
import sys

from tests.bench.peers import PYTHON as PLOTTING_PYTHON
from tests.cluster import golang, packages
from tests.cluster.commands import ClusterError
from tests.cluster.paths import TREE, Paths
from tests.scale.campaign import Plan, describe, run_size
from tests.scale.page import build_page

RESULTS = TREE / "build" / "scale"
DOCS = TREE / "docs"
SHORT_REST_S = 60.0  # of all sizes but the largest


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.scale", description=__doc__)
    parser.add_argument("--apps", default="100,500,1000,2000,5000", help="sizes, comma separated")
    parser.add_argument("--rest-s", type=float, default=600.0, help="how long the largest rests")
    parser.add_argument("--changes", type=int, default=600, help="changes, ten a second")
    parser.add_argument("--unready-share", type=float, default=0.2, help="further apps, not ready")
    parser.add_argument("--write-docs", action="store_true", help="write docs/scale.md")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the control plane goes too
    paths = Paths.from_environ()
    RESULTS.mkdir(parents=True, exist_ok=True)
    sizes = sorted(map(int, arguments.apps.split(",")))
    measured: list[dict[str, float]] = []
    try:
        packages.install_kubectl_and_helm(paths)
        golang.build((golang.PROGRAMS[0], golang.KWOK), paths)
        for size in sizes:
            plan = Plan(
                apps=size,
                unready=round(size * arguments.unready_share),
                rest_s=arguments.rest_s
                if size == sizes[-1]
                else min(SHORT_REST_S, arguments.rest_s),
                changes=min(
                    arguments.changes, size
                ),  # each app once: a second change would hide the first
            )
            figures = asyncio.run(run_size(plan, paths, RESULTS / f"operator-{size}.log"))
            measured.append(figures.to_json())
            print(describe(measured[-1]), flush=True)
            (RESULTS / "figures.json").write_text(json.dumps(measured, indent=2) + "\n")
    except (ClusterError, TimeoutError) as error:
        print(f"scale: {error!r}", file=sys.stderr)
        return 1
    if arguments.write_docs:
        write_docs(measured)
    return 0


def write_docs(measured: list[dict[str, float]]) -> None:
    machine = (
        f"{os.cpu_count()} cores, kernel {platform.release()}, Python {platform.python_version()}"
    )
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    (DOCS / "scale.md").write_text(build_page(measured, machine=machine, date=today))
    chart = [PLOTTING_PYTHON, "-m", "tests.scale.chart", RESULTS / "figures.json"]
    subprocess.run([*chart, DOCS / "img" / "scale.svg"], check=True, cwd=TREE)


if __name__ == "__main__":
    sys.exit(main())
