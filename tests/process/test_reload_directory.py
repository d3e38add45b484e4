"""Reloads that find other code in the working directory: a link that leads to the next release, a folder made anew."""

import os
import shutil
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.process.harness import Prefork, is_gone

APP = """
import os, sys
RELEASE = "{release}"
with open("data.txt") as file:
    DATA = file.read()
def app(environ, start_response):
    import late, lib_module
    on_path = sum(entry.endswith(("releases/1", "releases/1/lib")) for entry in sys.path)
    body = f"{{RELEASE}} {{DATA}} {{late.RELEASE}} {{lib_module.RELEASE}} {{os.path.basename(os.getcwd())}} {{on_path}} {{os.environ['OF']}}"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body.encode()]
"""
CONFIG = """
with open("data.txt") as file:
    raw_env = ["OF=" + file.read()]
"""


def write_release(folder: Path, release: str) -> None:
    (folder / "lib").mkdir(parents=True)
    (folder / "app.py").write_text(APP.format(release=release))
    (folder / "late.py").write_text(f"RELEASE = '{release}'\n")
    (folder / "lib" / "lib_module.py").write_text(f"RELEASE = '{release}'\n")
    (folder / "data.txt").write_text(release)
    (folder / "gunicorn.conf.py").write_text(CONFIG)


@pytest.fixture
def current(tmp_path: Path) -> Path:
    """The link that leads to the release that is to serve."""
    for release in "12":
        write_release(tmp_path / "releases" / release, release)
    lead(tmp_path / "current", "1")
    return tmp_path / "current"


def lead(current: Path, release: str) -> None:
    """Have the link lead to a release, as deployment tools do it: no moment without a link."""
    draft = current.with_name("draft")
    draft.symlink_to(f"releases/{release}")
    draft.replace(current)


class Pinned(Prefork):
    """A server whose files are where they were at its start, wherever the links lead since."""

    def __init__(
        self, *options: str, cwd: Path, environment: Mapping[str, str], kept: Path
    ) -> None:
        run_dir = ("--run-dir", str(kept / "run"))
        super().__init__(*run_dir, *options, cwd=cwd, environment=environment)
        self.run_dir = kept / "run"
        self.log_path = self.log_path.rename(kept / "server.log")


def kill_all(server: Prefork, pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    server.wait(lambda: all(map(is_gone, pids)), what="killed processes are still there")


def in_link(current: Path) -> tuple[tuple[str, ...], Path, Mapping[str, str]]:
    return (), current, {"PWD": str(current), "PYTHONPATH": "lib"}


def by_option(current: Path) -> tuple[tuple[str, ...], Path, Mapping[str, str]]:
    options = ("--chdir", "current", "-c", "current/gunicorn.conf.py", "--pythonpath", "lib")
    return options, current.parent, {"PWD": str(current.parent)}


@pytest.mark.parametrize("preload", ["auto", "never"])
@pytest.mark.parametrize("start", [in_link, by_option])
def test_reload_goes_where_the_name_of_the_directory_leads(current: Path, start, preload: str):
    """As with gunicorn; and what serves stays on its own release until then, which gunicorn's replaced workers do not."""
    options, cwd, environment = start(current)
    if start is by_option:  # its config file is read where prefork was started
        (cwd / "data.txt").symlink_to("current/data.txt")
    options = (*options, f"--preload={preload}", "-w", "2")
    with Pinned(*options, cwd=cwd, environment=environment, kept=current.parent) as server:
        first = server.get()
        assert first[1].split()[:5] == ["1", "1", "1", "1", "1"]
        lead(current, "2")
        kill_all(server, [*server.workers(), *server.pids("mold")])
        server.wait(lambda: len(server.workers()) == 2 and server.log().count("worker ready") == 4)
        assert server.get() == first
        assert server.reload()["result"] == "succeeded"
        assert server.get() == (200, "2 2 2 2 2 0 2")
        lead(current, "1")
        assert server.reload("back")["result"] == "succeeded"
        assert server.get() == first


def test_directory_that_was_removed_and_made_anew_is_reloaded(tmp_path: Path):
    folder = tmp_path / "app"
    write_release(folder, "1")
    with Pinned(cwd=folder, environment={"PYTHONPATH": "lib"}, kept=tmp_path) as server:
        assert server.get()[1].startswith("1 1 1 1 app")
        shutil.rmtree(folder)
        failed = server.reload("gone")
        assert failed["result"] == "failed"
        assert f"the working directory {folder} is not there any more" in failed["message"]
        assert server.ask({"op": "status"})["generation"] == 1
        write_release(folder, "2")
        assert server.reload("anew")["result"] == "succeeded"
        assert server.get() == (200, "2 2 2 2 app 0 2")


def test_mold_whose_directory_is_gone_is_booted_when_it_is_back(tmp_path: Path):
    folder, away = tmp_path / "app", tmp_path / "away"
    write_release(folder, "1")
    with Pinned(cwd=folder, environment={"PYTHONPATH": "lib"}, kept=tmp_path) as server:
        folder.rename(away)
        kill_all(server, server.pids("mold"))
        server.wait_log(f"mold lost.*the working directory is {folder}; No such file")
        away.rename(folder)
        server.wait(lambda: server.pids("mold") and server.log().count("app imported") == 2)
        kill_all(server, server.workers())
        server.wait(lambda: server.log().count("worker ready") == 2)
        assert server.get()[1].startswith("1 1")
