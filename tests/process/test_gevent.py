"""Worker class gevent: calls in greenlets of one hub."""

import asyncio
import json
import os
import resource
import signal
import socket
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest

from tests.process.harness import (
    Prefork,
    run_prefork,
    wait_loaded,
    wait_loaded_by,
    write_app,
)
from tests.support.background_load import BackgroundLoad
from tests.support.load_report import LoadPlan
from tests.support.wait import UNHURRIED_S

APP = """
    import contextvars, ctypes, os, threading, time

    VERSION = "{version}"
    local = threading.local()
    asleep = 0
    released = threading.Event()

    def app(environ, start_response):
        global asleep
        path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
        start = lambda: start_response("200 OK", [("X-App-Version", VERSION)])
        if path == "/echo":
            body = environ["wsgi.input"].read()
            start_response("200 OK", [("Content-Length", str(len(body))), ("X-App-Version", VERSION)])
            return [body]
        if path == "/slow":
            asleep += 1
            time.sleep(float(query.partition("=")[2]) / 1000)
            asleep -= 1
        elif path == "/wait":
            asleep += 1
            released.wait()
            asleep -= 1
        elif path == "/until-go":
            asleep += 1
            while not os.path.exists("go"):
                time.sleep(0.02)
            asleep -= 1
        elif path == "/release":
            released.set()
        elif path == "/asleep":
            start()
            return [b"%d" % asleep]
        elif path == "/stream":
            start()
            return stream(int(query))
        elif path == "/block":
            ctypes.CDLL(None).usleep(int(float(query) * 1e6))
        elif path == "/block-until-go":
            open("blocked", "w").close()
            while not os.path.exists("go"):
                ctypes.CDLL(None).usleep(20_000)
        elif path == "/own":
            is_new = not hasattr(local, "number")
            local.number = query
            time.sleep(0.05)
            start()
            return [b"%d %s" % (is_new, local.number.encode())]
        elif path == "/stubborn":
            while True:
                try:
                    time.sleep(60)
                except BaseException:
                    pass
        elif path == "/ended":
            try:
                time.sleep(60)
            except BaseException as error:
                open("ended", "w").write(type(error).__name__ + ": " + str(error))
                raise
        start_response("200 OK", [("Content-Length", "5"), ("X-App-Version", VERSION)])
        return [b"hello"]

    def stream(count):
        for number in range(count):
            yield b"%07d\\n" % number * 1024
            time.sleep(0)
"""


@pytest.fixture
def folder(folder: Path) -> Path:
    write_app(folder, APP)
    return folder


def gevent(*arguments: str, cwd: Path, wait: bool = True) -> Prefork:
    return Prefork("-k", "gevent", *arguments, cwd=cwd, wait=wait)


def get_later(pool: ThreadPoolExecutor, server: Prefork, path: str):
    return pool.submit(server.get, path, timeout_s=UNHURRIED_S)


def wait_asleep(server: Prefork, count: int) -> None:
    server.wait(lambda: int(server.get("/asleep")[1]) == count, 60, what=f"not {count} asleep")


def test_hello_and_keep_alive(folder: Path):
    with gevent(cwd=folder) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=UNHURRIED_S)
        for _ in range(3):
            connection.request("GET", "/")
            response = connection.getresponse()
            assert (response.status, response.read()) == (200, b"hello")
        connection.close()
        assert "app imported" in server.log()
        assert "each worker imports" not in server.log()


async def wait_together(port: int, count: int) -> list[bytes]:
    async def one() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /wait HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        return answer

    return await asyncio.gather(*(one() for _ in range(count)))


def test_a_thousand_requests_sleep_at_once_in_one_worker(folder: Path):
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    with gevent("-t", "300", cwd=folder) as server, ThreadPoolExecutor(1) as pool:
        work = pool.submit(lambda: asyncio.run(wait_together(server.port, 1000)))
        wait_asleep(server, 1000)
        assert server.get("/release")[0] == 200
        answers = work.result(120)
        assert {answer[:15] for answer in answers} == {b"HTTP/1.1 200 OK"}
        assert {answer[-5:] for answer in answers} == {b"hello"}
        assert len(server.workers()) == 1


def test_locals_belong_to_a_request(folder: Path):
    with gevent(cwd=folder) as server, ThreadPoolExecutor(8) as pool:
        paths = [f"/own?{number}" for number in range(24)]
        bodies = [body for _, body in pool.map(server.get, paths)]
        assert bodies == [f"1 {number}" for number in range(24)]


def test_streams_to_a_slow_reader_while_others_are_served(folder: Path):
    count = 1500  # 12 MiB: more than sockets and buffers take
    with gevent(cwd=folder) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as slow:
            slow.settimeout(UNHURRIED_S)
            slow.sendall(b"GET /stream?%d HTTP/1.0\r\nHost: x\r\n\r\n" % count)
            assert slow.recv(15) == b"HTTP/1.1 200 OK"
            for _ in range(20):
                assert server.get()[0] == 200
            received = b""
            while piece := slow.recv(1 << 20):
                received += piece
        body = received.partition(b"\r\n\r\n")[2]
        assert body == b"".join(b"%07d\n" % number * 1024 for number in range(count))


def test_waits_cooperatively_when_a_client_does_not_read_and_there_is_no_spool(folder: Path):
    # A client that does not read is given ten minutes.
    arguments = ("--spool-size", "0", "--buffer-memory", "1Mi", "--write-timeout", "600", "-t", "0")
    with gevent(*arguments, cwd=folder) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as slow:
            slow.settimeout(UNHURRIED_S)
            slow.sendall(b"GET /stream?1500 HTTP/1.0\r\nHost: x\r\n\r\n")
            assert slow.recv(15) == b"HTTP/1.1 200 OK"
            for _ in range(10):
                assert server.get()[0] == 200
            size = 0
            while piece := slow.recv(1 << 20):
                size += len(piece)
        assert size > 1500 * 8192


@pytest.mark.parametrize("arguments", [(), ("--stream-request-bodies",)])
def test_uploads(folder: Path, arguments: tuple[str, ...]):
    body = os.urandom(3_000_000)
    with gevent(*arguments, cwd=folder) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.settimeout(UNHURRIED_S)
            head = b"POST /echo HTTP/1.0\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            client.sendall(head + body[:1_500_000])
            # Half of the body is on its way: others are served meanwhile.
            assert server.get()[0] == 200
            client.sendall(body[1_500_000:])
            received = b""
            while piece := client.recv(1 << 20):
                received += piece
        assert received.endswith(body)


def test_a_request_that_sleeps_too_long_gets_504_and_ends_and_others_go_on(folder: Path):
    with gevent("-t", "5", cwd=folder) as server, ThreadPoolExecutor(2) as pool:
        worker = server.workers()
        late = get_later(pool, server, "/ended")
        wait_log_of(server)
        other = get_later(pool, server, "/slow?ms=600")
        assert late.result()[0] == 504
        assert other.result() == (200, "hello")
        ended = server.wait(
            lambda: (folder / "ended").exists() and (folder / "ended").read_text(),
            what="the request is not ended",
        )
        assert "RequestTimeout: the request took longer than --timeout" in ended
        # Where it waited.
        server.wait_log(r"request timed out .*target=/ended")
        server.wait_log(r"in app\n")
        assert server.get()[0] == 200
        assert server.workers() == worker
        assert "worker stuck" not in server.log()


def wait_log_of(server: Prefork) -> None:
    """Wait until the server has begun another request after those that were sent."""
    assert server.get()[0] == 200


def test_a_request_that_refuses_to_end_costs_its_worker(folder: Path):
    with gevent("-t", "3", cwd=folder) as server:
        worker = server.workers()
        assert server.get("/stubborn")[0] == 504
        server.wait(lambda: server.workers() != worker and len(server.workers()) == 1)
        assert server.get()[0] == 200


def test_a_blocked_hub_is_replaced_and_its_stack_logged(folder: Path):
    with gevent("-t", "3", cwd=folder) as server, ThreadPoolExecutor(1) as pool:
        worker = server.workers()[0]
        blocked = get_later(pool, server, "/block?30")
        server.wait_log(r"request timed out .*target=/block")
        server.wait_log(r"app\.py.*in app\n.*usleep")
        assert blocked.result()[0] == 504
        server.wait(lambda: worker not in server.workers() and server.workers())
        assert server.get()[0] == 200


def test_a_hub_blocked_outside_of_requests_is_replaced(folder: Path):
    background = """
    import ctypes, gevent
    def block():
        ctypes.CDLL(None).usleep(30_000_000)
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/block":
            gevent.spawn_later(1, block)
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"]
    """
    write_app(folder, background)
    with gevent("-t", "3", cwd=folder) as server:
        worker = server.workers()[0]
        assert server.get("/block")[0] == 200
        server.wait_log(r"hub is blocked")
        server.wait_log(r"in block\n")
        server.wait(lambda: worker not in server.workers() and server.workers())
        assert server.get()[0] == 200


def test_requests_that_wait_for_a_blocked_hub_are_passed_to_another_worker(folder: Path):
    with gevent("-w", "2", "-t", "300", cwd=folder) as server, ThreadPoolExecutor(1) as pool:
        # A connection of each worker, by which both could be reached while one is blocked.
        connections = [
            HTTPConnection("127.0.0.1", server.port, timeout=UNHURRIED_S) for _ in range(16)
        ]
        for connection in connections:
            connection.request("GET", "/")
            connection.getresponse().read()
        blocked = get_later(pool, server, "/block-until-go")
        server.wait((folder / "blocked").exists)
        for connection in connections:
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"hello"
            connection.close()
        assert not blocked.done()
        (folder / "go").touch()
        assert blocked.result()[0] == 200


def test_reload_under_load_loses_nothing(folder: Path):
    with gevent("-w", "2", cwd=folder) as server:
        plan = LoadPlan(url=server.url, duration_s=600, connections=16, slow_share=0.2, slow_ms=20)
        with BackgroundLoad(plan) as load:
            wait_loaded(load)
            for version in ("2", "3"):
                write_app(folder, APP, version=version)
                answer = server.reload(version)
                assert answer["result"] == "succeeded", answer
                assert server.version() == version
                wait_loaded_by(load, version)
            report = load.finish()
        assert (report.failed, report.wrong) == (0, 0), (report.reasons, report.errors)
        assert set(report.versions) == {"1", "2", "3"}


def test_workers_are_handed_over_at_max_requests_without_a_loss(folder: Path):
    with gevent("-w", "2", "--max-requests", "200", cwd=folder) as server:
        plan = LoadPlan(url=server.url, duration_s=600, connections=16, slow_share=0.2, slow_ms=20)
        with BackgroundLoad(plan) as load:
            wait_loaded(load)
            server.wait(lambda: server.log().count("reason=max_requests") >= 3, 120)
            report = load.finish()
        assert (report.failed, report.wrong) == (0, 0), (report.reasons, report.errors)


def test_term_finishes_what_runs(folder: Path):
    with gevent("-t", "300", cwd=folder) as server, ThreadPoolExecutor(20) as pool:
        # They sleep until all of them do, and the server has been told to stop.
        running = [get_later(pool, server, "/until-go") for _ in range(20)]
        wait_asleep(server, 20)
        server.signal(signal.SIGTERM)
        server.wait_log("prefork shutting down")
        (folder / "go").touch()
        assert {answer.result() for answer in running} == {(200, "hello")}
        assert server.wait_exit() == 0
        assert "reason=retired" in server.log()


def test_quick_stop_ends_at_once_with_sleeping_requests(folder: Path):
    options = ("-t", "600", "--graceful-timeout", "600")
    with gevent(*options, cwd=folder) as server, ThreadPoolExecutor(1) as pool:
        running = get_later(pool, server, "/until-go")  # which never comes
        wait_asleep(server, 1)
        server.signal(signal.SIGINT)
        assert server.wait_exit() == 0
        with pytest.raises((OSError, HTTPException)):
            running.result()


def test_a_client_that_pipelines_gets_all_answers(folder: Path):
    with (
        gevent(cwd=folder) as server,
        socket.create_connection(("127.0.0.1", server.port)) as client,
    ):
        client.settimeout(UNHURRIED_S)
        client.sendall(b"GET /slow?ms=50 HTTP/1.1\r\nHost: x\r\n\r\n" * 5)
        received = b""
        while received.count(b"hello") < 5:
            piece = client.recv(65536)
            assert piece, received
            received += piece


def test_each_worker_patches_and_imports_for_itself_where_the_import_cannot_be_shared(folder: Path):
    write_app(
        folder,
        """
        import gevent, os
        gevent.spawn(lambda: open(f"spawned.{os.getpid()}", "w"))
        gevent.sleep(0)
        import threading
        def app(environ, start_response):
            start_response("200 OK", [])
            return [threading.get_ident.__module__.encode()]
        """,
    )
    with gevent("-w", "2", cwd=folder) as server:
        assert server.get() == (200, "gevent.thread")
        server.wait_log("each worker imports|import.* not shared|imports for itself")
        for pid in server.wait_workers(2):
            assert (folder / f"spawned.{pid}").exists()


def test_hooks_and_children(folder: Path):
    (folder / "gunicorn.conf.py").write_text(
        "def note(name):\n"
        "    import os\n"
        "    open(f'{name}.{os.getpid()}', 'w')\n"
        "def post_fork(server, worker): note('post_fork')\n"
        "def post_worker_init(worker): note('post_worker_init')\n"
        "def worker_exit(server, worker): note('worker_exit')\n"
    )
    write_app(
        folder,
        """
        import multiprocessing, subprocess
        def child(value):
            return value * 2
        def app(environ, start_response):
            start_response("200 OK", [])
            if environ["PATH_INFO"] == "/run":
                return [subprocess.check_output(["echo", "-n", "spawned"])]
            with multiprocessing.get_context("fork").Pool(1) as pool:
                return [b"%d" % pool.map(child, [21])[0]]
        """,
    )
    with gevent(cwd=folder) as server:
        (worker,) = server.workers()
        assert server.get("/run") == (200, "spawned")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    for name in ("post_fork", "post_worker_init", "worker_exit"):
        assert (folder / f"{name}.{worker}").exists(), name


def test_gevent_that_is_missing_is_named_with_the_remedy(folder: Path):
    # Python finds no gevent, as where it is not installed.
    (folder / "sitecustomize.py").write_text(
        "from importlib.machinery import PathFinder\n"
        "find_spec = PathFinder.find_spec\n"
        "def hide(name, path=None, target=None):\n"
        "    return None if name == 'gevent' else find_spec(name, path, target)\n"
        "PathFinder.find_spec = hide\n"
    )
    for arguments in (["--check-config"], ["-b", "127.0.0.1:0"]):
        done = run_prefork(
            "-k", "gevent", *arguments, "app:app", cwd=folder,
            environment={"PYTHONPATH": str(folder)},
        )  # fmt: skip
        assert done.returncode == 2, (done.returncode, done.stderr)
        assert "gevent is not installed" in done.stderr
        assert "pip install gevent" in done.stderr


def test_threads_never_import_gevent(folder: Path):
    write_app(
        folder,
        """
        import sys
        def app(environ, start_response):
            start_response("200 OK", [])
            return [str([m for m in sys.modules if "gevent" in m or "greenlet" in m]).encode()]
        """,
    )
    with Prefork(cwd=folder) as server:
        assert json.loads(server.get()[1]) == []


def test_check_config_patches_before_the_import(folder: Path):
    write_app(
        folder,
        """
        import threading
        assert threading.get_ident.__module__ == "gevent.thread"
        def app(environ, start_response): ...
        """,
    )
    done = run_prefork("-k", "gevent", "--check-config", "app:app", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "can be shared" in done.stderr


def test_a_reload_is_gated_by_the_health_path(folder: Path):
    with gevent("--health-path", "/", cwd=folder) as server:
        write_app(
            folder,
            """
            import time
            def app(environ, start_response):
                time.sleep(0.01)
                start_response("500 Oh", [("X-App-Version", "2")])
                return [b"no database"]
            """,
        )
        answer = server.reload("bad")
        assert (answer["result"], server.version()) == ("failed", "1")
        assert "no database" in answer["message"]
        write_app(folder, APP, version="3")
        assert server.reload("good")["result"] == "succeeded"
        assert server.version() == "3"


def test_a_child_that_a_request_forks_lives_apart_from_the_other_requests(folder: Path):
    write_app(
        folder,
        """
        import multiprocessing, os, time
        def child():
            time.sleep(1.5)
            open("child", "w").write("done")
        def app(environ, start_response):
            if environ["PATH_INFO"] == "/fork":
                multiprocessing.get_context("fork").Process(target=child).start()
            elif environ["PATH_INFO"] == "/sleep":
                time.sleep(1)
            start_response("200 OK", [("Content-Length", "5")])
            return [b"%05d" % (os.getpid() % 100000)]
        """,
    )
    with gevent(cwd=folder) as server, ThreadPoolExecutor(6) as pool:
        (worker,) = server.workers()
        mine = (200, f"{worker % 100000:05}")
        asleep = [get_later(pool, server, "/sleep") for _ in range(5)]
        assert server.get() == mine
        assert server.get("/fork") == mine
        for _ in range(50):
            assert server.get() == mine
        assert {answer.result() for answer in asleep} == {mine}
        server.wait(lambda: (folder / "child").exists() and (folder / "child").read_text())
        assert server.get() == mine


@pytest.mark.parametrize(
    "raised", ["SystemExit", "KeyboardInterrupt", "SystemError", "killall", "alarm", "callback"]
)
def test_what_a_greenlet_of_the_app_raises_ends_no_other_request(folder: Path, raised: str):
    write_app(
        folder,
        """
        import gc, gevent, signal, threading

        # They wait without running in between: the handler of a signal runs in whatever greenlet runs.
        released = threading.Event()

        def throw(error):
            raise error

        def on_alarm(number, frame):
            raise ValueError("too late")

        signal.signal(signal.SIGALRM, on_alarm)

        def begin(what):
            if what == "killall":
                own = gevent.getcurrent()
                all = [one for one in gc.get_objects() if isinstance(one, gevent.Greenlet)]
                gevent.killall([one for one in all if one is not own], block=False)
            elif what == "alarm":
                signal.setitimer(signal.ITIMER_REAL, 0.5)
                gevent.sleep(1)
            elif what == "callback":
                gevent.get_hub().loop.run_callback(throw, SystemExit("of a callback"))
            else:
                gevent.spawn(throw, __builtins__[what]("of a greenlet"))
            gevent.sleep(0.2)

        asleep = 0

        def app(environ, start_response):
            global asleep
            if environ["PATH_INFO"] == "/sleep":
                asleep += 1
                released.wait()
            elif environ["PATH_INFO"] == "/begin":
                begin(environ["QUERY_STRING"])
            elif environ["PATH_INFO"] == "/release":
                released.set()
            start_response("200 OK", [])
            return [b"%d" % asleep]
        """,
    )
    with gevent(cwd=folder) as server, ThreadPoolExecutor(3) as pool:
        workers = server.workers()
        asleep = [get_later(pool, server, "/sleep") for _ in range(3)]
        server.wait(lambda: int(server.get()[1]) == 3)
        assert server.get(f"/begin?{raised}")[0] == 200
        assert server.get("/release")[0] == 200
        # Those that the app kills itself are answered too.
        assert {answer.result()[0] for answer in asleep} == {500 if raised == "killall" else 200}
        assert server.get()[0] == 200
        assert server.workers() == workers
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert "reason=crash" not in server.log()
