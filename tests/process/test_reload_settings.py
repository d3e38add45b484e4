"""Reloads that change settings: a generation has its own, and a failed one leaves nothing behind."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.process.harness import APP, Prefork, is_gone, write_app


def write_config(folder: Path, *lines: str) -> None:
    (folder / "gunicorn.conf.py").write_text("\n".join(lines) + "\n")


def replace_mold(server: Prefork) -> None:
    """Kill the mold and wait for the one that is booted from the same generation."""
    old = server.mold()
    os.kill(old, signal.SIGKILL)
    server.wait(lambda: is_gone(old) and server.pids("mold"), what="no new mold")


def replace_workers(server: Prefork) -> None:
    """Kill all workers; those that answer from now on come from the mold as it is now."""
    old = server.wait_workers(1)
    for pid in old:
        os.kill(pid, signal.SIGKILL)
    server.wait(
        lambda: len(new := server.workers()) == len(old) and not set(new) & set(old),
        what="no new workers",
    )


def test_preload_app_holds_from_the_reload_that_sets_it(folder: Path):
    write_config(folder, "preload_app = False")
    with Prefork(cwd=folder) as server:
        assert "app imported" not in server.log()
        write_config(folder, "preload_app = True")
        assert server.reload("a")["result"] == "succeeded"
        assert server.log().count("app imported generation=2") == 1
        write_config(folder, "preload_app = False")
        assert server.reload("b")["result"] == "succeeded"
        assert "app imported generation=3" not in server.log()


@pytest.mark.parametrize("preload", [True, False])
def test_boot_timeout_holds_from_the_reload_that_sets_it(folder: Path, preload: bool):
    slow = "import time; time.sleep(3)\n"
    write_config(folder, f"preload_app = {preload}")
    with Prefork(cwd=folder) as server:
        write_app(folder, slow + "from old import app\n")
        write_app(folder, APP, name="old.py", version="2")
        write_config(folder, "boot_timeout = 1", f"preload_app = {preload}")
        assert server.reload("short")["result"] == "failed"
        write_config(folder, "boot_timeout = 60", f"preload_app = {preload}")
        assert server.reload("long")["result"] == "succeeded"
        assert server.version() == "2"


def test_graceful_timeout_is_that_of_the_worker_that_leaves(folder: Path):
    """The old generation's calls were begun under its own limit."""
    write_config(folder, "graceful_timeout = 60")
    with Prefork("--threads", "2", cwd=folder) as server, ThreadPoolExecutor(1) as pool:
        (old,) = server.workers()
        answer = pool.submit(server.get, "/wait")
        server.wait(lambda: server.ask({"op": "status"})["workers"]["busy"] == 1)
        write_config(folder, "graceful_timeout = 0.1")
        assert server.reload()["result"] == "succeeded"
        time.sleep(1)  # so that the new limit is over
        (folder / "go").touch()
        assert answer.result() == (200, f"hello from {old}")


def test_threads_and_limits_hold_from_the_reload_that_sets_them(folder: Path):
    write_config(folder, "threads = 1", "limit_request_line = 4000")
    with Prefork(cwd=folder) as server:
        assert server.get("/" + "x" * 300)[0] == 200
        write_config(folder, "threads = 3", "limit_request_line = 200")
        assert server.reload()["result"] == "succeeded"
        assert server.get("/" + "x" * 300)[0] == 414
        (worker,) = server.wait_workers(1)
        server.wait(lambda: len(os.listdir(f"/proc/{worker}/task")) >= 4, what="too few threads")


def test_loglevel_holds_from_the_reload_that_sets_it(folder: Path):
    write_config(folder, "loglevel = 'info'")
    with Prefork(cwd=folder) as server:
        write_config(folder, "loglevel = 'error'")
        assert server.reload("quiet")["result"] == "succeeded"
        server.wait_workers(1)
        before = server.log()
        replace_workers(server)
        assert server.get()[0] == 200
        assert "worker ready" not in server.log()[len(before) :]
        write_config(folder, "loglevel = 'info'")
        assert server.reload("loud")["result"] == "succeeded"
        assert "app imported generation=3" in server.log()


def test_failed_reload_leaves_the_log_level(folder: Path):
    write_config(folder, "loglevel = 'info'")
    with Prefork(cwd=folder) as server:
        write_config(folder, "loglevel = 'critical'")
        write_app(folder, "raise RuntimeError('broken')\n")
        assert server.reload()["result"] == "failed"
        assert "reload failed id=reload" in server.log()


SHOWS_ENVIRONMENT = """
    import os
    AT_IMPORT = os.environ.get("COLOUR", "-")

    def app(environ, start_response):
        body = f"{AT_IMPORT} {os.environ.get('COLOUR', '-')} {os.environ.get('SHAPE', '-')}".encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
"""


@pytest.mark.parametrize("preload", ["True", "False"])
def test_replaced_mold_after_a_failed_reload_has_the_old_environment(folder: Path, preload: str):
    write_app(folder, SHOWS_ENVIRONMENT)
    write_config(folder, "raw_env = ['COLOUR=red']", f"preload_app = {preload}")
    with Prefork(cwd=folder) as server:
        assert server.get()[1] == "red red -"
        write_app(folder, "raise RuntimeError('broken')\n")
        write_config(
            folder,
            "import os",
            "os.environ['SHAPE'] = 'round'",
            "raw_env = ['COLOUR=blue']",
            f"preload_app = {preload}",
        )
        assert server.reload("broken")["result"] == "failed"
        write_app(folder, SHOWS_ENVIRONMENT)
        replace_mold(server)
        replace_workers(server)
        assert server.get()[1] == "red red -"
        assert server.reload("good")["result"] == "succeeded"
        assert server.get()[1] == "blue blue round"


def test_variable_that_the_config_file_no_longer_sets_is_gone_after_a_reload(folder: Path):
    write_app(folder, SHOWS_ENVIRONMENT)
    write_config(folder, "import os", "os.environ['SHAPE'] = 'round'", "raw_env = ['COLOUR=red']")
    with Prefork(cwd=folder, environment={"COLOUR": "grey"}) as server:
        assert server.get()[1] == "red red round"
        write_config(folder, "")
        assert server.reload()["result"] == "succeeded"
        assert server.get()[1] == "grey grey -"


def test_hooks_in_the_arbiter_see_the_environment_of_the_generation_that_serves(folder: Path):
    """As prometheus_client's `child_exit` hook needs it."""
    hook = "def child_exit(server, worker): import os; server.log.info('left', colour=os.environ.get('COLOUR'))"
    write_config(folder, "raw_env = ['COLOUR=red']", hook)
    with Prefork(cwd=folder) as server:
        replace_workers(server)
        server.wait_log("left colour=red")
        write_config(folder, "raw_env = ['COLOUR=blue']", hook)
        write_app(folder, "raise RuntimeError('broken')\n")
        assert server.reload("broken")["result"] == "failed"
        replace_workers(server)
        server.wait(lambda: server.log().count("left colour=red") >= 2)
        assert "colour=blue" not in server.log()
        write_app(folder, version="2")
        assert server.reload("good")["result"] == "succeeded"
        replace_workers(server)
        server.wait_log("left colour=blue")


def test_hooks_in_mold_and_worker_see_the_settings_of_their_generation(folder: Path):
    hooks = (
        "def pre_fork(server, worker): server.log.info('fork', keepalive=server.cfg.keepalive)",
        "def post_fork(server, worker): server.log.info('forked', keepalive=server.cfg.keepalive)",
    )
    write_config(folder, "keepalive = 11", *hooks)
    with Prefork(cwd=folder) as server:
        server.wait_log("forked keepalive=11")
        write_config(folder, "keepalive = 22", *hooks)
        assert server.reload()["result"] == "succeeded"
        server.wait_log("fork keepalive=22")
        server.wait_log("forked keepalive=22")
