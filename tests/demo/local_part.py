"""The quick way: the manifest served on this machine, changed and reloaded under load."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
import threading
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.demo import manifest
from tests.demo.screen import Screen
from tests.support.background_load import BackgroundLoad
from tests.support.load_report import LoadPlan, LoadReport
from tests.support.wait import wait_until

_SERVES = re.compile(r"serving \S+ on (http://\S+)")
_LOAD_S = 8.0
_SETTLE_S = 2.0


class LocalApp:
    """`wsgiapp run -f FILE` as a process; what it prints is kept."""

    def __init__(self, file: Path, *, metrics: str) -> None:
        self._arguments = ["run", "-f", str(file), "--port", "0", "--metrics", metrics]
        self._lines: list[str] = []

    def __enter__(self) -> Self:
        command = Path(sys.executable).with_name("wsgiapp")
        self._process = subprocess.Popen(
            [command, *self._arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def url(self) -> str:
        """Return where it serves, '' before it does; RuntimeError when it has ended."""
        for line in list(self._lines):
            if found := _SERVES.search(line):
                return found[1]
        if self._process.poll() is not None:
            raise RuntimeError("wsgiapp run ended:\n" + "\n".join(self._lines))
        return ""

    def said(self, words: str) -> list[str]:
        """Return its lines with these words."""
        return [line for line in list(self._lines) if words in line]

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as out:
            for line in out:
                self._lines.append(line.rstrip())


def serve_without_cluster(screen: Screen) -> list[tuple[str, LoadReport]]:
    """Tell this part of the story; return the load's figures."""
    example = manifest.EXAMPLE.read_text()
    name = manifest.EXAMPLE.relative_to(manifest.ROOT)
    metrics = f"127.0.0.1:{_free_port()}"
    with tempfile.TemporaryDirectory(prefix="wsgiapp-demo-") as folder:
        file = Path(folder, "flask.yaml")  # a copy: it is going to be changed
        file.write_text(example)
        screen.command(f"wsgiapp run -f {name}")
        with LocalApp(file, metrics=metrics) as app:
            url = wait_until(app.url, within_s=60, what="wsgiapp run to serve")
            screen.output("\n".join(app.said("wsgiapp:")))
            _curl(screen, url)
            report = _reload_under_load(screen, app, url, file, example)
            _curl(screen, url)
            _show_metrics(screen, metrics)
    return [("without a cluster: code change", report)]


def _reload_under_load(
    screen: Screen, app: LocalApp, url: str, file: Path, example: str
) -> LoadReport:
    plan = LoadPlan(url=url, rate=320, connections=16, duration_s=120, slow_share=0.005)
    screen.say("Now 320 requests a second, GETs and POSTs, and a code change while they run:")
    screen.command(f"""sed -i 's/VERSION = "1"/VERSION = "2"/' {manifest.EXAMPLE.name}""")
    with BackgroundLoad(plan) as load:
        load.run_until(_SETTLE_S)
        file.write_text(manifest.change_version(example, "2"))
        wait_until(
            lambda: app.said("reloaded in") or app.said("reload failed"),
            within_s=90,
            what="the reload",
        )
        screen.output("\n".join(app.said("reload")))
        load.run_until(_LOAD_S)
        report = load.finish()
    seen = list(report.versions)
    screen.check(seen == ["1", "2"], f"answers came from versions {', then '.join(seen)}")
    screen.check(
        report.is_clean, f"{report.failed + report.wrong} of {report.sent} requests failed"
    )
    if not report.is_clean:
        screen.output(report.to_text())
    return report


def _curl(screen: Screen, url: str) -> None:
    screen.command(f"curl {url}")
    with urllib.request.urlopen(url, timeout=10) as answer:
        screen.output(answer.read().decode())


def _show_metrics(screen: Screen, metrics: str) -> None:
    screen.command(f"curl -s http://{metrics}/metrics | grep -E 'requests_total|wsgi_workers'")
    with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    wanted = re.compile(r"wsgi_(http_requests_total|workers|reloads_total)\{.*\} (?!0(\.0)?$)")
    shown = [line for line in lines if wanted.match(line)]
    screen.output("\n".join(shown), lines=8)
    screen.check(
        any(line.startswith("wsgi_http_requests_total") for line in shown),
        "the metrics count the requests",
    )


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
