"""The prefork process of `wsgiapp run`: start, wait, reload, restart, stop.

Reached by its command line, signals and control socket alone (docs/contracts.md, section 4); this
package never imports the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import secrets
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL_S = 0.05
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class Launch:
    """What makes one server process; two equal ones need no restart."""

    arguments: tuple[str, ...]  # of prefork, the app last
    environment: Mapping[str, str]
    directory: Path


@dataclass(frozen=True)
class Reloaded:
    """The answer to a reload: `message` is the traceback's last line of one that failed."""

    succeeded: bool
    generation: int
    message: str


class ServerExitedError(Exception):
    """The server ended by itself; `code` is its exit code (negative: the signal)."""

    def __init__(self, code: int) -> None:
        super().__init__(f"the server ended with exit code {code}")
        self.code = code


class LocalServer:
    """One running prefork. `start` it, then `wait_serving`."""

    def __init__(self, process: asyncio.subprocess.Process, *, control: Path) -> None:
        self._process = process
        self._control = control

    @classmethod
    async def start(cls, launch: Launch, *, run_dir: Path, listener: socket.socket) -> LocalServer:
        """Start the process; it dies with this one, even when this one is killed."""
        return cls(await _spawn(launch, listener=listener), control=run_dir / "control.sock")

    async def wait_serving(self) -> None:
        """Wait until all workers of the first generation serve.

        Raises ServerExitedError when the server ends instead.
        """
        while True:
            status = await self._status()
            if status and status["state"] == "serving":
                workers = status["workers"]
                if workers["ready"] >= workers["desired"]:
                    return
            with contextlib.suppress(TimeoutError):
                raise ServerExitedError(await asyncio.wait_for(self._process.wait(), POLL_S))

    async def _status(self) -> dict[str, Any] | None:
        try:
            return await self._ask({"op": "status"})
        except (OSError, EOFError):  # not listening yet, or just gone: its exit tells
            return None

    async def find_versions_in_use(self) -> dict[str, set[str]]:
        """Return the digests that generations of the server have loaded, by content."""
        in_use: dict[str, set[str]] = {}
        for generation in (await self._ask({"op": "status"}))["generations"]:
            for name, digest in generation["content"].items():
                in_use.setdefault(name, set()).add(digest)
        return in_use

    async def reload(self, content: Mapping[str, str]) -> Reloaded:
        """Boot a new generation of this content (digests by name); return when it serves, or was given up."""
        answer = await self._ask({"op": "reload", "id": secrets.token_hex(8), "content": content})
        return Reloaded(
            succeeded=answer["result"] == "succeeded",
            generation=answer["generation"],
            message=answer["message"],
        )

    async def _ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        reader, writer = await asyncio.open_unix_connection(self._control, limit=1 << 20)
        try:
            writer.write(json.dumps(question).encode() + b"\n")
            line = await reader.readline()
        finally:
            writer.close()
        if not line:
            raise EOFError("the control socket closed without an answer")
        answer: dict[str, Any] = json.loads(line)
        return answer

    async def wait_exit(self) -> int:
        """Return the exit code when the server ends."""
        return await self._process.wait()

    async def stop(self) -> int:
        """Answer what is in flight, then end; return the exit code."""
        self._send(signal.SIGTERM)
        return await self._process.wait()

    def stop_now(self) -> None:
        """End without waiting for what is in flight."""
        self._send(signal.SIGINT)

    def _send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


async def check(launch: Launch, *, listener: socket.socket) -> bool:
    """Return whether prefork accepts the options and can import the app; it says why not."""
    process = await _spawn(launch, "--check-config", listener=listener)
    return await process.wait() == 0


async def _spawn(
    launch: Launch, *first: str, listener: socket.socket
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        # -P: no file of the app comes before the server's own imports; the server adds its folder.
        *(sys.executable, "-P", "-m", "prefork", *first, *launch.arguments),
        cwd=launch.directory,
        env=launch.environment,
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=(listener.fileno(),),
        # An own group: Ctrl-C reaches `wsgiapp run` alone, which then stops the server softly.
        process_group=0,
        preexec_fn=_die_with_parent,
    )


def _die_with_parent() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
