"""A real prefork in a process of its own, and what a test asks it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from http.client import HTTPConnection
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.background_load import BackgroundLoad
from tests.support.load_report import LoadPlan
from tests.support.wait import UNHURRIED_S, children_of, name_of, process_tree, state_of, wait_until

PREFORK = (sys.executable, "-m", "prefork")

APP = """
    import os, time

    VERSION = "{version}"

    def app(environ, start_response):
        path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
        body = b"hello from %d" % os.getpid()
        if path == "/echo":
            body = environ["wsgi.input"].read()
        elif path == "/slow":
            time.sleep(float(query.partition("=")[2]) / 1000)
        elif path == "/wait":
            while not os.path.exists("go"):
                time.sleep(0.01)
        elif path == "/environ":
            body = environ[query].encode() if query in environ else b"-"
        elif path == "/variable":
            body = os.environ.get(query, "-").encode()
        start_response("200 OK", [("Content-Length", str(len(body))), ("X-App-Version", VERSION)])
        return [body]
"""


def write_app(folder: Path, text: str = APP, *, version: str = "1", name: str = "app.py") -> None:
    """Write an app's module; `{version}` in it is what it answers as X-App-Version."""
    draft = folder / f".{name}.new"
    draft.write_text(textwrap.dedent(text).replace("{version}", version))
    draft.replace(folder / name)


def run_prefork(
    *arguments: str,
    cwd: Path,
    environment: Mapping[str, str] | None = None,
    within_s: float = UNHURRIED_S,
) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself."""
    return subprocess.run(
        [*PREFORK, *arguments],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )


class Prefork:
    """`with Prefork("-w", "2", cwd=folder) as server:` serves `app:app` on a free port."""

    def __init__(
        self,
        *arguments: str,
        cwd: Path,
        app: str = "app:app",
        bind: str = "127.0.0.1:0",
        environment: Mapping[str, str] | None = None,
        wait: bool = True,
        command: tuple[str, ...] = PREFORK,
        pass_fds: tuple[int, ...] = (),
        process_group: int | None = None,
    ) -> None:
        self.cwd = cwd
        self.run_dir = cwd / "run"
        self.log_path = cwd / "server.log"
        self.out_path = cwd / "server.out"
        self.waits = wait
        options = ["--run-dir", str(self.run_dir), *(("-b", bind) if bind else ())]
        # New files: what an earlier server here has left running may still write into its own.
        self.log_path.unlink(missing_ok=True)
        self.out_path.unlink(missing_ok=True)
        with self.log_path.open("wb") as log, self.out_path.open("wb") as out:
            self.process = subprocess.Popen(
                [*command, *options, *arguments, *((app,) if app else ())],
                cwd=cwd,
                env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=log,
                pass_fds=pass_fds,
                process_group=process_group,
            )

    def __enter__(self) -> Prefork:
        if self.waits:
            try:
                self.wait_serving()
            except BaseException:
                self.end()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            print("\n".join(process_tree(self.process.pid)), self.log(), sep="\n")
        self.end()

    def end(self) -> None:
        """Leave no process behind, whatever state the server is in."""
        family = [self.process.pid, *children_of(self.process.pid)]
        for pid in family:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self.process.wait()

    # -- looking ------------------------------------------------------------------------------

    def log(self) -> str:
        # The last character may be there in part.
        return self.log_path.read_text(errors="replace")

    def wait(
        self, condition: Any, within_s: float = UNHURRIED_S, *, what: str = "condition not met"
    ) -> Any:
        """Return the first true value of `condition`; shows processes and log otherwise."""
        return wait_until(condition, within_s, what=what, root_pid=self.process.pid, log=self.log)

    def wait_log(self, pattern: str, within_s: float = UNHURRIED_S) -> re.Match[str]:
        found: re.Match[str] = self.wait(
            lambda: re.search(pattern, self.log()), within_s, what=f"log has no {pattern!r}"
        )
        return found

    def wait_serving(self, within_s: float = 180.0) -> None:
        def is_serving() -> bool:
            # The log after it: a server may serve, and end, between two looks.
            has_ended = self.process.poll() is not None
            serves = "generation active" in self.log()
            assert serves or not has_ended, f"prefork ended\n{self.log()}"
            return serves

        self.wait(is_serving, within_s, what="does not serve")

    @property
    def port(self) -> int:
        return int(self.wait_log(r"listening=\S*?:(\d+)")[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def pids(self, role: str) -> list[int]:
        """Return the pids of arbiter's children by role: mold or worker."""
        return [pid for pid in children_of(self.process.pid) if name_of(pid) == f"prefork-{role}"]

    def workers(self) -> list[int]:
        return self.pids("worker")

    def mold(self) -> int:
        """Return the mold; waits until there is exactly one."""
        pids: list[int] = self.wait(lambda: self.is_single(self.pids("mold")), what="not one mold")
        return pids[0]

    @staticmethod
    def is_single(pids: list[int]) -> list[int]:
        return pids if len(pids) == 1 else []

    def wait_workers(self, count: int, within_s: float = UNHURRIED_S) -> list[int]:
        """Return the workers once there are so many, and no more that leave."""
        found: list[int] = self.wait(
            lambda: pids if len(pids := self.workers()) == count else [],
            within_s,
            what=f"not {count} workers",
        )
        return found

    # -- doing --------------------------------------------------------------------------------

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_exit(self, within_s: float = UNHURRIED_S) -> int:
        """Return the exit code."""
        self.wait(lambda: self.process.poll() is not None, within_s, what="does not end")
        return self.process.returncode

    def get(self, path: str = "/", *, timeout_s: float = UNHURRIED_S) -> tuple[int, str]:
        """Return status and body of a GET on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def version(self) -> str:
        """Return the version of the app that answers."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=UNHURRIED_S)
        try:
            connection.request("GET", "/")
            return connection.getresponse().headers["X-App-Version"]
        finally:
            connection.close()

    def ask(self, question: dict[str, Any], *, timeout_s: float = UNHURRIED_S) -> dict[str, Any]:
        """Return the control socket's answer."""
        return ask(self.run_dir / "control.sock", question, timeout_s=timeout_s)

    def reload(self, id: str = "reload") -> dict[str, Any]:
        return self.ask({"op": "reload", "id": id})


def ask(path: Path, question: dict[str, Any], *, timeout_s: float = UNHURRIED_S) -> dict[str, Any]:
    """Return the answer of one line sent to a control socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(timeout_s)
        # Short names: a unix socket's path ends at 107 bytes.
        here = os.open(path.parent, os.O_PATH)
        try:
            sock.connect(f"/proc/self/fd/{here}/{path.name}")
        finally:
            os.close(here)
        sock.sendall(json.dumps(question).encode() + b"\n")
        with sock.makefile() as lines:
            answer: dict[str, Any] = json.loads(lines.readline())
            return answer


def unhurried_plan(url: str, rate: float, **changes: Any) -> LoadPlan:
    """Return a load that lasts until it is finished, and whose requests do not fail of a busy machine."""
    return LoadPlan(url=url, rate=rate, duration_s=1200, timeout_s=UNHURRIED_S, **changes)


def wait_loaded(load: BackgroundLoad) -> None:
    """Wait until the load has been answered for about a second, however slowly its process started."""

    def is_answered() -> bool:
        latest = load.latest()
        return latest is not None and latest.ok > 0

    wait_until(is_answered, what="the load has no answer")


def wait_loaded_by(load: BackgroundLoad, version: str) -> None:
    """Wait until this version of the app has answered the load: a client that was just not running has seen none."""

    def is_seen() -> bool:
        latest = load.latest()
        return latest is not None and version in latest.versions

    wait_until(is_seen, what=f"version {version} has not answered the load")


def open_files(pid: int) -> dict[int, str]:
    """Return what a process has open, by descriptor; what it opens for a moment may be among it."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            found[int(entry.name)] = os.readlink(entry)
    return found


def most_descriptors(pid: int) -> int:
    """Return the number after the highest descriptor that an arbiter keeps open.

    Not of those by which it reads figures for a moment: on a busy machine such a moment is long.
    """
    kept = [fd for fd, path in open_files(pid).items() if not path.startswith(("/proc/", "/sys/"))]
    return max(kept) + 1


def complete_lines(path: Path) -> list[str]:
    """Return the lines of a file that is being written: not a last one of which a part is there."""
    return path.read_text().rpartition("\n")[0].splitlines()


def is_gone(pid: int) -> bool:
    return state_of(pid) in ("", "Z")
