"""A prefork that serves the application under test on loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from tests.conformance.wire import Address, Wire
from tests.support.wait import NotYetError, wait_until

ROOT = Path(__file__).parents[2]
START_S = 180.0
STOP_S = 120.0


class Serving:
    """A running server; `address` is where it listens.

    The listening socket is made here and passed on, so that the port is known and never taken.
    """

    def __init__(self, *arguments: str, is_unix: bool = False) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="prefork-conformance-")
        self.log_path = Path(self._folder.name, "log")
        with self._listen(is_unix) as listener:
            self.address: Address = listener.getsockname()
            command = self._command(listener.fileno(), arguments)
            with self.log_path.open("wb") as log:
                self._process = subprocess.Popen(
                    command, cwd=ROOT, stdout=log, stderr=log, pass_fds=[listener.fileno()]
                )

    def _listen(self, is_unix: bool) -> socket.socket:
        if not is_unix:
            return socket.create_server(("127.0.0.1", 0))
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(f"{self._folder.name}/socket")
        listener.listen()
        return listener

    def _command(self, fd: int, arguments: Sequence[str]) -> list[str]:
        own = ["--bind", f"fd://{fd}", "--run-dir", f"{self._folder.name}/run", "--workers", "1"]
        return [sys.executable, "-m", "prefork", *own, *arguments, "tests.conformance.app:app"]

    def __enter__(self) -> Serving:
        try:
            wait_until(self._is_answering, within_s=START_S, what="the server to answer")
        except BaseException:
            print(self.log_path.read_text())
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            raise
        finally:
            self._folder.cleanup()

    def _is_answering(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError(f"the server ended with {self._process.returncode}")
        try:
            with Wire(self.address) as wire:
                wire.send(b"GET /unread HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                return wire.answer().status == 200
        except OSError as error:
            raise NotYetError(str(error)) from error

    def connect(self) -> Wire:
        """Open a connection."""
        return Wire(self.address)

    def worker(self) -> int:
        """The process that answers."""
        with Wire(self.address) as wire:
            wire.send(b"GET /worker HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            return int(wire.answer().body)

    def log(self) -> str:
        """What the server has written so far."""
        return self.log_path.read_text()
