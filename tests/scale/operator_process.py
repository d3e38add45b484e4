"""The operator as a process of its own, and what it costs."""

from __future__ import annotations

import re
import subprocess
import sys
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.scale.control_plane import Credentials, cpu_s

LISTEN = "127.0.0.1:28080"


class Memory(NamedTuple):
    """Resident memory in MiB: now, and at its highest."""

    now: float
    highest: float


class Operator:
    """`with Operator(credentials, log) as operator:`; stopped by SIGTERM at the end."""

    def __init__(self, credentials: Credentials, log: Path) -> None:
        self._credentials = credentials
        self._log = log

    def __enter__(self) -> Self:
        environ = {
            "PATH": "/usr/bin:/bin",
            "HOME": "/nonexistent",
            "KUBECONFIG": str(self._credentials.kubeconfig),
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "wsgiapp_operator", "--prefork-delivery=image", f"--listen={LISTEN}"],
                env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def pid(self) -> int:
        return self._process.pid

    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    def memory(self) -> Memory:
        text = Path(f"/proc/{self.pid}/status").read_text()
        now, highest = (
            int(match[1]) / 1024
            for name in ("VmRSS", "VmHWM")
            if (match := re.search(rf"{name}:\s+(\d+)", text))
        )
        return Memory(now, highest)

    def metrics(self) -> dict[str, float]:
        """Return the operator's own figures by series, but for those of single apps."""
        with urllib.request.urlopen(f"http://{LISTEN}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return {
            name: float(value)
            for line in lines
            if line.startswith("wsgiapp_operator_")
            for name, _, value in [line.rpartition(" ")]
        }

    def writes(self) -> float:
        """Return how many writes it has made: owned resources and statuses."""
        return sum(
            value
            for name, value in self.metrics().items()
            if name == "wsgiapp_operator_status_writes_total"
            or (name.startswith("wsgiapp_operator_applies_total") and 'changed="false"' not in name)
        )
