"""Load in a process of its own while a test or the demo changes things.

Own process: what the test does meanwhile (kubectl, waiting, parsing) must not delay the client
and show up in its latencies.
"""

from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from tests.support.load_report import LoadPlan, LoadReport

_ROOT = Path(__file__).resolve().parents[2]
_FLAGS = {
    "url": "--url",
    "host": "--host",
    "rate": "--rate",
    "connections": "--connections",
    "duration_s": "--duration",
    "timeout_s": "--timeout",
    "post_share": "--post-share",
    "post_max_bytes": "--post-max-bytes",
    "new_connection_share": "--new-connection-share",
    "slow_share": "--slow-share",
    "slow_ms": "--slow-ms",
    "get_path": "--get-path",
    "seed": "--seed",
}


class BackgroundLoad:
    """`with BackgroundLoad(plan) as load: …; report = load.finish()`.

    The plan's `duration_s` is the most it runs; `finish` ends it earlier. Leaving the block
    without `finish` stops the process and drops the figures.
    """

    def __init__(self, plan: LoadPlan) -> None:
        self._plan = plan
        self._latest: LoadReport | None = None
        self._started_s = time.monotonic()

    def __enter__(self) -> BackgroundLoad:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.load", *_arguments(self._plan), "--progress"],
            cwd=_ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._started_s = time.monotonic()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the process was started."""
        return time.monotonic() - self._started_s

    def latest(self) -> LoadReport | None:
        """Return the newest report, at most about a second old; None in the first second."""
        return self._latest

    def run_until(self, elapsed_s: float) -> None:
        """Wait until the load has run that long in all; RuntimeError when its process ended."""
        left_s = elapsed_s - self.elapsed_s
        if left_s <= 0:
            return
        try:
            code = self._process.wait(left_s)
        except subprocess.TimeoutExpired:
            return
        raise RuntimeError(f"the load client ended by itself with exit code {code}")

    def finish(self) -> LoadReport:
        """End the load, wait for the answers still due, and return the whole report."""
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(self._plan.timeout_s + 10)
        self._reader.join()
        # 0 and 1 mean it came to its end; anything else is a crash of the client itself.
        if code not in (0, 1) or self._latest is None:
            raise RuntimeError(f"the load client ended with exit code {code}")
        return self._latest

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._latest = LoadReport.from_json(line)


def _arguments(plan: LoadPlan) -> list[str]:
    """Return the command line for a plan: every field that differs from its default."""
    arguments: list[str] = []
    for field in dataclasses.fields(LoadPlan):
        value = getattr(plan, field.name)
        if value == field.default or value is None:
            continue
        match field.name:
            case "post_reuse":
                arguments.append("--post-on-new-connections")
            case "expect_version":
                arguments.append("--any-version")
            case "allow_remote":
                arguments.append("--allow-remote")
            case name:
                arguments += [_FLAGS[name], str(value)]
    return arguments if plan.rate else [*arguments, "--closed"]
