"""Signal handlers of the app that raise, and hooks that exit: no request and no worker is lost by them."""

import os
import signal
from pathlib import Path

import pytest

from tests.process.harness import Prefork, write_app

APP = """
    import os, signal, sys, time
    def fail(number, frame):
        raise TimeoutError("of the handler")
    for number in (signal.SIGALRM, signal.SIGUSR1):
        signal.signal(number, fail)
    signal.signal(signal.SIGUSR2, lambda *_: sys.exit(7))
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/alarm":
            for _ in range(3):
                signal.setitimer(signal.ITIMER_REAL, 0.01)
                time.sleep(0.1)
        if environ["PATH_INFO"] == "/slow":
            time.sleep(600)
        body = str(os.getpid()).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
"""


@pytest.mark.parametrize("preload", ["auto", "never"])
def test_handler_that_raises_ends_no_worker(folder: Path, preload: str):
    write_app(folder, APP)
    options = ("-w", "1", f"--preload={preload}", "--graceful-timeout", "600")
    with Prefork(*options, cwd=folder) as server:
        (worker,) = server.workers()
        assert server.get("/alarm") == (200, str(worker))
        os.kill(worker, signal.SIGUSR1)
        server.wait_log("main thread of its worker(?s:.*)TimeoutError: of the handler")
        assert server.get() == (200, str(worker))
        assert server.reload()["result"] == "succeeded"
        server.wait(lambda: worker not in server.workers())
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


def test_handler_that_exits_lets_the_worker_finish_and_leave(folder: Path):
    write_app(folder, APP)
    with Prefork("-w", "1", "--graceful-timeout", "600", cwd=folder) as server:
        (worker,) = server.workers()
        os.kill(worker, signal.SIGUSR2)
        server.wait(lambda: server.workers() not in ([], [worker]))
        assert server.get()[0] == 200


@pytest.mark.parametrize("name", ["worker_abort", "worker_int", "worker_exit"])
def test_hook_of_a_worker_that_exits_ends_it_no_later_than_without(folder: Path, name: str):
    """gunicorn's own examples leave by `sys.exit` there."""
    write_app(folder, APP)
    (folder / "gunicorn.conf.py").write_text(
        f"import sys\ndef {name}(*arguments):\n    arguments[0].log.info('called')\n    sys.exit(1)\n"
    )
    with Prefork("-w", "1", "--timeout", "3", "--graceful-timeout", "600", cwd=folder) as server:
        (worker,) = server.workers()
        if name == "worker_abort":
            assert server.get("/slow")[0] == 504
        else:
            os.kill(worker, signal.SIGTERM)
        server.wait(lambda: server.workers() not in ([], [worker]))
        assert server.get()[0] == 200
        server.signal(signal.SIGINT if name == "worker_int" else signal.SIGTERM)
        server.wait_exit()
        assert "called" in server.log()
