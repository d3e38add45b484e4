"""What happens to the server during the soak, one thing after the other, each awaited to its end."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.process.harness import Prefork, is_gone, write_app
from tests.soak.clients import Findings

WORKERS = 3
_SOURCE = (Path(__file__).parent / "app.py").read_text()
_END_S = 90.0  # a leaving worker may have to wait for the slowest clients


class Disturber:
    """Draws the next disturbance and carries it out."""

    def __init__(self, server: Prefork, findings: Findings, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self._server = server
        self._findings = findings
        self._random = random.Random(seed)
        self._version = 1
        self._kinds: list[Callable[[], None]] = [
            self.reload, self.reload, self.fail_to_reload, self.reload_twice_at_once, self.term_worker,
            self.kill_worker, self.kill_mold, self.more_then_fewer_workers,
        ]  # fmt: skip

    def disturb(self) -> None:
        """One disturbance, and back to rest."""
        kind = self._random.choice(self._kinds)
        kind()
        self.done[kind.__name__.replace("_", " ")] += 1
        self._server.wait_workers(WORKERS, _END_S)
        self._server.mold()

    def reload(self) -> None:
        self._write(works=True)
        assert self._server.reload(f"soak-{self._version}")["result"] == "succeeded"
        assert self._server.version() == str(self._version)

    def fail_to_reload(self) -> None:
        before = self._server.version()
        self._write(works=False)
        answer = self._server.reload(f"soak-{self._version}")
        assert answer["result"] == "failed", answer
        assert self._server.version() == before
        self._write(works=True)  # what a replaced mold imports
        assert self._server.reload(f"soak-{self._version}")["result"] == "succeeded"

    def reload_twice_at_once(self) -> None:
        self._server.signal(signal.SIGHUP)
        self.reload()

    def term_worker(self) -> None:
        self._end_worker(signal.SIGTERM)

    def kill_worker(self) -> None:
        began = time.monotonic()
        self._end_worker(signal.SIGKILL)
        self._findings.kills.append((began, time.monotonic()))

    def kill_mold(self) -> None:
        mold = self._server.mold()
        os.kill(mold, signal.SIGKILL)
        self._server.wait(lambda: is_gone(mold), _END_S, what="the killed mold is still there")

    def more_then_fewer_workers(self) -> None:
        self._server.signal(signal.SIGTTIN)
        self._server.wait_workers(WORKERS + 1, _END_S)
        self._server.signal(signal.SIGTTOU)

    def _end_worker(self, number: signal.Signals) -> None:
        worker = self._random.choice(self._server.workers())
        os.kill(worker, number)
        # Until it is reaped: while one of its threads still ends, it looks like a zombie and holds its sockets.
        self._server.wait(
            lambda: not Path(f"/proc/{worker}").exists(),
            _END_S,
            what=f"worker {worker} is still there",
        )

    def _write(self, *, works: bool) -> None:
        self._version += 1
        text = _SOURCE if works else _SOURCE + "\nraise RuntimeError('broken on purpose')\n"
        write_app(self._server.cwd, text, version=str(self._version))
