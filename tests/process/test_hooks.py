"""Server hooks get what gunicorn's get: the app, the other workers, counts, a log that knows exceptions."""

import os
import re
import signal
import textwrap
from pathlib import Path

import pytest

from tests.process.harness import Prefork, write_app

APP = """
    class App:
        started = False
        imported = 0
        def __call__(self, environ, start_response):
            body = f"started={self.started}".encode()
            start_response("200 OK", [("Content-Length", str(len(body)))])
            return [body]

    def create():
        App.imported += 1
        assert App.imported == 1
        return App()

    app = App()
"""


@pytest.mark.parametrize("preload", ["always", "never"])
@pytest.mark.parametrize("name", ["app:app", "app:create()"])
@pytest.mark.parametrize(
    "hook",
    [
        "def post_fork(server, worker): server.app.wsgi().started = True",
        "def post_fork(server, worker): worker.app.wsgi().started = True",
        "def post_worker_init(worker): worker.app.wsgi().started = True",
        "def post_worker_init(worker): worker.wsgi.started = True",
    ],
)
def test_hook_reaches_the_app(folder: Path, preload: str, name: str, hook: str):
    write_app(folder, APP)
    (folder / "gunicorn.conf.py").write_text(hook)
    with Prefork(f"--preload={preload}", cwd=folder, app=name) as server:
        assert server.get()[1] == "started=True"


LOGGING = """
def post_fork(server, worker):
    try:
        1 / 0
    except ZeroDivisionError as error:
        server.log.exception("exception in %s", worker.age)
        server.log.error("error with %(what)s", {"what": "exc_info"}, exc_info=True)
        worker.log.warning("error given", exc_info=error, extra={"a": 1})
        worker.log.info("too many", 1)
        server.log.log(30, "by %s", "number")
"""


def test_log_of_hooks_takes_what_logging_takes(folder: Path):
    (folder / "gunicorn.conf.py").write_text(LOGGING)
    with Prefork(cwd=folder) as server:
        lines = server.log()
    for line in ("ERROR    exception in 1\n", "ERROR    error with exc_info\n", "WARNING  error given\n",
                 "INFO     too many (1,)\n", "WARNING  by number\n"):  # fmt: skip
        assert line in lines
    assert lines.count("  ZeroDivisionError: division by zero\n") == 3


WORKERS = """
def pre_fork(server, worker):
    taken = {other.number for other in server.WORKERS.values()}
    worker.number = min(set(range(1, 9)) - taken)

def post_fork(server, worker):
    server.log.info("number %s", worker.number)

def worker_exit(server, worker):
    server.log.info("worker_exit %s %s %s", worker.nr, worker, worker.cfg.workers)

def child_exit(server, worker):
    server.log.info("child_exit %s %s %s", worker.nr, worker.pid in server.WORKERS, len(server.WORKERS))
"""


def test_hooks_know_the_other_workers_and_the_requests(folder: Path):
    (folder / "gunicorn.conf.py").write_text(WORKERS)
    with Prefork("-w", "2", "--max-requests", "5", cwd=folder) as server:
        server.wait_log("number 1\n")
        server.wait_log("number 2\n")
        for _ in range(9):
            assert server.get()[0] == 200
        server.wait_log("number 3\n")
        # Until its replacement is ready, it answers further requests.
        served = server.wait_log(r"worker_exit (\d+) <Worker \d+> 2")[1]
        assert 5 <= int(served) <= 9
        server.wait_log(rf"child_exit {served} False 2")


# What gunicorn's own objects have, as far as a hook could make use of it.
ATTRIBUTES = """
def see(tag, *values):
    open("seen", "a").write(f"{tag} {values}\\n")

def when_ready(server):
    see("server", server.pid, server.cfg.workers, server.num_workers, server.address, server.timeout, server.proc_name,
        server.master_name, server.worker_class.__name__, server.app.cfg.workers, server.worker_age, server.WORKERS,
        server.master_pid, len(server.log.error_log.handlers), server.log.access_log.name)
    see("address", server.LISTENERS[0].getsockname()[0])

def post_fork(server, worker):
    worker.notify()
    worker.tmp.notify()
    see("worker", worker.age, worker.pid, worker.ppid, worker.booted, worker.aborted, worker.alive, worker.cfg.workers,
        worker.nr, worker.timeout, worker.tmp.last_update(), worker.reloader, worker.sockets, worker.app.cfg.workers)
    see("limit", worker.max_requests > 10)

def on_reload(server):
    see("reloaded", server.cfg.workers)
"""


def test_hooks_find_what_gunicorns_objects_have(folder: Path):
    (folder / "gunicorn.conf.py").write_text(ATTRIBUTES)
    with Prefork("-w", "1", cwd=folder) as server:
        server.wait((folder / "seen").exists)
        seen = server.wait(
            lambda: text if "address" in (text := (folder / "seen").read_text()) else ""
        )
        for line in ("server (", "address ('127.0.0.1',)", "worker (1, ", "limit (True,)"):
            assert line in seen, seen
        assert "Traceback" not in server.log()


# In an arbiter and in a worker; with gunicorn each of them starts and serves.
USES = (
    "on_starting(server): server.cfg.set('threads', 2); assert server.cfg.threads == 2",
    "on_starting(server): assert server.cfg.settings['workers'].get() == 1",
    "on_starting(server): assert server.cfg.address[0][0] == '127.0.0.1'",
    "on_starting(server): server.cfg.worker_class_str, server.timeout",
    "on_starting(server): server.timeout = 9; server.proc_name = 'x'; server.num_workers = 1",
    "on_starting(server): server.log.error_log.handlers[0].setLevel('INFO'); server.log.error_log.info('heard')",
    "on_starting(server): server.log.setup(server.cfg); server.log.reopen_files(); server.log.close_on_exec()",
    "on_starting(server): server.reexec_pid, server.systemd, server.START_CTX['args'], server.SIGNALS, server.pidfile",
    "post_fork(server, worker): worker.max_requests += 5; worker.timeout = 9; worker.nr = 0; assert worker.nr == 0",
    "post_fork(server, worker): worker.cfg.set('timeout', '9'); assert worker.timeout == 9",
    "post_fork(server, worker): worker.cfg.set('proc_name', 'x'); assert worker.cfg.proc_name == 'x'",
    "post_worker_init(worker): worker.tmp.fileno(); worker.PIPE; worker.SIGNALS; worker.init_signals()",
)


@pytest.mark.parametrize("use", USES)
def test_hooks_use_gunicorns_objects_as_with_gunicorn(folder: Path, use: str):
    head, _, body = use.partition(": ")
    (folder / "gunicorn.conf.py").write_text(f"def {head}:\n    {body}\n")
    with Prefork("-w", "1", cwd=folder) as server:
        assert server.get()[0] == 200
        assert ("heard" in use) == ("heard" in server.log())


def test_limit_of_requests_that_a_hook_sets_for_its_worker_holds(folder: Path):
    (folder / "gunicorn.conf.py").write_text(
        "def post_fork(server, worker):\n    worker.max_requests = 5\n"
    )
    with Prefork("-w", "1", cwd=folder) as server:
        first = server.workers()
        for _ in range(6):
            assert server.get()[0] == 200
        server.wait_log("reason=max_requests")
        assert server.wait_workers(1) != first


def test_setting_of_a_hook_that_cannot_be_is_named(folder: Path):
    (folder / "gunicorn.conf.py").write_text(
        "def post_fork(server, worker):\n    worker.cfg.set('timeout', 'long')\n"
    )
    with Prefork("-w", "1", cwd=folder, wait=False) as server:
        assert server.wait_exit() == 3
        assert "timeout is long; use" in server.log()


NUMBERED = """
    import os

    def nworkers_changed(server, new_value, old_value):
        server.size = new_value

    def pre_fork(server, worker):
        used = {other.number for other in server.WORKERS.values() if other.alive}
        worker.number = min(set(range(1, server.size + 1)) - used)

    def post_fork(server, worker):
        os.environ["NUMBER"] = str(worker.number)
        worker.log.info("numbered %d", worker.number)
"""


def test_hooks_that_number_the_workers_know_their_count_from_the_start(folder: Path):
    (folder / "gunicorn.conf.py").write_text(textwrap.dedent(NUMBERED))
    with Prefork("-w", "3", cwd=folder) as server:
        assert {f"numbered {n}" in server.log() for n in (1, 2, 3)} == {True}
        first = server.workers()[0]
        os.kill(first, signal.SIGKILL)
        server.wait(lambda: server.log().count("numbered ") == 4)
        assert set(re.findall(r"numbered (\d)", server.log())) == {"1", "2", "3"}


def test_worker_that_is_told_to_be_alive_no_more_answers_and_is_replaced(folder: Path):
    (folder / "gunicorn.conf.py").write_text(
        "def post_worker_init(worker):\n    import app\n    app.worker = worker\n"
    )
    app = """
        def app(environ, start_response):
            worker.alive = False
            start_response("200 OK", [("Content-Length", "2")])
            return [b"ok"]
    """
    write_app(folder, app)
    with Prefork("-w", "1", cwd=folder) as server:
        first = server.workers()
        assert server.get() == (200, "ok")
        server.wait_log(rf"worker exited pid={first[0]} .*reason=retired")
        assert server.wait_workers(1) != first


def test_hook_that_sets_the_number_of_workers_gets_so_many(folder: Path):
    (folder / "gunicorn.conf.py").write_text(
        "def when_ready(server):\n    server.num_workers = 3\n"
    )
    with Prefork("-w", "1", cwd=folder) as server:
        server.wait_workers(3)


@pytest.mark.parametrize("call", ["server.stop()", "server.stop(graceful=False)"])
def test_server_of_a_hook_stops(folder: Path, call: str):
    (folder / "gunicorn.conf.py").write_text(f"def when_ready(server):\n    {call}\n")
    with Prefork("-w", "1", cwd=folder, wait=False) as server:
        assert server.wait_exit() == 0
        assert "hook failed" not in server.log()


def test_server_of_a_hook_reloads(folder: Path):
    (folder / "gunicorn.conf.py").write_text(
        "def when_ready(server):\n    server.reload()\n    server.kill_workers(0)\n"
    )
    with Prefork("-w", "1", cwd=folder) as server:
        server.wait_log("generation active generation=2")
        assert server.get()[0] == 200


@pytest.mark.parametrize("how", ["1 / 0", "raise SystemExit(5)"])
def test_start_whose_on_starting_fails_is_no_start(folder: Path, how: str):
    """What it was to prepare is not there: gunicorn does not serve either."""
    (folder / "gunicorn.conf.py").write_text(f"def on_starting(server):\n    {how}\n")
    with Prefork("-w", "1", cwd=folder, wait=False) as server:
        assert server.wait_exit() == (5 if "5" in how else 3)
        assert "hook=on_starting" in server.log()
        assert not (folder / "run/control.sock").exists()


def test_hook_of_a_mold_that_knows_no_pids_signals_nobody(folder: Path):
    """The keys of WORKERS are ages there, and 1 is another process' pid."""
    (folder / "gunicorn.conf.py").write_text(
        "import os\n"
        "def pre_fork(server, worker):\n"
        "    kill, os.kill = os.kill, lambda *sent: print(*sent, file=open('sent', 'a'))\n"
        "    server.kill_workers(0)\n"
        "    for number in server.WORKERS:\n"
        "        server.kill_worker(number, 0)\n"
        "        open('known', 'a').close()\n"
        "    os.kill = kill\n"
    )
    with Prefork("-w", "2", cwd=folder) as server:
        server.wait_workers(2)
        assert (folder / "known").exists()
        assert not (folder / "sent").exists()
