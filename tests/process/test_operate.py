"""`prefork status`, `reload`, `stop`: a running server is operated without knowing its control socket."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.process.harness import PREFORK, Prefork, is_gone, run_prefork, write_app
from tests.support.wait import UNHURRIED_S, wait_until

README = Path(__file__).resolve().parents[2] / "server" / "README.md"
APP, USAGE, ENVIRONMENT, INTERRUPTED = 3, 2, 5, 130


def test_status_reload_and_stop_of_a_server(folder: Path):
    with Prefork("-w", "2", cwd=folder) as server:
        named = ("--run-dir", str(server.run_dir))
        status = run_prefork("status", *named, cwd=folder)
        assert json.loads(status.stdout)["workers"]["ready"] == 2
        write_app(folder, version="2")
        reloaded = run_prefork("reload", *named, cwd=folder)
        assert (reloaded.returncode, reloaded.stdout) == (
            0,
            "reload succeeded, generation 2 serves\n",
        )
        assert server.version() == "2"
        stopped = run_prefork("stop", *named, cwd=folder)
        assert (stopped.returncode, stopped.stdout, stopped.stderr) == (0, "", "")
        assert server.wait_exit() == 0
        gone = run_prefork("status", *named, cwd=folder)
        assert (gone.returncode, "no server answers there" in gone.stderr) == (ENVIRONMENT, True)


def test_reload_that_fails_is_an_exit_code_and_a_traceback(folder: Path):
    with Prefork(cwd=folder) as server:
        (folder / "app.py").write_text("raise RuntimeError('broken')\n")
        failed = run_prefork(
            "reload", cwd=folder, environment={"PREFORK_RUN_DIR": str(server.run_dir)}
        )
        assert (failed.returncode, failed.stdout) == (APP, "reload failed, generation 1 serves\n")
        assert "RuntimeError: broken" in failed.stderr
        assert server.get()[0] == 200


def test_stop_waits_for_running_requests_and_the_end(folder: Path):
    with Prefork(cwd=folder) as server:
        workers = server.wait_workers(1)
        assert run_prefork("stop", "--run-dir", str(server.run_dir), cwd=folder).returncode == 0
        assert all(is_gone(pid) for pid in workers)
        assert server.wait_exit() == 0


def test_the_only_server_without_a_run_directory_is_found(folder: Path):
    environment = {"XDG_RUNTIME_DIR": str(folder), "TMPDIR": str(folder)}
    none = run_prefork("status", cwd=folder, environment=environment)
    assert none.returncode == ENVIRONMENT
    assert "to serve a module of that name, write prefork status:application" in none.stderr
    # Of two options the last one counts; an empty one is a directory of the server's own.
    with Prefork("--run-dir=", cwd=folder, environment=environment) as server:
        found = run_prefork("status", cwd=folder, environment=environment)
        assert json.loads(found.stdout)["state"] == "serving"
        with Prefork("--run-dir=", cwd=folder, environment=environment):
            both = run_prefork("stop", cwd=folder, environment=environment)
            assert (both.returncode, "2 servers run" in both.stderr) == (USAGE, True)
            assert f"prefork-{server.process.pid}" in both.stderr


@pytest.mark.parametrize("operation", ["status", "reload", "stop"])
def test_server_whose_arbiter_is_stopped_is_reported_instead_of_waited_for(
    folder: Path, operation: str
):
    with Prefork(cwd=folder) as server:
        server.signal(signal.SIGSTOP)
        silent = run_prefork(operation, "--run-dir", str(server.run_dir), cwd=folder, within_s=60)
        assert (silent.returncode, silent.stdout) == (ENVIRONMENT, "")
        assert silent.stderr.startswith(f"prefork: run_dir is {server.run_dir}; ")
        assert "has not answered for 15 s" in silent.stderr
        assert "SIGCONT" in silent.stderr


def test_stopped_server_is_found_though_its_queue_is_full(folder: Path):
    environment = {"XDG_RUNTIME_DIR": "", "TMPDIR": str(folder)}
    with Prefork("--run-dir=", cwd=folder, environment=environment) as server:
        server.signal(signal.SIGSTOP)
        (control,) = folder.glob("prefork-*/control.sock")
        waiting = [socket.socket(socket.AF_UNIX) for _ in range(64)]
        try:
            for sock in waiting:
                sock.setblocking(False)
                if sock.connect_ex(str(control)):
                    break
            else:
                pytest.fail("the queue does not get full")
            silent = run_prefork("status", cwd=folder, environment=environment, within_s=60)
        finally:
            for sock in waiting:
                sock.close()
        assert (silent.returncode, "has not answered" in silent.stderr) == (ENVIRONMENT, True)


def test_reload_that_takes_longer_than_an_answer_is_waited_for(folder: Path):
    with Prefork(cwd=folder) as server:
        (folder / "app.py").write_text(
            "import time; time.sleep(20)\n" + (folder / "app.py").read_text()
        )
        slow = run_prefork("reload", "--run-dir", str(server.run_dir), cwd=folder, within_s=90)
        assert (slow.returncode, slow.stdout) == (0, "reload succeeded, generation 2 serves\n")


def test_what_only_looks_like_a_server_is_passed_over(folder: Path):
    """Loops, other users' sockets, files, folders that cannot be read: none of it is a traceback."""
    environment = {"XDG_RUNTIME_DIR": "", "TMPDIR": str(folder)}
    for name in ("prefork-loop", "prefork-file", "prefork-link", "prefork-empty", "prefork-closed"):
        (folder / name).mkdir()
    (folder / "prefork-loop" / "control.sock").symlink_to("control.sock")
    (folder / "prefork-file" / "control.sock").write_text("")
    (folder / "prefork-closed").chmod(0)
    (folder / "prefork-plain").write_text("")
    none = run_prefork("status", cwd=folder, environment=environment)
    assert (none.returncode, "no running server was found" in none.stderr) == (ENVIRONMENT, True)
    assert "Traceback" not in none.stderr
    with Prefork("--run-dir=", cwd=folder, environment=environment):
        (control,) = (p for p in folder.glob("prefork-*/control.sock") if p.is_socket())
        (folder / "prefork-link" / "control.sock").symlink_to(control)
        found = run_prefork("status", cwd=folder, environment=environment)
        assert json.loads(found.stdout)["state"] == "serving"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to be another user")
@pytest.mark.parametrize("folder_is_own", [True, False])
def test_server_of_another_user_is_not_taken_for_the_own(folder: Path, folder_is_own: bool):
    """Its socket alone may have been given away; who answers decides as well."""
    folder.chmod(0o711)
    theirs = folder / "prefork-theirs"
    theirs.mkdir()
    os.chown(theirs, 65534, 65534)
    listen = (
        "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind('control.sock'); s.listen(); "
        "print('listens', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        ["python3", "-c", listen], cwd=theirs, user=65534, group=65534, extra_groups=[],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"listens\n"
        os.chown(theirs / "control.sock", 0, 0)
        if folder_is_own:
            os.chown(theirs, 0, 0)
        environment = {"XDG_RUNTIME_DIR": "", "TMPDIR": str(folder)}
        none = run_prefork("status", cwd=folder, environment=environment)
        other.kill()
    assert (none.returncode, "no running server was found" in none.stderr) == (ENVIRONMENT, True)


@pytest.mark.parametrize("operation", ["reload", "stop"])
def test_interrupted_wait_says_what_goes_on(folder: Path, operation: str):
    slow = "import time\ndef app(environ, start_response):\n    time.sleep(600)\n"
    options = ("--graceful-timeout", "600", "--timeout", "0")
    with Prefork(*options, cwd=folder) as server, contextlib.ExitStack() as clients:
        if operation == "reload":
            (folder / "app.py").write_text("import time; time.sleep(600)\n")
        else:
            (folder / "app.py").write_text(slow)
            assert server.reload()["result"] == "succeeded"
            client = clients.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            server.wait(
                lambda: server.ask({"op": "status"})["workers"]["busy"] == 1, what="no call runs"
            )
        waiting = subprocess.Popen(
            [*PREFORK, operation, "--run-dir", str(server.run_dir)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        begun = r"loading app generation=2" if operation == "reload" else "prefork shutting down"
        server.wait_log(begun)
        waiting.send_signal(signal.SIGINT)
        out, error = waiting.communicate(timeout=UNHURRIED_S)
    assert (waiting.returncode, out) == (INTERRUPTED, "")
    assert error == (
        f"prefork: interrupted; a {operation} that has been requested goes on, prefork status shows it\n"
    )


def test_output_that_cannot_be_written_is_a_sentence(folder: Path):
    with Prefork(cwd=folder) as server, Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PREFORK, "status", "--run-dir", str(server.run_dir)],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (
        ENVIRONMENT,
        "prefork: standard output cannot be written: No space left on device\n",
    )


def test_failure_of_a_reload_does_not_reach_the_terminal_as_control_characters(folder: Path):
    with Prefork(cwd=folder) as server:
        (folder / "app.py").write_text("raise RuntimeError('a\\x1b]0;title\\x07b')\n")
        failed = run_prefork("reload", "--run-dir", str(server.run_dir), cwd=folder)
        assert r"RuntimeError: a\x1b]0;title\x07b" in failed.stderr
        assert "\x1b" not in failed.stderr + server.log()


def test_of_two_servers_that_start_at_once_one_gets_the_run_directory(folder: Path):
    run_dir = folder / "shared"
    command = [*PREFORK, "-b", "127.0.0.1:0", "--run-dir", str(run_dir), "app:app"]
    for _ in range(3):
        starting = [
            subprocess.Popen(command, cwd=folder, stderr=subprocess.PIPE, text=True)
            for _ in range(3)
        ]
        try:
            wait_until(lambda all=starting: len(ended_of(all)) >= 2, what="two are refused")
            refused = ended_of(starting)
            for process in refused:
                _, error = process.communicate()
                assert (process.returncode, "another prefork uses it" in error) == (
                    ENVIRONMENT,
                    True,
                )
            (serving,) = (process for process in starting if process not in refused)
            wait_until((run_dir / "control.sock").exists, what="the other one serves")
            stopped = run_prefork("stop", "--run-dir", str(run_dir), cwd=folder)
            assert stopped.returncode == 0, stopped.stderr
            assert serving.wait(UNHURRIED_S) == 0
        finally:
            for process in starting:
                process.kill()
                process.wait()
                if process.stderr is not None:
                    process.stderr.close()


def ended_of(processes: list[subprocess.Popen[str]]) -> list[subprocess.Popen[str]]:
    return [process for process in processes if process.poll() is not None]


def test_module_with_the_name_of_a_command_is_served(folder: Path):
    os.rename(folder / "app.py", folder / "status.py")
    with Prefork(cwd=folder, app="status:app") as server:
        assert server.get()[0] == 200
    hint = run_prefork("status", "-w", "4", cwd=folder)
    assert (hint.returncode, "write prefork status:application" in hint.stderr) == (USAGE, True)


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_takes_the_unit_of_the_readme(tmp_path: Path):
    """Lines that this version of systemd does not know are reported and ignored by it."""
    unit = re.search(r"```ini\n(\[Service\]\n.*?)```", README.read_text(), re.DOTALL)
    assert unit is not None
    text = unit[1].replace("/srv/shop/.venv/bin/prefork", "/bin/true")  # has to exist
    (tmp_path / "shop.service").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(tmp_path / "shop.service")],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
