"""`wsgiapp run` with a real server: the examples served, changed, broken and stopped."""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.process.harness import unhurried_plan, wait_loaded, wait_loaded_by
from tests.support.background_load import BackgroundLoad
from tests.support.ports import reserve_port
from tests.support.wait import UNHURRIED_S, NotYetError, wait_until

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "manifests" / "examples"
START_S = UNHURRIED_S  # two shared cores, cold caches


class Running:
    """A `wsgiapp run` of a copy of one manifest, on free ports; its output, line by line."""

    def __init__(self, manifest: Path, *arguments: str, cwd: Path) -> None:
        self.manifest = manifest
        self.lines: list[str] = []
        # Short: the path of a unix socket in it ends at 107 bytes.
        self.scratch = Path(tempfile.mkdtemp(prefix="wr-", dir="/tmp"))
        self._fresh: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-u", "-m", "wsgiapp_cli", "run"),
                *("-f", str(manifest), "--port", "0", *arguments),
            ],
            cwd=cwd,
            env=os.environ | {"TMPDIR": str(self.scratch)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(START_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(START_S)
        assert self.process.stdout is not None
        self.process.stdout.close()
        shutil.rmtree(self.scratch)
        if error is not None:
            print("".join(self.lines))

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            self._fresh.put(line)

    def wait_line(self, pattern: str, *, within_s: float = START_S) -> re.Match[str]:
        """Return the match of the next line, not waited for before, that has `pattern`."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                line = self._fresh.get(timeout=max(deadline - time.monotonic(), 0))
            except queue.Empty:
                raise TimeoutError(f"no line with {pattern!r} in:\n{''.join(self.lines)}") from None
            if match := re.search(pattern, line):
                return match

    def wait_url(self) -> str:
        """Return http://HOST:PORT once the app serves."""
        return self.wait_line(r"serving \S+ on (http://\S+)")[1]

    def change(self, old: str, new: str) -> None:
        """Replace `old`, which must be there, in the manifest, as an editor does: by a rename."""
        text = self.manifest.read_text()
        assert old in text
        fresh = self.manifest.with_suffix(".new")
        fresh.write_text(text.replace(old, new))
        fresh.replace(self.manifest)

    def status(self) -> Any:
        """Return the server's own status, from its control socket."""
        (path,) = self.scratch.glob("wsgiapp-*/run/control.sock")
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(str(path))
            control.sendall(b'{"op": "status"}\n')
            return json.loads(control.makefile().readline())

    def children(self) -> list[int]:
        """Return the processes it has started itself."""
        pid = self.process.pid
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def wait_exit(self, *, within_s: float = START_S) -> int:
        code = self.process.wait(within_s)
        self._reader.join(within_s)
        return code


def start(tmp_path: Path, name: str, *arguments: str, cwd: Path | None = None) -> Running:
    manifest = tmp_path / name
    manifest.write_text((EXAMPLES / name).read_text())
    return Running(manifest, *(arguments or ("--metrics", "")), cwd=cwd or tmp_path)


@pytest.fixture
def flask(tmp_path: Path) -> Iterator[Running]:
    with start(tmp_path, "flask.yaml") as running:
        yield running


def version(url: str) -> str | None:
    with urlopen(url, timeout=START_S) as answer:
        found: str | None = answer.headers["X-App-Version"]
        return found


def processes_of(folder: Path) -> list[str]:
    """Return the command lines of all processes that run in `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(folder) in os.readlink(entry / "cwd"):
                found.append((entry / "cmdline").read_text().replace("\0", " "))
        except OSError:  # ended meanwhile
            continue
    return found


def test_example_is_served_with_metrics(tmp_path: Path) -> None:
    metrics_address = f"127.0.0.1:{reserve_port()}"
    with start(tmp_path, "flask.yaml", "--metrics", metrics_address) as running:
        url = running.wait_url()
        assert version(url) == "1"
        with urlopen(f"{url}/echo", data=b"body", timeout=START_S) as answer:
            assert answer.read() == b"body"

        def metrics() -> str:
            try:
                with urlopen(f"http://{metrics_address}/metrics", timeout=START_S) as answer:
                    text: str = answer.read().decode()
                    return text
            except URLError as error:  # the agent starts beside the server
                raise NotYetError(str(error)) from error

        wait_until(lambda: 'wsgi_workers{state="' in metrics(), what="no metrics")
        # Counted a moment after the client has the answer.
        counted = r'wsgi_http_requests_total\{.*method="POST".*\} 1'
        wait_until(lambda: re.search(counted, metrics()), what="the request is not counted")


@pytest.mark.parametrize("name", ["flask.yaml", "django.yaml"])
def test_examples_answer_what_the_load_client_and_the_probes_ask(tmp_path: Path, name: str) -> None:
    with start(tmp_path, name, cwd=EXAMPLES / "django") as running:
        url = running.wait_url()
        body = bytes(range(256)) * 64
        for path, data, answer in (
            ("/echo", body, body),
            ("/slow?ms=30", None, b"slept 30 ms\n"),
            ("/healthz", None, b"ok\n"),
        ):
            began = time.monotonic()
            with urlopen(url + path, data=data, timeout=START_S) as found:
                assert found.read() == answer
                assert found.headers["X-App-Version"] == "1"
            assert time.monotonic() - began >= (0.03 if "slow" in path else 0)


def test_apps_files_do_not_get_between_the_server_and_the_standard_library(tmp_path: Path) -> None:
    """In a pod they cannot; somebody will call a module `selectors.py` one day."""
    manifest = tmp_path / "app.yaml"
    text = (EXAMPLES / "flask.yaml").read_text()
    manifest.write_text(text.replace("data:\n", "data:\n  selectors.py: raise SystemExit(9)\n"))
    with Running(manifest, "--metrics", "", cwd=tmp_path) as running:
        assert version(running.wait_url()) == "1"


def test_what_is_left_out_is_said(flask: Running) -> None:
    said = flask.wait_line(r"ignored here, cluster only: (.*)")[1]
    assert set(said.split(", ")) == {"image", "ingress", "replicas", "resources"}


def test_code_whose_health_path_fails_does_not_replace_code_that_serves(flask: Running) -> None:
    """As in a cluster; the health path of the example is /healthz."""
    url = flask.wait_url()
    flask.change('VERSION = "1"', 'VERSION = "2"\n    from flask import abort')
    flask.wait_line("reloaded in")
    flask.change('return "ok\\n"', "abort(500)")
    assert "/healthz answered 500" in flask.wait_line(r"reload failed: (.*)")[1]
    assert version(url) == "2"


def test_code_change_reloads_without_a_failed_request(flask: Running) -> None:
    url = flask.wait_url()
    with BackgroundLoad(unhurried_plan(url, 100, connections=8)) as load:
        wait_loaded(load)
        flask.change('VERSION = "1"', 'VERSION = "2"')
        flask.wait_line(r"reloaded in \d+\.\d s, generation 2")
        wait_loaded_by(load, "2")
        report = load.finish()
    print(report)
    assert report.is_clean, report.errors
    assert report.retried_reused_get == 0
    assert set(report.versions) == {"1", "2"}
    assert version(url) == "2"


def test_broken_code_is_told_and_the_old_serves_until_it_is_mended(flask: Running) -> None:
    url = flask.wait_url()
    flask.change('VERSION = "1"', "VERSION = 1 / 0")
    told = flask.wait_line(r"reload failed: (.*)")[1]
    assert "ZeroDivisionError: division by zero" in told
    assert "generation 1 keeps serving" in told
    assert version(url) == "1"
    flask.change("VERSION = 1 / 0", 'VERSION = "3"')
    flask.wait_line("reloaded in")
    assert version(url) == "3"


FILES_OF_ITS_OWN = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: code}
data:
  app.py: |
    VERSION = "1"
    def app(environ, start_response):
        import late
        body = f"{late.VERSION} {open('page.txt').read()}".encode()
        start_response("200 OK", [("Content-Length", str(len(body))), ("X-App-Version", VERSION)])
        return [body]
  late.py: VERSION = "late 1"
  page.txt: page 1
---
apiVersion: wsgi.dev/v1alpha1
kind: WsgiApp
metadata: {name: pinned}
spec:
  image: unused
  app: app:app
  source: {configMap: {name: code}}
  server: {workers: 1}
"""


def test_old_code_reads_and_imports_its_own_files_after_a_failed_reload(tmp_path: Path) -> None:
    manifest = tmp_path / "app.yaml"
    manifest.write_text(FILES_OF_ITS_OWN)

    def body() -> str:
        with urlopen(url, timeout=START_S) as answer:
            text: str = answer.read().decode()
            return text

    with Running(manifest, "--metrics", "", cwd=tmp_path) as running:
        url = running.wait_url()
        text = manifest.read_text().replace('VERSION = "1"', "VERSION = 1 / 0")
        text = text.replace("late 1", "late 2").replace("page 1", "page 2")
        running.change(manifest.read_text(), text)
        running.wait_line("reload failed")
        assert body() == "late 1 page 1"
        running.change("VERSION = 1 / 0", 'VERSION = "2"')
        running.wait_line("reloaded in")
        assert body() == "late 2 page 2"
        running.change("workers: 1", "workers: 2")
        running.wait_line("restarted in")
        assert body() == "late 2 page 2"


def test_manifest_that_cannot_be_served_is_told_and_harms_nothing(flask: Running) -> None:
    url = flask.wait_url()
    for old, new, words in (
        ("threads: 4", "threads: 400", r"spec\.server\.threads is 400; use 1 to 128"),
        ("threads: 400", "threads: [", r"flask\.yaml: line \d+: "),
    ):
        flask.change(old, new)
        flask.wait_line(words)
        flask.wait_line("the version before keeps serving")
        assert version(url) == "1"


def test_changed_settings_restart_and_clients_only_wait(flask: Running) -> None:
    url = flask.wait_url()
    plan = unhurried_plan(url, 50, connections=8, post_reuse=False)
    with BackgroundLoad(plan) as load:
        wait_loaded(load)
        flask.change("workers: 2", "workers: 3")
        flask.wait_line(r"restarted in \d+\.\d s with new settings")
        load.run_until(load.elapsed_s + 2)
        report = load.finish()
    print(report)
    assert report.is_clean, report.errors


def test_settings_that_do_not_start_leave_the_old_ones_serving(flask: Running) -> None:
    url = flask.wait_url()
    flask.change("threads: 4", "threads: 4\n    extraArgs: [--no-such-option]")
    flask.wait_line("the new settings do not start.*old ones go on serving")
    assert version(url) == "1"
    flask.change("\n    extraArgs: [--no-such-option]", "\n    requestTimeoutSeconds: 10")
    flask.wait_line("restarted in")
    assert version(url) == "1"


def test_changed_config_is_read_by_a_reload(tmp_path: Path) -> None:
    code = EXAMPLES / "django"
    with start(tmp_path, "django.yaml", cwd=code) as running:
        url = running.wait_url()
        assert version(url) == "1"
        running.change('version = "1"', 'version = "2"')
        running.wait_line("reloaded in")
        assert version(url) == "2"


def test_changed_code_beside_the_manifest_is_reloaded(tmp_path: Path) -> None:
    code = Path(shutil.copytree(EXAMPLES / "django", tmp_path / "django"))
    with start(tmp_path, "django.yaml", cwd=code) as running:
        url = running.wait_url()
        views = code / "shop" / "views.py"
        views.write_text(views.read_text().replace('"ok\\n"', '"fine\\n"'))
        running.wait_line("reloaded in")
        with urlopen(f"{url}/healthz", timeout=START_S) as answer:
            assert answer.read() == b"fine\n"


def test_app_that_does_not_import_ends_with_the_reason(tmp_path: Path) -> None:
    with start(tmp_path, "broken.yaml") as running:
        assert running.wait_exit() == 3
        output = "".join(running.lines)
    assert "ModuleNotFoundError: No module named 'flsk'" in output
    assert "wsgiapp: the app did not start" in output
    assert f"{sys.executable} -m pip install" in output


def test_app_that_is_elsewhere_names_the_folder_that_was_searched(tmp_path: Path) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    with start(tmp_path, "django.yaml", cwd=elsewhere) as running:
        assert running.wait_exit() == 3
        output = "".join(running.lines)
    assert "No module named 'shop'" in output
    assert f"Modules are looked for in {elsewhere}" in output


def test_ctrl_c_answers_what_is_in_flight_and_leaves_nothing(flask: Running) -> None:
    url = flask.wait_url()
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=START_S)
    connection.request("GET", "/slow?ms=5000")
    wait_until(lambda: flask.status()["workers"]["busy"], what="a worker is busy")
    flask.process.send_signal(signal.SIGINT)
    assert connection.getresponse().status == 200
    connection.close()
    assert flask.wait_exit() == 0
    assert processes_of(flask.scratch) == []
    assert list(flask.scratch.iterdir()) == []


def test_second_ctrl_c_does_not_wait(tmp_path: Path) -> None:
    """Neither for the call, which takes a minute, nor for a timeout."""
    patient = "threads: 4\n    requestTimeoutSeconds: 0\n    gracefulTimeoutSeconds: 600"
    manifest = tmp_path / "app.yaml"
    manifest.write_text((EXAMPLES / "flask.yaml").read_text().replace("threads: 4", patient))
    with Running(manifest, "--metrics", "", cwd=tmp_path) as running:
        url = running.wait_url()
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=START_S)
        connection.request("GET", "/slow?ms=60000")
        wait_until(lambda: running.status()["workers"]["busy"], what="a worker is busy")
        running.process.send_signal(signal.SIGINT)
        running.wait_line("stopping")
        running.process.send_signal(signal.SIGINT)
        assert running.wait_exit(within_s=45) == 0
        connection.close()
        assert processes_of(running.scratch) == []


def test_server_that_is_killed_is_told(flask: Running) -> None:
    flask.wait_url()
    (arbiter,) = flask.children()
    os.kill(arbiter, signal.SIGKILL)
    assert flask.wait_exit() == 1
    assert "wsgiapp: the server was ended by SIGKILL" in "".join(flask.lines)
    wait_until(lambda: not processes_of(flask.scratch), what="no process is left")


def test_server_goes_when_the_command_is_killed(flask: Running) -> None:
    flask.wait_url()
    assert processes_of(flask.scratch)
    flask.process.kill()
    wait_until(lambda: not processes_of(flask.scratch), within_s=START_S, what="no process is left")
