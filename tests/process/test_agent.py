"""The agent next to a real server: metrics, probes, status, reload requests; and the control socket."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from http.client import HTTPConnection, IncompleteRead
from pathlib import Path
from typing import Any

import prometheus_client
import pytest
from prefork.agent.readiness import SHORTFALL_MAX_S
from prefork.base.digest import digest_directory
from prometheus_client.parser import text_string_to_metric_families

from tests.process.harness import PREFORK, Prefork, run_prefork, write_app
from tests.support.ports import reserve_port
from tests.support.wait import UNHURRIED_S, NotYetError, children_of, name_of, wait_until

ROOT = Path(__file__).resolve().parents[2]


class Agent:
    """Answers of an agent."""

    def __init__(self, port: int) -> None:
        self.port = port

    def fetch(self, path: str, accept: str = "") -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=UNHURRIED_S)
        try:
            connection.request("GET", path, headers={"Accept": accept} if accept else {})
            response = connection.getresponse()
            return response.status, response.read().decode()
        except (ConnectionError, IncompleteRead) as error:
            return 0, str(
                error
            )  # reset: it ended with the connection in its queue, or amid its answer
        finally:
            connection.close()

    def status(self) -> dict[str, Any]:
        """Return the server's status; waits for an arbiter that does not answer the agent at once."""

        def answered() -> dict[str, Any]:
            status, text = self.fetch("/status")
            if status != 200:
                raise NotYetError(text)
            found: dict[str, Any] = json.loads(text)
            return found

        return wait_until(answered, what="no status")

    def wait_ready(self) -> None:
        wait_until(lambda: self.fetch("/readyz")[0] == 200, UNHURRIED_S, what="not ready")

    def wait_reload(self, id: str, result: str) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            found: dict[str, Any] | None = self.status()["reload"]
            return found if found and (found["id"], found["result"]) == (id, result) else None

        return wait_until(reached, UNHURRIED_S, what=f"reload {id} not {result}") or {}

    def samples(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Return every sample by name and sorted labels."""
        status, text = self.fetch("/metrics")
        if status != 200:
            raise NotYetError(text)
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def value(self, name: str, absent: float | None = None, /, **labels: str) -> float:
        """Return the value of a series; `absent`, if that is given, where there is no such series."""
        found = self.samples().get((name, tuple(sorted(labels.items()))), absent)
        if found is None:
            raise NotYetError(f"no {name} {labels}")
        return found

    def elapsed_s(self) -> list[float]:
        """Return of each worker that is in a call how long the oldest one has been running."""
        name = "wsgi_worker_request_elapsed_seconds"
        return [value for (series, _), value in self.samples().items() if series == name]

    def wait_counted(self) -> None:
        """Wait until every answer is counted, which is so a moment after the client has it."""
        wait_until(lambda: self.value("wsgi_http_requests_in_flight") == 0, what="calls run")


@contextmanager
def running_agent(
    run_dir: Path,
    *arguments: str,
    command: tuple[str, ...] = PREFORK,
    environment: Mapping[str, str] | None = None,
) -> Iterator[Agent]:
    agent = Agent(reserve_port())
    process = subprocess.Popen(
        [
            *command,
            "agent",
            "--listen",
            f"127.0.0.1:{agent.port}",
            "--run-dir",
            str(run_dir),
            *arguments,
        ],
        env={**os.environ, **(environment or {})},
    )
    try:
        wait_until(lambda: agent.fetch("/livez")[0], UNHURRIED_S, what="no agent")
        yield agent
    finally:
        process.terminate()
        assert process.wait(UNHURRIED_S) == 0


def test_requests_are_counted_by_method_and_code_and_survive_their_workers(folder: Path):
    with Prefork("-w", "2", cwd=folder) as server, running_agent(server.run_dir) as agent:
        for _ in range(7):
            server.get()
        agent.wait_counted()
        assert agent.value("wsgi_http_requests_total", method="GET", code="200") == 7
        os.kill(server.workers()[0], signal.SIGKILL)
        wait_until(lambda: agent.value("wsgi_worker_boot_duration_seconds_count") == 3)
        server.reload()
        server.get()
        agent.wait_counted()
        wait_until(lambda: agent.value("wsgi_worker_exits_total", reason="retired") == 2)
        assert agent.value("wsgi_http_requests_total", method="GET", code="200") == 8
        assert agent.value("wsgi_http_request_duration_seconds_count", code_class="2xx") == 8
        assert (
            agent.value("wsgi_http_request_duration_seconds_bucket", code_class="2xx", le="+Inf")
            == 8
        )
        assert agent.value("wsgi_worker_exits_total", reason="killed") == 1
        assert agent.value("wsgi_reloads_total", result="succeeded") == 1
        assert agent.value("wsgi_generation") == 2
        assert agent.value("wsgi_workers", state="serving") == 2
        assert agent.value("wsgi_workers_desired") == 2
        assert agent.value("wsgi_worker_boot_duration_seconds_count") == 5
        assert agent.value("wsgi_listen_queue_limit") > 0


def test_agent_answers_while_every_worker_is_busy(folder: Path):
    options = ("-w", "2", "--timeout=0")
    with Prefork(*options, cwd=folder) as server, running_agent(server.run_dir) as agent:
        with ThreadPoolExecutor(6) as pool:
            answers = [pool.submit(server.get, "/wait", timeout_s=120) for _ in range(6)]
            server.wait(lambda: agent.value("wsgi_http_requests_in_flight") == 2)
            assert agent.fetch("/livez")[0] == 200
            assert agent.fetch("/readyz")[0] == 200
            assert agent.status()["workers"] == {"desired": 2, "ready": 2, "busy": 2}
            # Of four that wait, a worker may have accepted one each.
            server.wait(lambda: agent.value("wsgi_listen_queue_depth") >= 2)
            assert agent.value("wsgi_workers_busy") == 2
            server.wait(lambda: len(elapsed := agent.elapsed_s()) == 2 and min(elapsed) > 1.0)
            assert not any(answer.done() for answer in answers)
            (folder / "go").touch()
            assert [answer.result()[0] for answer in answers] == [200] * 6
        agent.wait_counted()
        assert agent.value("wsgi_worker_busy_seconds_total") > 2
        durations = "wsgi_http_request_duration_seconds_bucket"
        assert agent.value(durations, code_class="2xx", le="+Inf") == 6
        assert agent.value(durations, code_class="2xx", le="1.0") <= 4


def test_probes_are_counted_apart_and_are_not_traffic(folder: Path):
    with (
        Prefork("-w", "1", cwd=folder) as server,
        running_agent(server.run_dir, "--probe", f"{server.url}/healthz") as agent,
    ):
        agent.wait_ready()
        wait_until(lambda: agent.value("wsgi_probe_requests_total") >= 1)
        server.get()
        agent.wait_counted()
        samples = agent.samples()
        requests = {
            key: value
            for key, value in samples.items()
            if key[0].startswith("wsgi_http_requests_total")
        }
        assert list(requests.values()) == [1]
        for histogram in ("request_queue_duration", "response_time"):
            assert samples[f"wsgi_http_{histogram}_seconds_count", ()] == 1
        # A client that does not know the server's number is traffic, whatever it says.
        stranger = HTTPConnection("127.0.0.1", server.port, timeout=UNHURRIED_S)
        stranger.request("GET", "/", headers={"X-Prefork-Probe": "0" * 16})
        assert stranger.getresponse().read()
        stranger.close()
        agent.wait_counted()
        assert agent.value("wsgi_http_requests_total", method="GET", code="200") == 2


def test_threads_waiting_requests_and_what_the_client_waits_are_shown(folder: Path):
    """Ten clients on two threads: two in calls, the others wait, in the accept queue or in the worker."""
    with (
        Prefork("-w", "1", "--threads", "2", "--timeout=0", cwd=folder) as server,
        running_agent(server.run_dir) as agent,
        ExitStack() as connections,
    ):
        clients = []
        for _ in range(10):
            client = HTTPConnection("127.0.0.1", server.port, timeout=UNHURRIED_S * 3)
            connections.callback(client.close)
            client.request("GET", "/")
            assert client.getresponse().read()
            clients.append(client)
        assert agent.value("wsgi_threads") == 2
        agent.wait_counted()
        assert agent.value("wsgi_threads_busy") == 0
        for client in clients:
            client.request("GET", "/wait")
        # All have a connection to the worker, as the connections of a proxy: none waits in the accept queue.
        expected = {
            ("wsgi_http_requests_waiting", ()): 8,
            ("wsgi_threads_busy", ()): 2,
            ("wsgi_worker_threads_busy", (("worker", "1"),)): 2,
            ("wsgi_http_requests_in_flight", ()): 2,
            ("wsgi_listen_queue_depth", ()): 0,
        }
        wait_until(
            lambda: (shown := agent.samples()) and {k: shown[k] for k in expected} == expected,
            what="nobody waits",
        )
        all_wait_since_s = time.monotonic()
        wait_until(lambda: min(agent.elapsed_s(), default=0) > 0.5, what="calls of half a second")
        waited_s = time.monotonic() - all_wait_since_s
        (folder / "go").touch()
        for client in clients:
            assert client.getresponse().status == 200
        agent.wait_counted()
        shown = agent.samples()
        sums = {
            name: shown[f"wsgi_http_{name}_seconds_sum", ()]
            for name in ("response_time", "request_queue_duration")
        }
        calls_s = shown["wsgi_http_request_duration_seconds_sum", (("code_class", "2xx"),)]
        assert sums["request_queue_duration"] > 8 * waited_s
        assert sums["response_time"] == pytest.approx(
            sums["request_queue_duration"] + calls_s, abs=1e-4
        )
        assert shown["wsgi_http_requests_waiting", ()] == 0


def test_readiness_and_its_reason_are_shown(folder: Path):
    run_dir = folder / "run"
    run_dir.mkdir()
    with running_agent(run_dir) as agent:
        assert agent.value("wsgi_ready") == 0
        assert agent.value("wsgi_not_ready", reason="not_started") == 1
        with Prefork(cwd=folder):
            agent.wait_ready()
            assert agent.value("wsgi_ready") == 1
            assert agent.value("wsgi_not_ready", reason="not_started") == 0
            with running_agent(run_dir, "--probe", "http://127.0.0.1:9/healthz") as probing:
                wait_until(lambda: probing.value("wsgi_not_ready", reason="probe_failed") == 1)


def test_content_that_is_served_is_shown_by_its_digest(folder: Path):
    code = folder / "code"
    code.mkdir()
    write_app(code)
    arguments = ("--chdir", str(code), "--content", f"source={code}")
    with Prefork(*arguments, cwd=folder) as server, running_agent(server.run_dir) as agent:

        def shown() -> set[tuple[tuple[str, str], ...]]:
            return {labels for name, labels in agent.samples() if name == "wsgi_content_info"}

        def labels() -> tuple[tuple[str, str], ...]:
            return ("content", "source"), ("digest", digest_directory(code)[:16])

        wait_until(lambda: shown() == {labels()}, what="the first digest is not shown")
        write_app(code, version="2")
        server.reload()
        wait_until(lambda: shown() == {labels()}, what="the new digest is not shown")


def test_buckets_are_those_that_are_set(folder: Path):
    with (
        Prefork("--duration-buckets", "0.05,30", cwd=folder) as server,
        running_agent(server.run_dir) as agent,
    ):
        server.get("/slow?ms=100")
        agent.wait_counted()
        buckets = {
            dict(labels)["le"]: value
            for (name, labels), value in agent.samples().items()
            if name == "wsgi_http_response_time_seconds_bucket"
        }
        assert buckets == {"0.05": 0, "30.0": 1, "+Inf": 1}


def test_memory_of_each_worker_is_shown(folder: Path):
    with Prefork("-w", "2", cwd=folder) as server, running_agent(server.run_dir) as agent:
        server.wait(
            lambda: all(
                agent.value(f"wsgi_worker_{kind}_memory_bytes", 0, worker=worker) > 1_000_000
                for kind in ("resident", "proportional")
                for worker in ("1", "2")
            ),
            what="no memory figures",
        )


def test_metrics_are_bounded_and_speak_openmetrics_when_asked(folder: Path):
    with Prefork("-w", "4", cwd=folder) as server, running_agent(server.run_dir) as agent:
        for path in ("/a", "/b?c=d", "/e" * 50):
            server.get(path)
        samples = agent.samples()
        assert len(samples) <= 300
        names = {name for _, labels in samples for name, _ in labels}
        assert names <= {
            "method",
            "code",
            "code_class",
            "le",
            "state",
            "reason",
            "result",
            "worker",
            "version",
            "content",
            "digest",
        }
        status, body = agent.fetch("/metrics", "application/openmetrics-text; version=1.0.0")
        assert status == 200
        assert body.endswith("# EOF\n")


def test_ready_only_while_the_workers_are_and_the_probe_path_answers(folder: Path):
    run_dir = folder / "run"
    run_dir.mkdir()
    with running_agent(run_dir) as agent:
        assert agent.fetch("/livez")[0] == 200
        assert agent.fetch("/readyz") == (503, "the server has not started\n")
        assert agent.fetch("/status")[0] == 503
        with Prefork("-w", "2", cwd=folder) as server:
            agent.wait_ready()
            os.kill(server.workers()[0], signal.SIGKILL)
            assert agent.fetch("/readyz")[0] == 200, (
                "a worker that is replaced at once is no reason"
            )
            with running_agent(run_dir, "--probe", f"{server.url}/slow?ms=1") as probing:
                probing.wait_ready()
            with running_agent(run_dir, "--probe", "http://127.0.0.1:9/healthz") as probing:
                wait_until(lambda: "cannot be reached" in probing.fetch("/readyz")[1], UNHURRIED_S)
                assert probing.fetch("/readyz")[0] == 503
            server.signal(signal.SIGTERM)
            server.wait_exit()
        assert agent.fetch("/readyz")[0] == 503
        assert agent.fetch("/livez")[0] == 200


def test_worker_that_is_replaced_in_time_is_no_reason_however_rarely_one_asks(folder: Path):
    write_app(
        folder,
        """
        import os, time
        if os.path.exists("slow"):
            time.sleep(1)
        def app(environ, start_response):
            start_response("200 OK", [])
            return []
        """,
    )
    options = ("-w", "2", "--preload=never")
    with Prefork(*options, cwd=folder) as server, running_agent(server.run_dir) as agent:
        (folder / "slow").touch()

        def is_ready_without_one() -> bool:
            agent.wait_ready()
            time.sleep(SHORTFALL_MAX_S + 0.5)  # as between two probes
            os.kill(server.wait_workers(2)[0], signal.SIGKILL)
            server.wait(lambda: server.ask({"op": "status"})["workers"]["ready"] == 1)
            return agent.fetch("/readyz")[0] == 200

        # On a busy machine it may just have taken longer.
        assert any(is_ready_without_one() for _ in range(4))


def test_probe_that_answers_with_an_error_is_told(folder: Path):
    write_app(
        folder,
        """
        def app(environ, start_response):
            start_response("500 Oh" if environ["HTTP_HOST"] != "shop.example" else "204 Fine", [])
            return []
        """,
    )
    with Prefork(cwd=folder) as server:
        with running_agent(server.run_dir, "--probe", f"{server.url}/healthz") as agent:
            wait_until(lambda: "answered 500" in agent.fetch("/readyz")[1], UNHURRIED_S)
        with running_agent(
            server.run_dir, "--probe", f"{server.url}/healthz", "--probe-host", "shop.example"
        ) as agent:
            agent.wait_ready()


def test_stopped_arbiter_is_not_alive(folder: Path):
    with Prefork(cwd=folder) as server, running_agent(server.run_dir) as agent:
        os.kill(server.process.pid, signal.SIGSTOP)
        wait_until(lambda: agent.fetch("/livez")[0] == 503)
        assert "heartbeat" in agent.fetch("/livez")[1]
        assert agent.fetch("/readyz")[0] == 503
        os.kill(server.process.pid, signal.SIGCONT)
        wait_until(lambda: agent.fetch("/livez")[0] == 200)


def test_agent_refuses_other_paths_and_survives_bad_clients(folder: Path):
    with Prefork(cwd=folder) as server, running_agent(server.run_dir) as agent:
        assert agent.fetch("/other")[0] == 404
        stalled = [socket.create_connection(("127.0.0.1", agent.port)) for _ in range(20)]
        for client, data in zip(
            stalled, (b"GET /", b"\x00" * 20_000, b"\r\n\r\n", b"") * 5, strict=True
        ):
            client.sendall(data)
        assert agent.fetch("/livez")[0] == 200
        for client in stalled:
            client.close()


def test_agent_answers_at_once_among_more_idle_connections_than_it_keeps(folder: Path):
    """Its port can be reached from the whole cluster, and the app's probes go through it.

    At once: the connections that it keeps are the newest ones, and none of these has come to its own timeout.
    """
    with ExitStack() as stack:
        server = stack.enter_context(Prefork(cwd=folder))
        agent = stack.enter_context(running_agent(server.run_dir))
        agent.wait_ready()

        def is_answered_at_once() -> bool:
            with ExitStack() as crowd:
                for n in range(600):
                    client = crowd.enter_context(
                        socket.create_connection(("127.0.0.1", agent.port))
                    )
                    with suppress(ConnectionError):  # the oldest are closed
                        client.sendall(b"GET /readyz HTTP/1.1\r\n"[: n % 20])
                started = time.monotonic()
                answers = [agent.fetch(path)[0] for path in ("/livez", "/readyz", "/metrics")]
                assert answers == [200] * 3
                return time.monotonic() - started < 2

        # Where there is no room, never; on a busy machine, sometimes.
        assert any(is_answered_at_once() for _ in range(5))


def request_reload(path: Path, id: str, **content: str) -> None:
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps({"id": id, "content": content}))
    draft.replace(path)


def test_reload_request_waits_for_its_content_then_reloads_and_reports_the_result(folder: Path):
    code, file = folder / "code", folder / "request"
    code.mkdir()
    write_app(code)
    content = ("--content", f"source={code}")
    with (
        Prefork("-w", "2", "--chdir", str(code), *content, cwd=folder) as server,
        running_agent(server.run_dir, *content, "--reload-file", str(file)) as agent,
    ):
        assert agent.status()["reload"] is None
        request_reload(file, "id-1", source=digest_directory(code))
        agent.wait_reload("id-1", "succeeded")
        assert server.ask({"op": "status"})["generation"] == 1, "it had loaded that content already"

        other = folder / "other"
        other.mkdir()
        write_app(other, version="2")
        request_reload(file, "id-2", source=digest_directory(other))
        pending = agent.wait_reload("id-2", "pending")
        wait_until(lambda: "content source has not arrived" in agent.status()["reload"]["message"])
        assert pending["id"] == "id-2"
        assert server.version() == "1"
        write_app(code, version="2")
        agent.wait_reload("id-2", "succeeded")
        assert server.version() == "2"
        assert agent.status()["content"] == {"source": digest_directory(code)}

        write_app(code, "raise RuntimeError('broken')\n")
        request_reload(file, "id-3", source=digest_directory(code))
        assert agent.wait_reload("id-3", "failed")["message"] == "RuntimeError: broken"
        assert server.version() == "2"
        assert agent.value("wsgi_reloads_total", result="failed") == 1


def test_newer_request_takes_the_place_of_one_whose_content_never_came(folder: Path):
    code, file = folder / "code", folder / "request"
    code.mkdir()
    write_app(code)
    content = ("--content", f"source={code}")
    with (
        Prefork("--chdir", str(code), *content, cwd=folder) as server,
        running_agent(server.run_dir, *content, "--reload-file", str(file)) as agent,
    ):
        request_reload(file, "never", source="0" * 64)
        agent.wait_reload("never", "pending")
        request_reload(file, "now", source=digest_directory(code))
        agent.wait_reload("now", "succeeded")


def test_reload_request_that_the_server_rejects_fails_and_the_agent_goes_on(folder: Path):
    annotation = folder / "reload"
    with (
        Prefork(cwd=folder) as server,
        running_agent(server.run_dir, "--reload-file", str(annotation)) as agent,
    ):
        server.reload("first")  # a server that was never reloaded is asked for its content only
        request_reload(annotation, "x" * 129)
        failed = agent.wait_reload("x" * 129, "failed")
        assert "1 to 128 characters" in failed["message"]
        request_reload(annotation, "good")
        agent.wait_reload("good", "succeeded")
        agent.wait_ready()


def test_agent_that_is_restarted_does_not_repeat_a_reload(folder: Path):
    code, file = folder / "code", folder / "request"
    code.mkdir()
    write_app(code)
    content = ("--content", f"source={code}")
    with Prefork("--chdir", str(code), *content, cwd=folder) as server:
        write_app(code, version="2")
        request_reload(file, "once", source=digest_directory(code))
        for _ in range(2):
            with running_agent(server.run_dir, *content, "--reload-file", str(file)) as agent:
                agent.wait_reload("once", "succeeded")
                assert agent.status()["generation"] == 2


def test_metrics_option_starts_the_agent_and_ends_it(folder: Path):
    port = reserve_port()
    with Prefork("--metrics", f"127.0.0.1:{port}", cwd=folder) as server:
        agent = Agent(port)
        wait_until(lambda: agent.fetch("/readyz")[0] == 200, UNHURRIED_S, log=server.log)
        server.signal(signal.SIGTERM)
        server.wait_exit()
        wait_until(lambda: agent.fetch("/livez")[0] == 0)


def test_agent_started_by_metrics_does_not_outlive_a_killed_arbiter(folder: Path):
    port = reserve_port()
    with Prefork("--metrics", f"127.0.0.1:{port}", cwd=folder) as server:
        agent = Agent(port)
        wait_until(lambda: agent.fetch("/livez")[0] == 200, UNHURRIED_S, log=server.log)
        os.kill(server.process.pid, signal.SIGKILL)
        wait_until(lambda: agent.fetch("/livez")[0] == 0)


def test_metrics_are_there_when_a_server_is_started_right_after_a_kill(folder: Path):
    """The killed server's agent holds the address until it has seen that its parent is gone."""
    port = reserve_port()
    options = ("--metrics", f"127.0.0.1:{port}")
    agent = Agent(port)
    with Prefork(*options, cwd=folder) as killed:
        wait_until(lambda: agent.fetch("/livez")[0] == 200, UNHURRIED_S, log=killed.log)
        os.kill(killed.process.pid, signal.SIGKILL)
        killed.process.wait()
        with Prefork(*options, cwd=folder) as server:
            server.wait_log("agent listening", UNHURRIED_S)
            assert agent.fetch("/livez")[0] == 200


def test_metrics_address_in_use_does_not_stop_the_server(folder: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with Prefork("--metrics", f"127.0.0.1:{port}", cwd=folder) as server:
            server.wait_log("another process listens there")
            server.wait_log("agent ended, not started again")
            assert server.get()[0] == 200


def test_what_the_agent_needs_never_gets_into_the_apps_process(folder: Path):
    write_app(
        folder,
        """
        import sys

        def app(environ, start_response):
            start_response("200 OK", [])
            own = {"prometheus_client", "asyncio", "http.server", "argparse"}
            return [" ".join(sorted(own & set(sys.modules))).encode()]
        """,
    )
    port = reserve_port()
    with Prefork("--metrics", f"127.0.0.1:{port}", cwd=folder) as server:
        assert "prometheus_client" not in server.get()[1]


def test_control_socket_answers_status_and_refuses_nonsense(folder: Path):
    with Prefork("-w", "2", cwd=folder) as server:
        assert server.ask({"op": "status"}) == {
            "state": "serving",
            "generation": 1,
            "content": {},
            "generations": [{"generation": 1, "content": {}}],
            "workers": {"desired": 2, "ready": 2, "busy": 0},
            "reload": None,
            "reloading": False,
            "crash_loop": None,
        }
        assert "use status, reload or stop" in server.ask({"op": "dance"})["error"]
        assert "needs an id" in server.ask({"op": "reload"})["error"]
        answer = server.reload("x")
        assert answer == {
            "id": "x",
            "result": "succeeded",
            "message": "",
            "traceback": "",
            "generation": 2,
        }
        assert server.ask({"op": "status"})["reload"]["id"] == "x"
        mode = (server.run_dir / "control.sock").stat().st_mode & 0o777
        assert mode == 0o660
        assert (server.run_dir / "stats").stat().st_mode & 0o777 == 0o660


def test_control_clients_that_leave_or_flood_harm_nobody(folder: Path):
    with Prefork(cwd=folder) as server:
        for data in (b"", b"{", b"[1]\n", b"x" * 200_000, b'{"op":"reload","id":"gone"}\n'):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(server.run_dir / "control.sock"))
                try:
                    client.sendall(data)
                except ConnectionError:
                    continue
        server.wait(lambda: server.ask({"op": "status"})["generation"] == 2)
        assert server.get()[0] == 200


def test_agent_without_prometheus_client_says_what_to_install(folder: Path):
    """-S hides site-packages, as in an image that has prefork alone."""
    root = str(ROOT / "server/src")
    ended = subprocess.run(
        [sys.executable, "-S", "-m", "prefork", "agent", "--run-dir", str(folder)],
        env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, timeout=UNHURRIED_S, check=False,
    )  # fmt: skip
    assert ended.returncode == 5
    assert "pip install 'prefork[agent]'" in ended.stderr


def test_agent_runs_from_the_plain_folder_with_what_lies_in_agent_site(folder: Path):
    """-S: nothing but the folder and the standard library, as in the image."""
    home = folder / "image"
    shutil.copytree(ROOT / "server/src/prefork", home / "prefork")
    shutil.copy(ROOT / "server/image/__main__.py", home)
    shutil.copytree(Path(prometheus_client.__file__).parent, home / "agent-site/prometheus_client")
    command = (sys.executable, "-S", str(home))
    with (
        Prefork(cwd=folder, command=command) as server,
        running_agent(server.run_dir, command=command) as agent,
    ):
        server.get()
        # Counted when the answer has been sent, a moment after the client has it.
        server.wait(
            lambda: agent.value("wsgi_http_requests_total", method="GET", code="200") == 1,
            what="the request is not counted",
        )


def test_agent_names_the_wrong_argument(folder: Path):
    for arguments, message in (
        (["--run-dir", "x", "--content", "a"], "content is a; use NAME=DIR"),
        (["--run-dir", "x", "--probe", "ftp://x"], "use an address that begins with http://"),
        ([], "--run-dir"),
    ):
        ended = run_prefork("agent", *arguments, cwd=folder)
        assert ended.returncode == 2
        assert message in ended.stderr


def test_killed_agent_is_started_again(folder: Path):
    port = reserve_port()
    with Prefork("--metrics", f"127.0.0.1:{port}", cwd=folder) as server:
        agent = Agent(port)
        wait_until(lambda: agent.fetch("/livez")[0] == 200, UNHURRIED_S, log=server.log)
        (pid,) = [
            child
            for child in children_of(server.process.pid)
            if not name_of(child).startswith("prefork-")
        ]
        os.kill(pid, signal.SIGKILL)
        server.wait_log("agent ended, started again")
        wait_until(lambda: agent.fetch("/livez")[0] == 200, UNHURRIED_S, log=server.log)


def test_agent_of_the_server_is_ready_only_while_the_health_path_answers(folder: Path):
    app = """
        import os

        def app(environ, start_response):
            asks_well = environ["PATH_INFO"] != "/healthz" or environ["HTTP_HOST"] == "shop.example"
            good = asks_well and not os.path.exists("unhealthy")
            start_response("200 OK" if good else "503 Service Unavailable", [("Content-Length", "0")])
            return []
    """
    write_app(folder, app)
    agent = Agent(reserve_port())
    health = ("--health-path=/healthz", "--health-host=shop.example")
    with Prefork(*health, f"--metrics=127.0.0.1:{agent.port}", cwd=folder):
        agent.wait_ready()
        (folder / "unhealthy").touch()
        wait_until(lambda: agent.fetch("/readyz")[0] == 503, UNHURRIED_S, what="still ready")
