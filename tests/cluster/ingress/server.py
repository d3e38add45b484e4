"""Runs nginx and gives it new configurations: checked first, then reloaded, then seen to be in force."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import subprocess
import time
from pathlib import Path

from .render import VERSION_SOCKET

logger = logging.getLogger(__name__)

CONFIG = Path("/tmp/nginx.conf")
NGINX = "/usr/sbin/nginx"
APPLY_TIMEOUT_S = 30


class Nginx:
    """One nginx. `apply` starts it at the first call."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def apply(self, text: str, version: int) -> bool:
        """Put a configuration in force; False, and the old one stays, when nginx refuses it."""
        candidate = CONFIG.with_suffix(".new")
        candidate.write_text(text)
        if self._process is not None and not _is_accepted(candidate):
            return False
        candidate.replace(CONFIG)
        if self._process is None:
            self._process = subprocess.Popen([NGINX, "-c", str(CONFIG)])
        else:
            self._process.send_signal(signal.SIGHUP)
        return self._wait_for(version)

    def _wait_for(self, version: int) -> bool:
        deadline = time.monotonic() + APPLY_TIMEOUT_S
        while time.monotonic() < deadline and self.is_alive():
            if running_version() == version:
                return True
            time.sleep(0.01)
        logger.error("nginx does not run configuration %d", version)
        return False

    def is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> int:
        """Finish the requests in flight, then end; returns nginx's exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGQUIT)
        return self._process.wait()


def _is_accepted(file: Path) -> bool:
    check = subprocess.run(
        [NGINX, "-t", "-q", "-c", str(file)], capture_output=True, text=True, check=False
    )
    if check.returncode != 0:
        logger.error("nginx refuses the new configuration and keeps the old one: %s", check.stderr)
    return check.returncode == 0


def running_version() -> int | None:
    """The version of the configuration that answers now; None when nothing does."""
    with contextlib.suppress(OSError, ValueError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1)
        client.connect(VERSION_SOCKET)
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b""
        while chunk := client.recv(4096):
            answer += chunk
        return int(answer.rpartition(b"\r\n\r\n")[2])
    return None
