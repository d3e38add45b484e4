"""Workers that die, hang, grow old or are too many; molds and arbiters that are killed."""

import errno
import os
import re
import resource
import signal
import socket
import statistics
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from http.client import HTTPException
from itertools import pairwise
from pathlib import Path

import pytest

from tests.process.harness import (
    APP,
    Prefork,
    is_gone,
    most_descriptors,
    open_files,
    run_prefork,
    unhurried_plan,
    wait_loaded,
    write_app,
)
from tests.support.background_load import BackgroundLoad
from tests.support.ports import reserve_port
from tests.support.wait import UNHURRIED_S, children_of, wait_until


def test_killed_worker_is_replaced_within_50_ms(folder: Path):
    """Where the machine is too busy for that: in a fraction of the time that it took to start the server."""
    for _ in range(8):
        began = time.time()
        with Prefork("-w", "2", cwd=folder) as server:
            start_s = logged(server, "generation active")[0] - began
            boots = [time_replacement(server) for _ in range(5)]  # more would be a crash loop
            assert "reason=killed" in server.log()
            assert {server.get()[0] for _ in range(20)} == {200}
        limit_s = max(0.05, start_s / 4)
        print(f"killed to ready, at most {limit_s:.3f} s: {[f'{boot:.3f}' for boot in boots]}")
        if statistics.median(boots) < limit_s:
            break
    assert min(boots) < limit_s


def time_replacement(server: Prefork) -> float:
    """Kill a worker; return seconds until the log says that another one is ready."""
    victim = server.wait_workers(2)[0]
    seen = len(server.log())
    began = time.time()
    os.kill(victim, signal.SIGKILL)
    ready = server.wait(lambda: re.search(r"^(\S+)Z INFO +worker ready", server.log()[seen:], re.M))
    return logged_at(ready[1]) - began


def logged(server: Prefork, message: str) -> list[float]:
    """Return when the lines with a message were logged, in seconds since the epoch."""
    stamps = re.findall(rf"^(\S+)Z [A-Z]+ +{re.escape(message)}", server.log(), re.M)
    return [logged_at(stamp) for stamp in stamps]


def logged_at(stamp: str) -> float:
    """Return the seconds since the epoch of a log line's time."""
    return datetime.fromisoformat(stamp).replace(tzinfo=UTC).timestamp()


def test_all_workers_killed_come_back(folder: Path):
    with Prefork("-w", "4", cwd=folder) as server:
        for pid in server.workers():
            os.kill(pid, signal.SIGKILL)
        server.wait(lambda: server.log().count("worker ready") == 8)
        assert server.get()[0] == 200


def test_killed_mold_is_replaced_and_its_workers_go_on(folder: Path):
    with Prefork("-w", "2", cwd=folder) as server:
        workers, mold = server.workers(), server.mold()
        os.kill(mold, signal.SIGKILL)
        server.wait(lambda: server.pids("mold") not in ([], [mold]))
        server.wait(lambda: server.log().count("app imported") == 2)
        assert server.workers() == workers
        os.kill(workers[0], signal.SIGKILL)
        server.wait(lambda: server.log().count("worker ready") == 3)
        assert server.get()[0] == 200


def test_worker_killed_while_there_is_no_mold_is_replaced_as_soon_as_there_is_one(folder: Path):
    with Prefork("-w", "2", cwd=folder) as server:
        os.kill(server.mold(), signal.SIGKILL)
        os.kill(server.workers()[0], signal.SIGKILL)
        server.wait(lambda: server.log().count("worker ready") == 3)
        server.wait_workers(2)


def test_killed_arbiter_leaves_nobody_behind_and_running_requests_are_answered(folder: Path):
    port = reserve_port()
    with Prefork("-w", "2", cwd=folder, bind=f"127.0.0.1:{port}") as server:
        family = [*server.workers(), server.mold()]
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(server.get, "/wait", timeout_s=60)
            wait_until(lambda: server.ask({"op": "status"})["workers"]["busy"] == 1)
            os.kill(server.process.pid, signal.SIGKILL)
            (folder / "go").touch()
            assert answer.result()[0] == 200
        wait_until(lambda: all(is_gone(pid) for pid in family), what="still alive", log=server.log)
        wait_until(lambda: is_refused(port), what="connections are still taken")


def is_refused(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(UNHURRIED_S)
        return client.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED


def test_worker_in_a_call_that_holds_the_gil_does_not_outlive_a_killed_arbiter(folder: Path):
    """No thread of its Python notices that the arbiter is gone."""
    write_app(
        folder,
        """
        import ctypes

        def app(environ, start_response):
            start_response("200 OK", [("Content-Length", "2")])
            if environ["PATH_INFO"] == "/hold":
                ctypes.PyDLL(None).sleep(3600)
            return [b"ok"]
        """,
    )
    with Prefork("-w", "2", "--graceful-timeout", "1", cwd=folder) as server:
        family = [*server.workers(), server.mold()]
        client = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        client.sendall(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        server.wait(lambda: server.ask({"op": "status"})["workers"]["busy"] == 1)
        os.kill(server.process.pid, signal.SIGKILL)
        wait_until(lambda: all(is_gone(pid) for pid in family), what="still alive", log=server.log)
        client.close()


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_server_that_is_started_right_after_a_kill_serves_and_no_request_is_lost(
    folder: Path, kind: str
):
    """The killed server's workers still answer a request for longer than a supervisor waits between two starts."""
    port = reserve_port()
    bind = f"127.0.0.1:{port}" if kind == "tcp" else f"unix:{folder}/s"

    def ask(path: str) -> tuple[int, str]:
        with socket.socket(socket.AF_INET if kind == "tcp" else socket.AF_UNIX) as client:
            client.settimeout(UNHURRIED_S)
            client.connect(("127.0.0.1", port) if kind == "tcp" else f"{folder}/s")
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        return int(answer[9:12] or b"0"), answer.rpartition(b"\r\n")[2].decode()

    with ThreadPoolExecutor(2) as pool, Prefork("-w", "2", cwd=folder, bind=bind) as killed:
        old = killed.workers()
        answers = [pool.submit(ask, "/wait") for _ in old]
        killed.wait(lambda: killed.ask({"op": "status"})["workers"]["busy"] == 2)
        os.kill(killed.process.pid, signal.SIGKILL)
        killed.process.wait()
        with Prefork("-w", "1", cwd=folder, bind=bind, wait=False) as server:
            server.wait_log("waiting for workers of a server that was killed|generation active")
            assert not any(answer.done() for answer in answers)
            (folder / "go").touch()
            server.wait_serving()
            status, text = ask("/")
            assert (status, text) == (200, f"hello from {server.workers()[0]}")
        assert [answer.result()[0] for answer in answers] == [200, 200]


def test_start_on_a_taken_address_waits_for_no_workers_of_another_server(folder: Path):
    other = folder / "other"
    other.mkdir()
    write_app(other)
    with Prefork("-w", "1", cwd=other) as killed, Prefork("-w", "1", cwd=folder) as server:
        orphan = killed.workers()[0]
        with socket.create_connection(("127.0.0.1", killed.port), UNHURRIED_S) as client:
            client.sendall(b"GET /wait HTTP/1.1\r\nHost: a\r\n\r\n")
            killed.wait(lambda: killed.ask({"op": "status"})["workers"]["busy"] == 1)
            os.kill(killed.process.pid, signal.SIGKILL)
            killed.process.wait()
            ended = run_prefork("-b", f"127.0.0.1:{server.port}", "app:app", cwd=folder)
            assert not is_gone(orphan)
            (other / "go").touch()
        wait_until(lambda: is_gone(orphan))
        assert "another process listens there" in ended.stderr
        assert "waiting" not in ended.stderr


def test_ttin_and_ttou_change_the_number_of_workers(folder: Path):
    with Prefork("-w", "2", cwd=folder) as server:
        server.signal(signal.SIGTTIN)
        server.wait_workers(3)
        server.signal(signal.SIGTTIN)
        server.wait_workers(4)
        for workers in (3, 2, 1):
            server.signal(signal.SIGTTOU)
            # Two of the same signal in one moment are one.
            server.wait_log(f"worker count changed workers={workers} before={workers + 1}")
        server.wait_workers(1)
        server.signal(signal.SIGTTOU)
        assert server.get()[0] == 200
        assert len(server.wait_workers(1)) == 1


def test_scaling_down_under_load_fails_nothing(folder: Path):
    with Prefork("-w", "4", cwd=folder) as server:
        with BackgroundLoad(unhurried_plan(server.url, 300)) as load:
            wait_loaded(load)
            down, up = signal.SIGTTOU, signal.SIGTTIN
            for number, workers in ((down, 3), (down, 2), (up, 3), (down, 2)):
                server.signal(number)
                server.wait(
                    lambda n=workers: server.ask({"op": "status"})["workers"]["desired"] == n
                )
                load.run_until(load.elapsed_s + 0.5)
            report = load.finish()
        server.wait_workers(2)
    assert report.is_clean, report.to_text()
    assert report.retried_reused_get == 0


def test_timed_out_request_gets_504_its_stack_is_logged_and_its_worker_is_replaced(folder: Path):
    with Prefork("-w", "1", "-t", "3", cwd=folder) as server:
        (victim,) = server.workers()
        assert server.get("/slow?ms=600000")[0] == 504
        assert server.get()[0] == 200
        server.wait_log(r"request timed out .*method=GET target=\"?/slow\?ms=600000")
        server.wait_log(r"app\.py\", line \d+, in app\n\s+time\.sleep")
        server.wait(lambda: is_gone(victim))
        server.wait_log("reason=timeout")


def test_other_calls_of_a_stuck_worker_are_finished(folder: Path):
    with (
        Prefork("-w", "1", "--threads", "2", "-t", "6", cwd=folder) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        (victim,) = server.workers()
        stuck = pool.submit(server.get, "/slow?ms=600000")
        server.wait(lambda: server.ask({"op": "status"})["workers"]["busy"] == 1)
        time.sleep(5)  # so that this call is young when the other one times out
        other = pool.submit(server.get, "/wait")
        assert stuck.result()[0] == 504
        (folder / "go").touch()
        assert other.result()[0] == 200
        server.wait(lambda: is_gone(victim))


def test_call_that_holds_the_interpreter_lock_is_noticed_from_outside(folder: Path):
    """PyDLL keeps the GIL during the call: no other thread of the worker runs Python."""
    write_app(
        folder,
        """
        import ctypes

        def app(environ, start_response):
            if environ["PATH_INFO"] == "/hold":
                ctypes.PyDLL(None).sleep(600)
            start_response("200 OK", [("Content-Length", "2")])
            return [b"ok"]
        """,
    )
    with Prefork("-w", "1", "-t", "3", cwd=folder) as server:
        (victim,) = server.workers()
        assert server.get("/hold")[0] == 504
        server.wait_log("worker is hung and cannot report its request")
        assert server.get()[0] == 200
        server.wait(lambda: is_gone(victim))
        server.wait_log(r'app\.py", line 6 in app')
        server.wait_log("reason=timeout")


def test_max_requests_replaces_workers_without_a_failed_request(folder: Path):
    with (
        Prefork(
            "-w", "2", "--max-requests", "100", "--max-requests-jitter", "20", cwd=folder
        ) as server,
        BackgroundLoad(unhurried_plan(server.url, 300)) as load,
    ):
        wait_loaded(load)
        server.wait(lambda: server.log().count("reason=max_requests") >= 4, what="too few")
        report = load.finish()
    assert report.is_clean, report.to_text()
    assert report.retried_reused_get == 0


def test_worker_over_its_memory_limit_is_replaced(folder: Path):
    write_app(
        folder,
        """
        import os
        KEPT = []

        def app(environ, start_response):
            if environ["PATH_INFO"] == "/grow":
                KEPT.append(bytearray(os.urandom(1) * (64 * 1024 * 1024)))
            start_response("200 OK", [("Content-Length", "2"), ("X-App-Version", "1")])
            return [b"ok"]
        """,
    )
    with Prefork("-w", "1", "--max-worker-memory", "80Mi", cwd=folder) as server:
        (victim,) = server.workers()
        server.get("/grow")
        server.wait_log("worker is over max_worker_memory")
        server.wait(lambda: is_gone(victim))
        server.wait_log("reason=memory")
        assert server.get()[0] == 200


def test_workers_that_crash_in_a_row_are_forked_with_growing_pauses(folder: Path):
    write_app(
        folder,
        """
        import os, time

        def app(environ, start_response):
            with open("times", "a") as file:
                print("crash", time.monotonic(), file=file)
            os._exit(7)
        """,
    )
    (folder / "prefork.conf.py").write_text(
        textwrap.dedent("""
            import time

            def pre_fork(server, worker):
                with open("times", "a") as file:
                    print("fork", time.monotonic(), file=file)
        """)
    )
    with Prefork("-w", "1", cwd=folder) as server:
        for _ in range(30):
            ready, ended = server.log().count("worker ready"), server.log().count("worker exited")
            with pytest.raises((OSError, HTTPException), match=r"[Cc]los|[Rr]eset"):
                server.get()
            server.wait(lambda before=ended: server.log().count("worker exited") > before)
            # Asked at once, while the pause lasts; by the answer, it is logged.
            crash_loop = server.ask({"op": "status"})["crash_loop"]
            if crash_loop and server.log().count("waiting before the next") >= 4:
                break
            server.wait(lambda before=ready: server.log().count("worker ready") > before)
        assert crash_loop
        assert crash_loop["crashes"] > 5
        waits = [float(text) for text in re.findall(r"wait_s=([\d.]+)", server.log())]
        assert waits == sorted(waits)
        assert waits[0] > 0
        # The last crashes of those that are followed by a fork are those with a pause, which is as long as its line says.
        times = [line.split() for line in (folder / "times").read_text().splitlines()]
        pauses = [
            float(after[1]) - float(before[1])
            for before, after in pairwise(times)
            if (before[0], after[0]) == ("crash", "fork")
        ]
        paused = waits[: len(waits) - (times[-1][0] == "crash")]
        for pause, wait_s in zip(reversed(pauses), reversed(paused), strict=False):
            assert pause >= wait_s - 0.001
        assert 'how="exit code 7"' in server.log()


def test_worker_that_is_told_to_leave_finishes_its_request_and_is_replaced(folder: Path):
    with Prefork("-w", "2", cwd=folder) as server, ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(server.get, "/wait", timeout_s=60) for _ in range(2)]
        server.wait(lambda: server.ask({"op": "status"})["workers"]["busy"] == 2)
        victim = server.workers()[0]
        os.kill(victim, signal.SIGTERM)
        # Its replacement is there while it finishes.
        server.wait_workers(3)
        (folder / "go").touch()
        assert [answer.result()[0] for answer in answers] == [200, 200]
        server.wait(lambda: is_gone(victim))
        server.wait_workers(2)


def test_idle_worker_that_is_told_to_leave_is_replaced_and_no_crash(folder: Path):
    with Prefork("-w", "1", cwd=folder) as server:
        os.kill(server.workers()[0], signal.SIGTERM)
        server.wait_log("worker exited .*reason=retired")
        assert server.get()[0] == 200


def test_children_that_an_app_leaves_behind_do_not_keep_a_dead_worker_in_the_books(folder: Path):
    write_app(
        folder,
        """
        import os, subprocess, sys

        def app(environ, start_response):
            if environ["PATH_INFO"] == "/fork" and os.fork() == 0:
                import time
                time.sleep(30)
                os._exit(0)
            start_response("200 OK", [("Content-Length", "2")])
            return [b"ok"]
        """,
    )
    with Prefork("-w", "1", cwd=folder) as server:
        (victim,) = server.workers()
        server.get("/fork")
        os.kill(victim, signal.SIGKILL)
        server.wait_log("reason=killed")
        assert server.get()[0] == 200


FORKING = """
    import os, time

    def app(environ, start_response):
        body = b"ok"
        if environ["PATH_INFO"] == "/fork":
            child = os.fork()
            if child == 0:
                time.sleep(600)
            body = b"%d" % child
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
"""


def test_child_that_an_app_forks_can_be_terminated_and_its_worker_serves_on(folder: Path):
    """The handler in the child would write to the socket by which the worker learns of signals."""
    write_app(folder, FORKING)
    with Prefork("-w", "1", cwd=folder) as server:
        worker = server.workers()
        child = int(server.get("/fork")[1])
        os.kill(child, signal.SIGTERM)
        server.wait(lambda: is_gone(child), what="the child is still there")
        assert server.get()[0] == 200
        assert server.workers() == worker
        assert "worker exited" not in server.log()


def test_child_that_an_app_forks_holds_neither_addresses_nor_connections(folder: Path):
    write_app(folder, FORKING)
    with Prefork("-w", "1", cwd=folder) as server:
        port = server.port
        with socket.create_connection(("127.0.0.1", port), UNHURRIED_S) as client:
            client.sendall(b"GET /fork HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(4096), b""))
        child = int(answer.rpartition(b"\r\n")[2])
        try:
            server.signal(signal.SIGTERM)
            assert server.wait_exit() == 0
            assert not is_gone(child)
            # It closes what it has inherited a moment after it was forked.
            wait_until(lambda: is_refused(port), what="connections are still taken")
        finally:
            os.kill(child, signal.SIGKILL)


def test_hook_that_ends_the_program_does_not_end_the_server(folder: Path):
    (folder / "gunicorn.conf.py").write_text(
        "import sys\ndef nworkers_changed(server, new, old): sys.exit(9)\n"
    )
    with Prefork("-w", "1", cwd=folder) as server:
        server.signal(signal.SIGTTIN)
        server.wait_log("a step of the arbiter failed")
        server.wait_log("SystemExit: 9")
        assert server.get()[0] == 200
        assert server.reload()["result"] == "succeeded"


def test_arbiter_that_fails_again_and_again_is_no_busy_loop(folder: Path):
    """Without a descriptor it cannot accept the connection that waits at its control socket."""
    with (
        Prefork("-w", "1", cwd=folder) as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client,
    ):
        pid = server.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        used = most_descriptors(pid)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, limits[1]))
        client.connect(str(server.run_dir / "control.sock"))
        server.wait(lambda: len(logged(server, "a step of the arbiter failed")) >= 7)
        failed = logged(server, "a step of the arbiter failed")
        # Each turn of its loop ends with a pause; two steps of one may fail.
        assert all(after - first > 0.4 for first, after in zip(failed, failed[2:], strict=False))
        assert server.get()[0] == 200
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        client.sendall(b'{"op": "status"}\n')
        client.settimeout(UNHURRIED_S)
        assert b'"serving"' in client.recv(4096)


@pytest.mark.parametrize("line", [b"[" * 60_000, b"\xff", b"5", b'{"op": ["status"]}', b"{}"])
def test_nonsense_at_the_control_socket_is_answered_as_such(folder: Path, line: bytes):
    with (
        Prefork("-w", "1", cwd=folder) as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client,
    ):
        client.settimeout(UNHURRIED_S)
        client.connect(str(server.run_dir / "control.sock"))
        client.sendall(line + b"\n")
        assert client.recv(4096).startswith(b'{"error":')
        assert server.ask({"op": "status"})["state"] == "serving"


def test_frozen_mold_is_replaced_when_it_does_not_fork(folder: Path):
    with Prefork("-w", "1", "--boot-timeout", "5", cwd=folder) as server:
        mold = server.mold()
        os.kill(mold, signal.SIGSTOP)
        os.kill(server.workers()[0], signal.SIGKILL)
        server.wait(lambda: server.log().count("worker ready") == 2)
        assert server.get()[0] == 200
        server.wait(lambda: is_gone(mold), what="the frozen mold is still there")


def test_app_that_ignores_the_end_of_its_children_is_forked_all_the_same(folder: Path):
    ignores = "import signal\nsignal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
    write_app(folder, ignores + textwrap.dedent(APP))
    with Prefork("-w", "2", cwd=folder) as server:
        assert server.get()[0] == 200
        assert "worker not forked" not in server.log()


def test_worker_that_its_mold_forks_too_late_does_nothing(folder: Path):
    """By then its slot in the stats table is another's."""
    hang = """
        import os, time

        def hang():
            try:
                os.unlink("hang")  # the first one only
            except FileNotFoundError:
                return
            while not os.path.exists("go"):
                time.sleep(0.01)

        os.register_at_fork(after_in_child=hang)
    """
    write_app(folder, textwrap.dedent(hang) + textwrap.dedent(APP))
    (folder / "prefork.conf.py").write_text(
        "import os\ndef post_fork(server, worker):\n    print(os.getpid(), file=open('forked', 'a'))\n"
    )
    with Prefork("--preload=always", "--boot-timeout=4", cwd=folder) as server:
        (worker,) = server.wait_workers(1)
        mold = server.mold()
        (folder / "hang").touch()
        os.kill(worker, signal.SIGKILL)
        # The process between mold and worker hangs on.
        server.wait(lambda: is_gone(mold))
        server.wait(lambda: server.log().count("worker ready") == 2)
        (fresh,) = server.workers()
        assert len(server.pids("mold")) == 2
        (folder / "go").touch()
        server.wait(lambda: len(children_of(server.process.pid)) == 2, what="the late worker stays")
        assert server.workers() == [fresh]
        assert [int(pid) for pid in (folder / "forked").read_text().split()] == [worker, fresh]
        assert server.get()[0] == 200


def test_molds_that_fail_in_a_row_leave_no_descriptor_open(folder: Path):
    """Each is booted before the one before it, which has reported its failure, has ended."""
    with Prefork(cwd=folder) as server:
        write_app(
            folder,
            """
            import sys, time

            class SlowStream:
                def write(self, text): pass
                def flush(self): time.sleep(1)

            sys.stdout = SlowStream()
            raise RuntimeError("broken")
            """,
        )
        os.kill(server.mold(), signal.SIGKILL)
        server.wait(lambda: server.log().count("mold lost") >= 5)

        def stacks() -> int:
            return sum("prefork-stack" in link for link in open_files(server.process.pid).values())

        server.wait(lambda: stacks() <= 1, what="descriptors stay open")


def test_worker_whose_app_closes_all_descriptors_is_replaced(folder: Path):
    """It could neither accept nor be told anything, and counted as ready."""
    write_app(
        folder,
        """
        import os

        def app(environ, start_response):
            if environ["PATH_INFO"] == "/close":
                os.closerange(3, 1000)
            start_response("200 OK", [("Content-Length", "2")])
            return [b"ok"]
        """,
    )
    with Prefork("-w", "2", cwd=folder) as server:
        before = set(server.wait_workers(2))
        with pytest.raises(ConnectionError):
            server.get("/close")
        server.wait(
            lambda: len(now := set(server.workers())) == 2 and len(now & before) == 1,
            what="the worker is not replaced",
        )
        server.wait_log("worker has closed its channel to the arbiter")
        assert [server.get()[0] for _ in range(4)] == [200] * 4


def test_worker_that_gets_no_threads_ends_at_once_and_says_what_to_raise(folder: Path):
    """The limit of memory stands for that of processes, which root does not have: the kernel's answer is the same."""
    (folder / "gunicorn.conf.py").write_text(
        textwrap.dedent("""
            import re, resource

            def post_worker_init(worker):
                with open("/proc/self/status") as status:
                    used = int(re.search(r"VmSize:\\s+(\\d+)", status.read())[1]) << 10
                resource.setrlimit(resource.RLIMIT_AS, (used + (30 << 20),) * 2)
        """)
    )
    with Prefork("-w", "1", "--threads", "16", cwd=folder, wait=False) as server:
        found = server.wait_log(r"app threads cannot be started: raise the limit.*pid=(\d+)")
        wait_until(lambda: is_gone(int(found[1])), what="still there", log=server.log)
        server.signal(signal.SIGTERM)
        server.wait_exit()
