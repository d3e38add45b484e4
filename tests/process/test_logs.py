"""What the server logs: one format a stream, whole records, and a reader that stops holds nobody up."""

import fcntl
import json
import os
import re
import resource
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prefork.errors import Exit

from tests.process.harness import PREFORK, Prefork, write_app
from tests.support.ports import reserve_port
from tests.support.wait import UNHURRIED_S, stat_fields, wait_until


class Pipe:
    """A named pipe whose reader may rest."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        self.text = bytearray()
        self._ended = threading.Event()

    def fill(self) -> None:
        """Leave no room for another byte."""
        for size in (4096, 1):
            with_room = True
            while with_room:
                try:
                    os.write(self.writer, b"\n" * size)
                except BlockingIOError:
                    with_room = False

    def read_on(self, step: int = 1 << 16, pause_s: float = 0.001) -> None:
        def read() -> None:
            while not self._ended.is_set():
                with suppress(BlockingIOError):
                    self.text += os.read(self.reader, step)
                self._ended.wait(pause_s)

        threading.Thread(target=read, daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        os.close(self.writer)


class PipedPrefork(Prefork):
    """Its log goes to a pipe, so it says nowhere else that it serves."""

    pipe: Pipe
    fixed_port: int

    @property
    def port(self) -> int:
        return self.fixed_port

    def wait_version(self, version: str) -> None:
        """Wait until this version of the app answers."""

        def is_served() -> bool:
            try:
                return self.version() == version
            except OSError:
                return False

        self.wait(is_served, 60, what=f"version {version} is not served")

    def log(self) -> str:
        return self.pipe.text.decode() + self.log_path.read_text()


@contextmanager
def on_pipe(folder: Path, *options: str) -> Iterator[PipedPrefork]:
    pipe, port = Pipe(folder / "errors"), reserve_port()
    server = PipedPrefork(
        "--log-file",
        str(folder / "errors"),
        *options,
        cwd=folder,
        wait=False,
        bind=f"127.0.0.1:{port}",
    )
    server.pipe, server.fixed_port = pipe, port
    try:
        with server:
            server.wait_version("1")
            yield server
    finally:
        pipe.close()


def test_log_pipe_that_nobody_reads_holds_up_no_supervision(folder: Path) -> None:
    """Reload, replacement of a killed worker and stop go on; what is lost is reported when the pipe drains."""
    (folder / "prefork.conf.py").write_text(
        "def on_reload(server):\n    for _ in range(3):\n        server.log.info('y' * 40_000)\n"
    )
    with on_pipe(folder, "-w", "2") as server:
        server.pipe.fill()
        write_app(folder, version="2")
        server.signal(signal.SIGHUP)
        server.wait_version("2")
        killed = server.wait_workers(2)[0]  # none that is about to leave
        os.kill(killed, signal.SIGKILL)
        wait_until(
            lambda: len(server.workers()) == 2 and killed not in server.workers(),
            what="no replacement", root_pid=server.process.pid,
        )  # fmt: skip
        server.pipe.read_on()
        # Other processes may have lost some of their own.
        lost = r"WARNING +log lines were lost\S* .*"
        server.wait_log(rf"{lost}pid={server.process.pid} lines=[1-9]")
        server.wait_log("worker exited")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


def test_stop_goes_on_while_nobody_reads_the_log(folder: Path) -> None:
    with on_pipe(folder) as server:
        server.pipe.fill()
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


RAISING = """
    import sys

    def deep(n, path):
        if n:
            return deep(n - 1, path)
        raise ValueError("m" * 20_000 + f" end of {path}")

    def app(environ, start_response):
        if environ["PATH_INFO"].startswith("/boom"):
            deep(2, environ["PATH_INFO"])
        start_response("200 OK", [("X-App-Version", "1")])
        return [b""]
"""


@pytest.mark.parametrize("style", ["text", "json", "json and requests"])
def test_long_tracebacks_of_many_workers_on_one_pipe_are_whole(folder: Path, style: str) -> None:
    """A pipe takes 4096 bytes in one go; the lines of one traceback were mixed with those of another."""
    write_app(folder, RAISING)
    options = ["-w", "3", "--threads", "2", "--log-format", style.partition(" ")[0]]
    if style == "json and requests":
        options += ["--access-logfile", str(folder / "errors")]
    with on_pipe(folder, *options) as server:
        fcntl.fcntl(server.pipe.reader, 1031, 4096)  # F_SETPIPE_SZ: one page
        server.pipe.read_on(step=3000, pause_s=0.0005)

        def ask(number: int) -> None:
            for turn in range(15):
                assert server.get(f"/boom/{number}/{turn}")[0] == 500

        clients = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        server.wait_log(r"prefork exited.*\n")
        text = server.log()
    assert "log lines were lost" not in text
    if style != "text":
        records = [json.loads(line) for line in text.splitlines()]
        found = [r["traceback"] for r in records if r.get("message") == "error while answering"]
        if style == "json and requests":
            assert sum(r.get("status") == 500 for r in records) == 90
    else:
        found = re.findall(r"error while answering .*\n((?:  .*\n)+)", text)
    assert sorted(re.findall(r"m end of (\S+)", "".join(found))) == sorted(
        f"/boom/{number}/{turn}" for number in range(6) for turn in range(15)
    )
    assert all(re.search(r"ValueError: m{20000} end of \S+\s*$", trace) for trace in found)


BORROWING = """
    import logging, sys

    theirs = logging.getLogger("gunicorn.error")
    ours = logging.getLogger("shop")
    ours.handlers = theirs.handlers
    ours.setLevel(theirs.level)
    logging.getLogger("gunicorn.access").info("by the app itself")

    def app(environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/log":
            ours.debug("not heard")
            ours.info("order %s", 7)
            try:
                1 / 0
            except ZeroDivisionError:
                ours.exception("cannot\\nship")
        elif path == "/print":
            print("paid", 12)
            print("to the errors", file=environ["wsgi.errors"])
            sys.stderr.write('{"own": "json"}\\n')
        elif path == "/boom":
            raise RuntimeError("boom")
        start_response("200 OK", [("X-App-Version", "1")])
        return [b""]
"""


def test_apps_that_borrow_gunicorns_loggers_are_heard(folder: Path) -> None:
    write_app(folder, BORROWING)
    with Prefork(cwd=folder) as server:
        assert server.get("/log")[0] == 200
        server.wait_log(r"Z INFO     order 7 logger=shop pid=\d+\n")
        server.wait_log(
            r"Z ERROR    cannot logger=shop pid=\d+\n  ship\n  Traceback (.*\n)+?  ZeroDivisionError"
        )
        server.wait_log(r"Z INFO     by the app itself logger=gunicorn.access")
        assert "not heard" not in server.log()


def test_with_log_format_json_every_line_is_an_object(folder: Path) -> None:
    """The server's, the agent's, the app's tracebacks, what it logs and what it prints."""
    write_app(folder, BORROWING)
    (folder / "prefork.conf.py").write_text("def when_ready(server):\n    print('ready now')\n")
    options = (
        "-w",
        "2",
        "--log-format=json",
        "--access-logfile=-",
        f"--metrics=127.0.0.1:{reserve_port()}",
    )
    with Prefork(*options, cwd=folder, wait=False) as server:
        server.wait_log('"generation active"')
        port = int(server.wait_log(r'"listening":"127.0.0.1:(\d+)"')[1])
        server.wait_log('"agent listening"')
        for path in ("/log", "/print", "/boom"):
            connection = HTTPConnection("127.0.0.1", port, timeout=UNHURRIED_S)
            connection.request("GET", path)
            assert connection.getresponse().status == (500 if path == "/boom" else 200)
            connection.close()
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        errors = [json.loads(line) for line in server.log().splitlines()]
        out = [json.loads(line) for line in server.out_path.read_text().splitlines()]
    by_message = {record.get("message"): record for record in errors}
    assert by_message["prefork starting"]["level"] == "info"
    assert by_message["prefork starting"]["workers"] == 2
    assert by_message["order 7"]["logger"] == "shop"
    assert "ZeroDivisionError" in by_message["cannot\nship"]["traceback"]
    boom = by_message["error while answering"]
    assert (boom["level"], boom["method"], boom["target"]) == ("error", "GET", "/boom")
    assert boom["traceback"].rstrip().endswith("RuntimeError: boom")
    assert by_message["to the errors"]["stream"] == "stderr"
    assert {"own": "json"} in errors
    assert {"ready now", "paid 12"} <= {record.get("message") for record in out}


def limit_files(server: Prefork, size: int) -> None:
    """Let no process of the server write a file beyond this size: stands for a full disk."""
    for pid in (server.process.pid, *server.workers(), server.mold()):
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def test_full_disk_costs_log_lines_that_are_reported_and_no_request(folder: Path):
    write_app(folder, "def app(environ, start_response): raise ValueError('seen')")
    with Prefork("-w", "2", cwd=folder) as server:
        limit_files(server, server.log_path.stat().st_size + 30)
        for _ in range(20):
            assert server.get()[0] == 500
        limit_files(server, resource.RLIM_INFINITY)
        for _ in range(20):
            assert server.get()[0] == 500

        def reported() -> int:
            return sum(map(int, re.findall(r"^\S+Z WARNING +log lines were lost: .* lines=(\d+)$", server.log(), re.M)))  # fmt: skip

        asked = 40

        def are_all_there() -> bool:
            """Each worker reports its own with its next line. 30 bytes of one line are there."""
            nonlocal asked
            assert server.get()[0] == 500
            asked += 1
            return reported() > 0 and reported() + server.log().count("ValueError: seen") == asked

        server.wait(are_all_there)
        whole = re.compile(r"\S+Z [A-Z]+ +\S.*|  .*|")
        cut = [line for line in server.log().splitlines() if not whole.fullmatch(line)]
        assert all(len(line) <= 30 for line in cut), cut


def test_full_disk_costs_access_log_lines_that_are_reported_and_no_request(folder: Path):
    path = folder / "access"
    # Long before, so that the limit does not concern the server's own log.
    path.write_text('{"of": "an earlier run"}\n' * 10_000)
    with Prefork("-w", "2", "--access-logfile", str(path), cwd=folder) as server:
        limit_files(server, path.stat().st_size + 30)
        for _ in range(20):
            assert server.get()[0] == 200
        limit_files(server, resource.RLIM_INFINITY)
        for _ in range(20):
            assert server.get("/again")[0] == 200
        wait_until(lambda: path.read_text().count('"/again"') == 20)
        server.signal(signal.SIGTERM)
        server.wait_exit()
        found = [line for line in path.read_text().splitlines()[10_000:] if line]
        cut = [line for line in found if not line.endswith("}")]
        assert [len(line) for line in cut] in ([], [30]), cut
        assert all(json.loads(line) for line in found if line not in cut)
        reports = re.findall(r"access log lines were lost.* lines=(\d+)", server.log())
        assert sum(map(int, reports)) == 40 - len(found) + len(cut)


def test_start_that_cannot_say_why_it_fails_says_it_by_its_exit_code(folder: Path):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PREFORK, "-b", "unix:nowhere/socket", "app:app"], cwd=folder, stderr=full, check=False
        )
    assert done.returncode == Exit.LISTEN


def cpu_s(pid: int) -> float:
    """Return the seconds of CPU that a process has used, however busy the machine is."""
    return sum(map(int, stat_fields(pid)[11:13])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("style", ["text", "json"])
def test_exception_with_a_huge_text_is_logged_by_head_and_tail_and_size(folder: Path, style: str):
    write_app(
        folder,
        """
        def app(environ, start_response):
            raise ValueError("begin" + "x" * 50_000_000 + "end")
        """,
    )
    with Prefork("--log-format", style, cwd=folder) as server:
        port = int(server.wait_log(r"127\.0\.0\.1:(\d+)")[1])
        (worker,) = server.workers()
        before_s = cpu_s(worker)
        with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            connection.request("GET", "/")
            assert connection.getresponse().status == 500
        assert cpu_s(worker) - before_s < 3  # 6 s and more when each character was looked at
        server.wait_log(r"xxxend")
        record = server.log()
        assert len(record) < 100_000
        assert "ValueError: beginxxx" in record
        assert "xxxend" in record
        assert re.search(r"\.\.\. 4\d{7} of 5\d{7} bytes are left out \.\.\.", record)


def test_import_that_fails_with_a_huge_text_is_reported_by_head_and_tail(folder: Path):
    with Prefork(cwd=folder) as server:
        write_app(folder, "raise ValueError('begin' + 'x' * 50_000_000 + 'end')")
        answer = server.reload("huge")
        assert answer["result"] == "failed"
        assert len(json.dumps(answer)) < 300_000
        assert "ValueError: beginxxx" in answer["traceback"]
        assert answer["message"].endswith("xxxend")
        assert server.get()[0] == 200
