"""Exemplars: the trace of a request beside each bucket, on request and in the OpenMetrics format alone."""

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.samples import Exemplar

from tests.process.harness import Prefork
from tests.process.test_agent import Agent, running_agent
from tests.support.wait import UNHURRIED_S, wait_until

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
SLEEPING_APP = """
import time
def app(environ, start_response):
    time.sleep(float(environ["PATH_INFO"][1:] or 0))
    start_response("200 OK", [])
    return [b"ok"]
"""


def ask(port: int, trace_id: str, path: str = "/", *, flags: str = "01") -> int:
    connection = HTTPConnection("127.0.0.1", port, timeout=UNHURRIED_S)
    traceparent = f"00-{trace_id}-00f067aa0ba902b7-{flags}"
    connection.request("GET", path, headers={"traceparent": traceparent})
    response = connection.getresponse()
    response.read()
    connection.close()
    return response.status


def found_exemplars(agent: Agent) -> Iterator[tuple[str, dict[str, str], Exemplar]]:
    """Yield series, labels and exemplar of a scrape that a strict parser of the format has read."""
    text = agent.fetch("/metrics", OPENMETRICS)[1]
    assert text.endswith("# EOF\n")
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.exemplar is not None:
                yield sample.name, sample.labels, sample.exemplar


def traces(agent: Agent, name: str = "wsgi_http_response_time_seconds_bucket") -> dict[str, str]:
    """Return the trace id by the bucket's bound."""
    return {
        labels["le"]: exemplar.labels["trace_id"]
        for series, labels, exemplar in found_exemplars(agent)
        if series == name
    }


def test_each_bucket_names_the_newest_sampled_trace(folder: Path) -> None:
    (folder / "app.py").write_text(SLEEPING_APP)
    fast, faster, slow, unsampled = (f"{digit}" * 32 for digit in "123f")
    before_s = time.time()
    with (
        # What takes milliseconds may take a second on a busy machine.
        Prefork("-w", "1", "--exemplars", "--duration-buckets", "3,300", cwd=folder) as server,
        running_agent(server.run_dir) as agent,
    ):
        assert traces(agent) == {}
        for trace_id, path in ((fast, "/"), (faster, "/"), (slow, "/3.2")):
            ask(server.port, trace_id, path)
        ask(server.port, unsampled, flags="00")
        agent.wait_counted()
        assert traces(agent) == {"3.0": faster, "300.0": slow}
        of_app = "wsgi_http_request_duration_seconds_bucket"
        assert traces(agent, of_app) == {"3.0": faster, "300.0": slow}
        assert traces(agent, "wsgi_http_request_queue_duration_seconds_bucket") == {"3.0": slow}
        [exemplar] = [e for _, labels, e in found_exemplars(agent) if e.value > 3][:1]
        assert exemplar.timestamp is not None
        assert 3.2 <= exemplar.value < 300
        assert before_s - 1 < float(exemplar.timestamp) < time.time() + 1
        # Prometheus takes an exemplar for the same only where its time is, too.
        assert list(found_exemplars(agent)) == list(found_exemplars(agent))
        assert "#" not in "".join(
            line for line in agent.fetch("/metrics")[1].splitlines() if line[0] != "#"
        )
        os.kill(server.workers()[0], signal.SIGKILL)
        # While a slot is added to the totals a scrape may find it in neither.
        wait_until(lambda: traces(agent) == {"3.0": faster, "300.0": slow}, what="traces are gone")
        server.wait_log("worker exited")
        server.wait_workers(1)
        wait_until(lambda: traces(agent) == {"3.0": faster, "300.0": slow}, what="traces are gone")
        server.reload()
        wait_until(lambda: traces(agent) == {"3.0": faster, "300.0": slow}, what="traces are gone")


def test_there_are_none_unless_asked_for(folder: Path) -> None:
    with Prefork("-w", "1", cwd=folder) as server, running_agent(server.run_dir) as agent:
        ask(server.port, "1" * 32)
        agent.wait_counted()
        assert list(found_exemplars(agent)) == []


def test_a_request_that_timed_out_is_among_them(folder: Path) -> None:
    (folder / "app.py").write_text(SLEEPING_APP)
    with (
        Prefork("-w", "1", "--exemplars", "-t", "1", cwd=folder) as server,
        running_agent(server.run_dir) as agent,
    ):
        assert ask(server.port, "7" * 32, "/30") == 504
        server.wait_workers(1)

        def is_shown() -> bool:
            """In whichever bucket: how much later than a second it was seen depends on the machine."""
            return any(
                labels.get("code_class") == "5xx" and exemplar.labels["trace_id"] == "7" * 32
                for _, labels, exemplar in found_exemplars(agent)
            )

        wait_until(is_shown, what="no exemplar of the 504")


def test_no_scrape_sees_halves_of_two_exemplars(folder: Path) -> None:
    """Many threads write the same few; each id is twice the same half."""
    (folder / "app.py").write_text(SLEEPING_APP)
    stop = threading.Event()

    def load(client: int) -> None:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=UNHURRIED_S)
        for count in itertools.count():
            half = f"{client + 1:08x}{count:08x}"
            headers = {"traceparent": f"00-{half}{half}-00f067aa0ba902b7-01"}
            connection.request("GET", "/", headers=headers)
            connection.getresponse().read()
            if stop.is_set():
                break
        connection.close()

    with (
        Prefork("-w", "2", "--threads", "4", "--exemplars", cwd=folder) as server,
        running_agent(server.run_dir) as agent,
        ThreadPoolExecutor(8) as clients,
    ):
        loads = [clients.submit(load, client) for client in range(8)]
        try:
            wait_until(lambda: traces(agent), what="no exemplars")
            for _ in range(20):
                for _, labels, exemplar in found_exemplars(agent):
                    trace_id = exemplar.labels["trace_id"]
                    assert trace_id[:16] == trace_id[16:]
                    assert exemplar.value <= float(labels["le"])
        finally:
            stop.set()
        for done in loads:
            done.result()
