"""Reloads with real processes: new code for every request, none lost, a broken app changes nothing."""

import contextlib
import json
import resource
import signal
import socket
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path

import pytest

from tests.process.harness import (
    APP,
    Prefork,
    is_gone,
    most_descriptors,
    unhurried_plan,
    wait_loaded,
    wait_loaded_by,
    write_app,
)
from tests.support.background_load import BackgroundLoad
from tests.support.load_report import LoadPlan
from tests.support.wait import UNHURRIED_S

# Its import lasts as long as there is a file `hold`.
SLOW_IMPORT = """
import os, time
while os.path.exists("hold"):
    time.sleep(0.01)
""" + textwrap.dedent(APP)


def plan(server: Prefork, **changes: object) -> LoadPlan:
    return unhurried_plan(server.url, 300, **changes)


def test_hup_under_load_answers_every_request_and_then_only_with_new_code(folder: Path):
    with (
        Prefork("-w", "2", cwd=folder) as server,
        BackgroundLoad(plan(server, slow_share=0.02)) as load,
    ):
        wait_loaded(load)
        for version in ("2", "3", "4"):
            write_app(folder, version=version)
            server.signal(signal.SIGHUP)
            server.wait_log(rf"reload succeeded id=hup-{int(version) - 1}")
            assert {server.version() for _ in range(10)} == {version}
        wait_loaded_by(load, "4")
        report = load.finish()
    print(report.to_text())
    assert report.is_clean, report.to_text()
    assert report.retried_reused_get == 0
    assert set(report.versions) >= {"1", "4"}


def test_reload_of_an_app_with_a_long_import_stalls_nobody(folder: Path):
    """While it imports, requests are answered as before: three seconds' worth of them."""
    write_app(folder, SLOW_IMPORT)
    with (
        Prefork("-w", "2", cwd=folder) as server,
        BackgroundLoad(plan(server)) as load,
        ThreadPoolExecutor(1) as pool,
    ):
        wait_loaded(load)
        write_app(folder, SLOW_IMPORT, version="2")
        (folder / "hold").touch()
        reloaded = pool.submit(server.reload)
        server.wait_log("loading app generation=2")
        before = answered(load)
        server.wait(lambda: answered(load) > before + 900, what="requests are not answered")
        assert not reloaded.done()
        (folder / "hold").unlink()
        assert reloaded.result()["result"] == "succeeded"
        wait_loaded_by(load, "2")
        report = load.finish()
    print(report.to_text())
    assert report.is_clean, report.to_text()


def answered(load: BackgroundLoad) -> int:
    latest = load.latest()
    return latest.ok if latest is not None else 0


def test_broken_app_is_reported_and_the_old_one_serves_on(folder: Path):
    with Prefork("-w", "2", cwd=folder) as server, BackgroundLoad(plan(server)) as load:
        wait_loaded(load)
        before = server.workers()
        write_app(folder, "import os\nimport no_such_module\n")
        answer = server.reload("broken")
        assert answer["result"] == "failed"
        assert answer["message"] == "ModuleNotFoundError: No module named 'no_such_module'"
        assert 'File "' + str(folder / "app.py") + '", line 2' in answer["traceback"]
        assert "prefork" not in answer["traceback"]
        assert answer["generation"] == 1
        assert server.workers() == before
        assert "ModuleNotFoundError" in server.log()
        write_app(folder, version="3")
        assert server.reload("fixed")["result"] == "succeeded"
        assert server.version() == "3"
        load.run_until(load.elapsed_s + 0.5)
        report = load.finish()
    assert report.is_clean, report.to_text()


@pytest.mark.parametrize("preload", ["always", "never"])
def test_reload_with_and_without_preloading(folder: Path, preload: str):
    with Prefork("-w", "2", f"--preload={preload}", cwd=folder) as server:
        write_app(folder, version="2")
        assert server.reload("a")["result"] == "succeeded"
        assert server.version() == "2"
        write_app(folder, "raise RuntimeError('no settings')\n")
        answer = server.reload("b")
        assert (answer["result"], answer["message"]) == ("failed", "RuntimeError: no settings")
        assert server.version() == "2"
        assert server.wait_workers(2)


def test_generation_of_which_one_worker_fails_never_answers_a_request(folder: Path):
    """Each worker imports for itself; the first one that does is ready long before the second fails."""
    fails_second = """
        import os, time
        try:
            os.close(os.open("first", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            time.sleep(0.7)
            raise RuntimeError("second") from None
    """
    with (
        Prefork("-w", "2", "--preload=never", cwd=folder) as server,
        BackgroundLoad(plan(server)) as load,
    ):
        wait_loaded(load)
        write_app(folder, textwrap.dedent(fails_second) + textwrap.dedent(APP), version="2")
        answer = server.reload()
        assert (answer["result"], answer["message"]) == ("failed", "RuntimeError: second")
        load.run_until(load.elapsed_s + 0.5)
        report = load.finish()
    assert report.is_clean, report.to_text()
    assert set(report.versions) == {"1"}


def test_reload_with_the_same_id_is_waited_for_not_begun_again(folder: Path):
    write_app(folder, SLOW_IMPORT)
    with Prefork(cwd=folder) as server, contextlib.ExitStack() as clients:
        (folder / "hold").touch()
        asking = []
        for _ in range(3):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.settimeout(UNHURRIED_S)
            client.connect(str(server.run_dir / "control.sock"))
            client.sendall(b'{"op": "reload", "id": "same"}\n')
            asking.append(client.makefile())
        server.wait_log("loading app generation=2")
        for _ in range(2):  # the second is read after all that was there before the first
            assert server.ask({"op": "status"})["reloading"]
        (folder / "hold").unlink()
        answers = [json.loads(client.readline()) for client in asking]
        assert [answer["result"] for answer in answers] == ["succeeded"] * 3
        assert {answer["generation"] for answer in answers} == {2}


def test_app_that_hangs_in_its_import_is_given_up_with_its_stack(folder: Path):
    with Prefork("--boot-timeout", "5", cwd=folder) as server:
        write_app(folder, "import time\ntime.sleep(600)\n")
        answer = server.reload("hangs")
        assert answer["result"] == "failed"
        assert answer["message"] == "the app did not import within 5 s; raise --boot-timeout"
        assert f'File "{folder}/app.py", line 2 in <module>' in answer["traceback"]
        assert "importlib" not in answer["traceback"]
        assert server.version() == "1"


def test_reload_reads_the_config_file_again(folder: Path):
    (folder / "gunicorn.conf.py").write_text("workers = 1\nraw_env = ['COLOUR=red']\n")
    with Prefork(cwd=folder) as server:
        assert server.get("/variable?COLOUR")[1] == "red"
        (folder / "gunicorn.conf.py").write_text("workers = 3\nraw_env = ['COLOUR=blue']\n")
        assert server.reload("a")["result"] == "succeeded"
        server.wait_workers(3)
        assert server.get("/variable?COLOUR")[1] == "blue"
        (folder / "gunicorn.conf.py").write_text("workers = 0\n")
        answer = server.reload("b")
        assert answer["result"] == "failed"
        assert answer["message"].startswith("workers is 0; use 1 to 512, or auto")
        assert len(server.wait_workers(3)) == 3


def test_content_of_a_generation_is_what_it_was_booted_with(folder: Path):
    (folder / "conf").mkdir()
    (folder / "conf" / "a").write_text("1")
    with Prefork("--content", f"conf={folder / 'conf'}", cwd=folder) as server:
        first = server.ask({"op": "status"})["content"]
        (folder / "conf" / "a").write_text("2")
        assert server.ask({"op": "status"})["content"] == first
        server.reload()
        second = server.ask({"op": "status"})["content"]
        assert set(second) == {"conf"}
        assert second != first


def test_app_whose_import_leaves_threads_is_imported_by_each_worker(folder: Path):
    threads = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), name='poller', daemon=True).start()\n"
    write_app(folder, threads + textwrap.dedent(APP))
    with Prefork("-w", "2", cwd=folder) as server:
        assert server.get()[0] == 200
        assert "each worker imports for itself" in server.log()
        assert "poller" in server.log()
        assert server.reload()["result"] == "succeeded"


def test_app_that_crashes_the_interpreter_in_its_import_is_reported_with_its_stack(folder: Path):
    with Prefork(cwd=folder) as server:
        write_app(folder, "import ctypes\nctypes.string_at(0)\n")
        answer = server.reload("crashes")
        assert answer["result"] == "failed"
        assert answer["message"] == "the mold ended (signal SIGSEGV)"
        assert f'File "{folder}/app.py", line 2 in <module>' in answer["traceback"]
        assert server.version() == "1"


@pytest.mark.parametrize("letter", ["я", "\\0", "\\ud800"])
def test_very_long_message_of_a_failed_import_harms_nobody(folder: Path, letter: str):
    with Prefork(cwd=folder) as server:
        write_app(folder, f"raise RuntimeError('{letter}' * 200_000 + ' the end')\n")
        answer = server.reload("long")
        assert answer["result"] == "failed"
        assert answer["message"].endswith(" the end")
        assert server.version() == "1"
        write_app(folder, version="2")
        assert server.reload("fixed")["result"] == "succeeded"
        assert server.version() == "2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import sys\nsys.exit(3)\n", "gunicorn.conf.py, line 2): SystemExit: 3"),
        ("import os\nos._exit(3)\n", "gunicorn.conf.py, line 2): SystemExit: os._exit(3)"),
        ("raise KeyboardInterrupt\n", "gunicorn.conf.py, line 1): KeyboardInterrupt"),
        ("raw_env = ['A=\\ud800']\n", "use NAME=VALUE"),
        ("raw_env = ['A=\\0']\n", "use NAME=VALUE"),
        ("import sys\ndef on_reload(server): sys.exit(4)\n", "SystemExit: 4"),
        ("import os\ndef on_reload(server): os._exit(4)\n", "SystemExit: os._exit(4)"),
    ],
)
def test_config_file_that_goes_wrong_in_a_reload_harms_nobody(
    folder: Path, text: str, message: str
):
    """The hook on_reload is that of the generation that serves, so its turn comes one reload later."""
    config = folder / "gunicorn.conf.py"
    config.write_text(text if "on_reload" in text else "")
    with Prefork(cwd=folder) as server:
        config.write_text(text)
        answer = server.reload("bad")
        assert answer["result"] == "failed"
        assert message in answer["message"]
        assert server.version() == "1"
        assert "a step of the arbiter failed" not in server.log()


def test_child_that_a_config_file_forks_ends_by_exit_in_a_reload(folder: Path):
    config = folder / "gunicorn.conf.py"
    config.write_text("")
    with Prefork(cwd=folder) as server:
        config.write_text(
            "import os\npid = os.fork()\nif not pid:\n    os._exit(7)\n"
            "proc_name = str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\nassert proc_name == '7'\n"
        )
        assert server.reload("forks")["result"] == "succeeded"


def test_reload_without_a_descriptor_left_fails_and_the_server_goes_on(folder: Path):
    with Prefork(cwd=folder) as server:
        pid = server.process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        # Room for the question's own connection.
        used = most_descriptors(pid)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (used + 1, limits[1]))
        answer = server.reload("full")
        assert answer["result"] == "failed"
        assert "Too many open files" in answer["message"]
        assert server.version() == "1"
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        assert server.reload("room")["result"] == "succeeded"


def test_mold_that_hangs_where_it_should_fork_fails_the_reload_only(folder: Path):
    config = folder / "gunicorn.conf.py"
    with Prefork("-w", "1", "--boot-timeout", "5", cwd=folder) as server:
        config.write_text("import time\ndef pre_fork(server, worker): time.sleep(600)\n")
        answer = server.reload("hangs")
        assert answer["result"] == "failed"
        assert answer["message"] == "the mold did not fork a worker within 5 s"
        assert f'File "{config}", line 2 in pre_fork' in answer["traceback"]
        server.mold()
        config.write_text("")
        assert server.reload("forks")["result"] == "succeeded"
        assert server.get()[0] == 200


def test_worker_that_catches_its_kill_is_killed_for_good(folder: Path):
    with Prefork("--preload=never", "--boot-timeout", "5", cwd=folder) as server:
        hangs = "import signal, time\nsignal.signal(signal.SIGABRT, signal.SIG_IGN)\n"
        write_app(folder, hangs + "time.sleep(600)\n")
        answer = server.reload("hangs")
        assert answer["result"] == "failed"
        assert "signal SIGKILL" in answer["message"]
        assert server.version() == "1"


def test_reload_succeeds_only_when_an_old_worker_that_does_not_confirm_is_gone(folder: Path):
    """Its call holds the interpreter, so it cannot even see the order to leave."""
    holds = APP.replace(
        'elif path == "/environ"',
        'elif path == "/hold":\n            import ctypes\n            ctypes.PyDLL(None).sleep(600)\n        elif path == "/environ"',
    )
    write_app(folder, holds)
    with Prefork("--timeout", "0", "--graceful-timeout", "3", cwd=folder) as server:
        (old,) = server.workers()

        def hold() -> None:
            with contextlib.suppress(OSError, HTTPException):
                server.get("/hold")

        call = threading.Thread(target=hold)
        call.start()
        server.wait(lambda: server.ask({"op": "status"})["workers"]["busy"] == 1)
        write_app(folder, holds, version="2")
        began = time.monotonic()
        assert server.reload()["result"] == "succeeded"
        assert is_gone(old)
        assert time.monotonic() - began >= 3
        assert server.version() == "2"
        call.join()
