"""User instructions per request, counted by callgrind: the figure no busy neighbour can change.

The server runs under callgrind once. After a warm-up it answers N1 and then N2 requests of each
kind on the same number of kept-alive connections as elsewhere; the difference of the two counts,
over N2 - N1, is the cost of one request: start-up, connections and dump cancel out. All processes
of the server count, but for one that only supervises: its periodic work goes by time, and under
callgrind a request takes long.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.bench.load import BARE_HEAD, BROWSER_HEAD, LoadError, LoadGenerator
from tests.bench.peers import Server
from tests.bench.running import Running, ServerError, running

_HEADS = {"bare": BARE_HEAD, "browser": BROWSER_HEAD}
_WARM_UP = 160
N1, N2 = 160, 640
_START_S, _PHASE_S, _DUMP_S = 90, 60, 15


def count_instructions(
    servers: Sequence[Server],
    *,
    generator: LoadGenerator,
    logs: Path,
    say: Callable[[str], None],
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Return server → case → instructions per request, and why a server has none."""
    counts: dict[str, dict[str, float]] = {}
    failed: dict[str, str] = {}
    for server in servers:
        say(f"instructions: {server.name}")
        try:
            counts[server.name] = _count(server, generator, logs)
        except (ServerError, LoadError) as error:
            failed[server.name] = f"under valgrind: {error}"
    return counts, failed


def _count(server: Server, generator: LoadGenerator, logs: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="bench-callgrind-") as name:
        directory = Path(name)
        prefix = (
            "valgrind",
            "--tool=callgrind",
            "--trace-children=yes",
            f"--callgrind-out-file={directory}/out.%p",
            f"--log-file={directory}/log.%p",
        )
        with running(
            server, app="hello:app", logs=logs, prefix=prefix, within_s=_START_S
        ) as started:
            counter = _Counter(started, directory, generator)
            return {case: counter.per_request(head) for case, head in _HEADS.items()}


class _Counter:
    """Instructions that a running server spends on so many requests."""

    def __init__(self, started: Running, directory: Path, generator: LoadGenerator) -> None:
        self._started = started
        self._directory = directory
        self._generator = generator
        self._seen: set[Path] = set()

    def per_request(self, head: bytes) -> float:
        self._after(_WARM_UP, head)
        fewer = self._after(N1, head)
        more = self._after(N2, head)
        return (more - fewer) / (N2 - N1)

    def _after(self, requests: int, head: bytes) -> int:
        load = self._generator.put(
            self._started.port, head=head, requests=requests, seconds=_PHASE_S
        )
        if load.requests != requests:
            raise LoadError(f"{load.requests} of {requests} answers came within {_PHASE_S} s")
        return self._dump()

    def _serving_pids(self) -> list[int]:
        supervisor, *others = self._started.pids()
        return others if self._started.server.is_supervised else [supervisor, *others]

    def _dump(self) -> int:
        """Instructions of all processes since the last dump."""
        for pid in self._serving_pids():
            self._dump_process(pid)
        new = {path for path in self._directory.glob("out.*.*") if path not in self._seen}
        self._seen |= new
        if not new:
            raise LoadError("callgrind wrote no counts")
        return sum(_total(path) for path in new)

    def _dump_process(self, pid: int) -> None:
        command = ["timeout", str(_DUMP_S), "callgrind_control", "-d", str(pid)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        # A process that ended meanwhile has nothing to tell; asking it hangs.
        if done.returncode != 0 and pid in self._started.pids():
            raise LoadError(
                f"callgrind_control -d {pid} ended with {done.returncode}: {done.stderr}"
            )


def _total(dump: Path) -> int:
    found = re.search(r"^totals: (\d+)", dump.read_text(), re.MULTILINE)
    if found is None:
        raise LoadError(f"{dump.name} holds no total")
    return int(found[1])
