"""TERM answers what is there and ends with 0; INT does not wait; nothing is left behind."""

import errno
import os
import signal
import socket
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.process.harness import APP, Prefork, is_gone, write_app
from tests.support.wait import UNHURRIED_S, wait_until


def test_term_with_twenty_requests_in_flight_answers_all_of_them(folder: Path):
    """More requests than threads: those still in the accept queue are answered as well."""
    with Prefork("-w", "2", "--threads", "2", cwd=folder) as server, ExitStack() as stack:
        clients = []
        for _ in range(20):
            client = stack.enter_context(
                socket.create_connection(("127.0.0.1", server.port), UNHURRIED_S)
            )
            client.sendall(b"GET /slow?ms=200 HTTP/1.1\r\nHost: a\r\n\r\n")
            clients.append(client)
        server.signal(signal.SIGTERM)
        answers = [b"".join(iter(lambda c=client: c.recv(4096), b"")) for client in clients]
        assert [answer[:12] for answer in answers] == [b"HTTP/1.1 200"] * 20
        assert server.wait_exit() == 0


def test_term_leaves_no_process_socket_or_file_behind(folder: Path):
    with Prefork(
        "-w", "2", "-b", f"unix:{folder}/s", "-p", f"{folder}/pid", bind="", cwd=folder
    ) as server:
        family = [*server.workers(), server.mold()]
        assert (folder / "pid").read_text() == f"{server.process.pid}\n"
        assert (folder / "s").is_socket()
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert all(is_gone(pid) for pid in family)
        assert not (folder / "s").exists()
        assert not (folder / "pid").exists()
        # The directory is the user's; the next server there goes on with these counters.
        assert [path.name for path in (folder / "run").iterdir()] == ["stats.ended"]


def test_term_to_the_whole_process_group_is_graceful_too(folder: Path):
    """systemd's KillMode=control-group: arbiter, mold and workers get TERM in one moment."""
    with Prefork("-w", "2", cwd=folder, process_group=0) as server, ThreadPoolExecutor(2) as pool:
        answers = [pool.submit(server.get, "/wait", timeout_s=60) for _ in range(2)]
        server.wait(lambda: server.ask({"op": "status"})["workers"]["busy"] == 2)
        os.killpg(server.process.pid, signal.SIGTERM)
        server.wait_log("prefork shutting down")
        (folder / "go").touch()
        assert [answer.result()[0] for answer in answers] == [200, 200]
        assert server.wait_exit() == 0
        assert "reason=crash" not in server.log()
        assert "reason=killed" not in server.log()


def test_connections_that_come_too_late_are_refused_while_the_last_requests_run(folder: Path):
    """A thread is free to empty the accept queue; then nobody listens. Refused, a proxy tries elsewhere; accepted by a queue that nobody empties, they would be reset."""
    write_app(
        folder,
        """
        import os, time

        def app(environ, start_response):
            while not os.path.exists("go"):
                time.sleep(0.01)
            start_response("200 OK", [])
            return []
        """,
    )
    with Prefork("-w", "2", "--threads", "2", cwd=folder) as server, ThreadPoolExecutor(1) as pool:
        port = server.port
        answer = pool.submit(server.get, timeout_s=60)
        server.wait(lambda: server.ask({"op": "status"})["workers"]["busy"] == 1)
        server.signal(signal.SIGTERM)

        def is_refused() -> bool:
            with socket.socket() as late:
                return late.connect_ex(("127.0.0.1", port)) == errno.ECONNREFUSED

        server.wait(is_refused, what="connections are still taken")
        assert not answer.done()
        (folder / "go").touch()
        assert answer.result()[0] == 200
        assert server.wait_exit() == 0


def test_requests_that_outlast_the_graceful_timeout_are_cut_off(folder: Path):
    options = ("--timeout", "0", "--graceful-timeout", "0.5")
    with Prefork(*options, cwd=folder) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(server.get, "/slow?ms=600000")
        server.wait(lambda: server.ask({"op": "status"})["workers"]["busy"] == 1)
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


def test_int_does_not_wait_for_running_requests(folder: Path):
    for number in (signal.SIGINT, signal.SIGQUIT):
        options = ("-w", "2", "--timeout", "0", "--graceful-timeout", "600")
        with Prefork(*options, cwd=folder) as server, ThreadPoolExecutor(1) as pool:
            pool.submit(server.get, "/slow?ms=600000")
            server.wait(lambda s=server: s.ask({"op": "status"})["workers"]["busy"] == 1)
            server.signal(number)
            assert server.wait_exit() == 0


def test_int_turns_a_graceful_stop_into_a_quick_one(folder: Path):
    options = ("--timeout", "0", "--graceful-timeout", "600")
    with Prefork(*options, cwd=folder) as server, ThreadPoolExecutor(1) as pool:
        pool.submit(server.get, "/slow?ms=600000")
        server.wait(lambda: server.ask({"op": "status"})["workers"]["busy"] == 1)
        server.signal(signal.SIGTERM)
        server.wait(lambda: server.ask({"op": "status"})["state"] == "draining")
        server.signal(signal.SIGINT)
        assert server.wait_exit() == 0


def test_term_during_a_reload_stops_and_answers_the_reload(folder: Path):
    with Prefork(cwd=folder) as server, ThreadPoolExecutor(1) as pool:
        (folder / "app.py").write_text("import time\ntime.sleep(600)\n")
        answer = pool.submit(server.reload)
        server.wait_log("loading app generation=2")
        server.signal(signal.SIGTERM)
        assert answer.result()["message"] == "the server is stopping"
        assert server.wait_exit() == 0


def test_term_during_the_first_boot_ends_with_0(folder: Path):
    (folder / "app.py").write_text("import time\ntime.sleep(600)\n")
    with Prefork(cwd=folder, wait=False) as server:
        server.wait_log("loading app")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


def test_idle_keep_alive_connections_do_not_hold_up_a_stop(folder: Path):
    with (
        Prefork("--keep-alive", "600", "--graceful-timeout", "600", cwd=folder) as server,
        socket.create_connection(("127.0.0.1", server.port)) as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


def test_usr1_opens_rotated_logs_again(folder: Path):
    log, access = folder / "error.log", folder / "access.log"
    with Prefork(
        "--log-file", str(log), "--access-logfile", str(access), cwd=folder, wait=False
    ) as server:
        server.wait(lambda: log.exists() and "generation active" in log.read_text())
        port = int(log.read_text().partition("listening=127.0.0.1:")[2].split()[0])

        def get() -> None:
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                while client.recv(4096):
                    pass

        get()
        wait_until(lambda: '"status":200' in access.read_text())
        log.rename(folder / "error.1")
        access.rename(folder / "access.1")
        server.signal(signal.SIGUSR1)
        wait_until(lambda: log.exists() and "log files reopened" in log.read_text())

        def arrives() -> bool:
            get()
            return access.exists() and '"status":200' in access.read_text()

        wait_until(arrives)


@pytest.mark.parametrize("leaves", ["TERM", "max-requests", "reload"])
def test_work_that_a_request_leaves_to_a_thread_is_finished(folder: Path, leaves: str):
    """As in gunicorn: mails that are sent after the answer, say."""
    write_app(
        folder,
        """
        import threading, time

        def work(name):
            time.sleep(1)
            open(name, "w").close()

        def app(environ, start_response):
            if environ["PATH_INFO"] == "/work":
                thread = threading.Thread(target=work, args=["done"])
                thread.start()
            start_response("200 OK", [("Content-Length", "2")])
            return [b"ok"]
        """,
    )
    options = ("--max-requests", "1") if leaves == "max-requests" else ()
    with Prefork("-w", "1", *options, cwd=folder) as server:
        assert server.get("/work")[0] == 200
        if leaves == "TERM":
            server.signal(signal.SIGTERM)
            assert server.wait_exit() == 0
        elif leaves == "reload":
            assert server.reload()["result"] == "succeeded"
        server.wait((folder / "done").exists, what="the thread's work is lost")


def test_thread_that_never_ends_delays_a_stop_for_the_graceful_timeout_only(folder: Path):
    write_app(
        folder,
        """
        import threading, time

        def app(environ, start_response):
            threading.Thread(target=time.sleep, args=[600]).start()
            start_response("200 OK", [("Content-Length", "2")])
            return [b"ok"]
        """,
    )
    with Prefork("-w", "1", "--graceful-timeout", "1", cwd=folder) as server:
        assert server.get()[0] == 200
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


# As some supervisors start programs.
BLOCKED = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD])
os.execv(sys.executable, [sys.executable, "-m", "prefork", *sys.argv[1:]])
"""


def test_signals_that_whoever_started_the_server_has_blocked_are_heard(folder: Path):
    with Prefork("-w", "1", cwd=folder, command=(sys.executable, "-c", BLOCKED)) as server:
        (worker,) = server.workers()
        server.signal(signal.SIGHUP)
        server.wait_log("reload succeeded")
        server.wait(lambda: is_gone(worker))
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


def test_term_that_the_import_has_blocked_reaches_the_worker(folder: Path):
    write_app(
        folder,
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        + textwrap.dedent(APP),
    )
    with Prefork("-w", "1", cwd=folder) as server:
        (worker,) = server.workers()
        os.kill(worker, signal.SIGTERM)
        server.wait(lambda: is_gone(worker))
        server.wait_workers(1)
        assert server.get()[0] == 200
