"""`python -m tests.soak --minutes 30`: everything at once, for long; nothing may be lost, nothing may leak.

One prefork with three workers serves clients of every kind (tests/soak/clients.py) while it is
reloaded, its workers and molds are ended and killed (tests/soak/disturbances.py). Exit code 0:
no request was lost or answered wrongly, nothing grew, the stop was clean. The figures are printed
and, with `--write-docs`, put into docs/soak.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.process.harness import Prefork, write_app
from tests.soak import leaks
from tests.soak.clients import Crowd
from tests.soak.disturbances import WORKERS, Disturber

_ROOT = Path(__file__).resolve().parents[2]
_KEPT_LOG = _ROOT / "build" / "soak" / "server.log"
_OPTIONS = (
    "-w", str(WORKERS), "--threads", "2", "--max-requests", "3000", "--max-requests-jitter", "1000",
    "--graceful-timeout", "60", "--timeout", "30",
)  # fmt: skip
_WARM_UP_S = 20.0
_PROGRESS_S = 60.0
_LOST_SHOWN = 50


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--write-docs", action="store_true", help="write docs/soak.md")
    arguments = parser.parse_args()
    print(f"soak: {arguments.minutes:g} min, seed {arguments.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        folder = Path(name)
        write_app(folder, (Path(__file__).parent / "app.py").read_text())
        with Prefork(*_OPTIONS, cwd=folder) as server:
            figures, faults = soak(server, minutes=arguments.minutes, seed=arguments.seed)
        if faults:
            _KEPT_LOG.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(server.log_path, _KEPT_LOG)
            faults.append(f"the server's log: {_KEPT_LOG}")
    print("\n".join(["", *figures, *(f"FAULT: {fault}" for fault in faults)]))
    if arguments.write_docs and not faults:
        write_page(figures, arguments.minutes)
    return 1 if faults else 0


def soak(server: Prefork, *, minutes: float, seed: int) -> tuple[list[str], list[str]]:
    """Return the figures, and what was wrong."""
    crowd = Crowd(server.port, seed)
    crowd.start()
    disturber = Disturber(server, crowd.findings, seed)
    began = time.monotonic()
    calm, shown = None, began
    faults = []
    try:
        while (elapsed := time.monotonic() - began) < minutes * 60:
            disturber.disturb()
            if calm is None and elapsed > _WARM_UP_S:
                calm = leaks.look(server)
            if time.monotonic() - shown > _PROGRESS_S:
                shown = time.monotonic()
                show_progress(elapsed, crowd, disturber, server)
    except AssertionError as error:
        faults.append(f"after {time.monotonic() - began:.0f} s: {error}")
    crowd.end()
    found = crowd.findings
    after = leaks.look(server)
    faults += leaks.grown(calm or after, after)
    server.signal(signal.SIGTERM)
    code = server.wait_exit(60)
    if code != 0:
        faults.append(f"the server ended with exit code {code}")
    lost = found.lost()
    faults += [f"lost: {f.shown_at} {f.kind}: {f.error}" for f in lost[:_LOST_SHOWN]]
    table = [
        "| what | count |", "| --- | --- |",
        *(f"| {kind} | {count:,} |" for kind, count in sorted(found.answered.items())),
        f"| lost or wrong | {len(lost)} |",
        f"| lost with a worker killed by SIGKILL | {len(found.failures) - len(lost)} |",
        f"| slowest hello, ms | {found.slowest_s * 1000:.0f} |",
        *(f"| {kind} | {count:,} |" for kind, count in sorted(disturber.done.items())),
        *(
            f"| {role}: descriptors, threads, memory at the end | {h.descriptors}, {h.threads}, {h.rss_kib / 1024:.0f} MiB |"
            for role, h in after.items()
        ),
    ]  # fmt: skip
    return table, faults


def show_progress(elapsed: float, crowd: Crowd, disturber: Disturber, server: Prefork) -> None:
    found = crowd.findings
    arbiter = leaks.look(server)[leaks.ARBITER]
    print(
        f"  {elapsed / 60:5.1f} min  {sum(found.answered.values()):,} answered, {len(found.lost())} lost or wrong,"
        f" {sum(disturber.done.values())} disturbances, arbiter {arbiter.rss_kib / 1024:.0f} MiB"
        f" {arbiter.descriptors} descriptors",
        flush=True,
    )


def write_page(figures: list[str], minutes: float) -> None:
    today = datetime.datetime.now(datetime.UTC).date()
    (_ROOT / "docs" / "soak.md").write_text(
        "# Soak\n\nWritten by `make soak`; do not edit it. "
        f"{minutes:g} minutes on {today}, {os.cpu_count()} cores, kernel {platform.release()}, "
        f"Python {platform.python_version()}: `prefork {' '.join(_OPTIONS)} app:app`.\n\n"
        "Clients of every kind, each answer checked, while the server is reloaded (also with code that does\n"
        "not start), and its workers and molds are ended and killed, one disturbance after the other.\n\n"
        + "\n".join(figures) + "\n"
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
