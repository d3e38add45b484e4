"""What a real scrape shows: well-formed, bounded at 64 workers, and never going back."""

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families
from wsgiapp_operator.metrics import Heartbeat, Metrics, start_server

from tests.cluster.packages import install_promtool
from tests.cluster.paths import Paths
from tests.process.harness import Prefork
from tests.process.test_agent import Agent, running_agent
from tests.support.wait import UNHURRIED_S, wait_until

SERIES_MAX = 300
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW")
STATUSES = (200, 201, 204, 301, 304, 400, 401, 404, 409, 418, 429, 500, 502, 503)
CODES_APP = """
def app(environ, start_response):
    start_response(environ["PATH_INFO"][1:] + " As asked", [])
    return []
"""


@pytest.fixture(scope="module")
def check_metrics() -> Callable[[str], str]:
    """Return check(text): what `promtool check metrics` says of a scrape; empty when all is well."""
    promtool = install_promtool(Paths.from_environ())

    def check(text: str) -> str:
        done = subprocess.run(
            [promtool, "check", "metrics"],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return (
            done.stdout + done.stderr + ("" if done.returncode == 0 else f"code {done.returncode}")
        )

    return check


def ask_for_every_code(port: int) -> None:
    """One request for each method and status."""
    connection = HTTPConnection("127.0.0.1", port, timeout=UNHURRIED_S)
    for method in METHODS:
        for status in STATUSES:
            connection.request(method, f"/{status}")
            assert connection.getresponse().read() == b""
    connection.close()


def test_a_pod_of_64_workers_has_at_most_300_series_that_promtool_accepts(
    folder: Path, check_metrics: Callable[[str], str]
) -> None:
    (folder / "app.py").write_text(CODES_APP)
    content = [f"--content=c{number}={folder}" for number in range(12)]
    buckets = ",".join(str(number) for number in range(1, 17))
    with (
        Prefork("-w", "64", "--duration-buckets", buckets, *content, cwd=folder) as server,
        running_agent(server.run_dir) as agent,
    ):
        server.wait(lambda: agent.value("wsgi_workers", state="serving") == 64)
        for _ in range(3):
            ask_for_every_code(server.port)
        agent.wait_counted()
        text = agent.fetch("/metrics")[1]
        samples = agent.samples()
    series = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(series) <= SERIES_MAX, "\n".join(series)
    assert check_metrics(text) == ""
    requests = {
        labels: n for (name, labels), n in samples.items() if name == "wsgi_http_requests_total"
    }
    assert sum(requests.values()) == 3 * len(METHODS) * len(STATUSES)
    # So many methods and statuses are shown by class.
    assert requests[(("code", "5xx"), ("method", "GET"))] == 9


def test_promtool_accepts_what_agent_and_operator_show(
    folder: Path, check_metrics: Callable[[str], str]
) -> None:
    with Prefork("-w", "2", cwd=folder) as server, running_agent(server.run_dir) as agent:
        server.get()
        server.get("/boom")
        assert check_metrics(agent.fetch("/metrics")[1]) == ""
        # promtool reads the text format; this strict parser the other one.
        text = agent.fetch("/metrics", "application/openmetrics-text; version=1.0.0")[1]
        assert "wsgi_ready" in {family.name for family in openmetrics_families(text)}
        assert "_total" in check_metrics("# HELP x y\n# TYPE x counter\nx 1\n")
    metrics = Metrics()
    metrics.record_app(
        "web", "shop", "shop:1", [{"type": "Ready", "status": "True", "reason": "Serving"}]
    )
    metrics.reconcile_seconds.observe(0.1)
    served = start_server("127.0.0.1:0", metrics, Heartbeat())
    try:
        status, text = Agent(served.server_port).fetch("/metrics")
    finally:
        served.shutdown()
        served.server_close()
    assert status == 200
    assert "wsgiapp_status_condition" in text
    assert check_metrics(text) == ""


class Watcher:
    """Scrapes without a pause whichever agent there is, and remembers what went back."""

    def __init__(self) -> None:
        self.agent: Agent | None = None
        self.seen: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self.went_back: list[str] = []
        self.scrapes = 0
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self) -> "Watcher":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def run(self) -> None:
        while not self.stop.wait(0.005):
            agent = self.agent  # which may go at any moment
            if agent is not None:
                try:
                    status, text = agent.fetch("/metrics")
                except (OSError, HTTPException):
                    continue  # an agent that ends
                if status == 200:
                    self.look(text)

    def look(self, text: str) -> None:
        self.scrapes += 1
        for family in text_string_to_metric_families(text):
            if family.type not in ("counter", "histogram", "summary"):
                continue
            for sample in family.samples:
                key = sample.name, tuple(sorted(sample.labels.items()))
                if sample.value < self.seen.get(key, 0.0):
                    self.went_back.append(f"{key}: {self.seen[key]} → {sample.value}")
                self.seen[key] = sample.value

    def wait_killed(self, count: int) -> None:
        """Wait until so many workers are seen to have been killed: that one is, is known when it has been reaped."""
        key = "wsgi_worker_exits_total", (("reason", "killed"),)
        wait_until(lambda: self.seen.get(key) == count, what=f"not {count} killed")

    def look_again(self) -> None:
        """Wait for a scrape that begins from now on."""
        before = self.scrapes
        wait_until(lambda: self.scrapes > before + 1, UNHURRIED_S, what="no scrape")


def test_no_counter_goes_back_over_the_end_of_workers_server_and_agent(folder: Path) -> None:
    run_dir, killed = folder / "run", 0
    with Watcher() as watcher:
        for end in (signal.SIGKILL, signal.SIGTERM, None):
            with Prefork("-w", "2", cwd=folder) as server:
                for _ in range(2):
                    with running_agent(run_dir) as watcher.agent:
                        for _ in range(5):
                            assert server.get()[0] == 200
                        watcher.agent.wait_counted()
                        watcher.look_again()
                        os.kill(server.workers()[0], signal.SIGKILL)
                        killed += 1
                        watcher.wait_killed(killed)
                        server.wait_workers(2)
                        assert server.reload(f"reload-{killed}")["result"] == "succeeded"
                        watcher.look_again()
                    watcher.agent = None
                if end is not None:
                    server.signal(end)
                    server.wait_exit()
    requests = "wsgi_http_requests_total", (("code", "200"), ("method", "GET"))
    assert watcher.went_back == []
    assert watcher.seen[requests] >= 30
    assert watcher.seen["wsgi_worker_exits_total", (("reason", "killed"),)] == killed == 6
    assert watcher.seen["wsgi_reloads_total", (("result", "succeeded"),)] == 6
