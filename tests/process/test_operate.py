"""`prefork status`, `reload`, `stop`: a running server is operated without knowing its control socket."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.process.harness import Prefork, is_gone, run_prefork, write_app

README = Path(__file__).resolve().parents[2] / "server" / "README.md"
APP, USAGE, ENVIRONMENT = 3, 2, 5


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
