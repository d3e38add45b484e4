"""Contents by version: the agent pins what the kubelet mounts, the server boots from one version."""

import json
import os
import resource
import shutil
import signal
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefork.agent.content import CLEAN_UP_PERIOD_S
from prefork.base.digest import LAST_GOOD, digest_files, with_key

from tests.process.harness import Prefork, run_prefork
from tests.process.test_agent import Agent, request_reload, running_agent
from tests.support.wait import UNHURRIED_S, NotYetError, wait_until

REVISION = "0123456789abcdef"
# Reads a file of its own by a relative path, one by the mount's path, and imports late.
CODE = """
import os, time

VERSION = "{version}"
MOUNT, GO = {mount!r}, {go!r}

def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/relative":
        body = open("page.html").read()
    elif path == "/own":
        body = open(os.path.join(os.path.dirname(__file__), "page.html")).read()
    elif path == "/plain":
        body = open(os.path.join(MOUNT, "page.html")).read()
    elif path == "/setting":
        body = open(os.path.join(os.environ["WSGIAPP_CONFIG_SETTINGS"], "level")).read()
    elif path == "/lazy":
        import late
        body = late.VERSION
    elif path == "/slow":
        while not os.path.exists(GO):
            time.sleep(0.01)
        body = open("page.html").read()
    else:
        body = VERSION
    start_response("200 OK", [("Content-Length", str(len(body))), ("X-App-Version", VERSION)])
    return [body.encode()]
"""
BROKEN = "raise RuntimeError('broken')\n"

Files = Mapping[str, bytes]


class Mount:
    """A folder as the kubelet mounts a ConfigMap, and changes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        path.mkdir(parents=True)

    def write(self, files: Files) -> str:
        """Make `files` the content; return its digest."""
        self.number += 1
        version = self.path / f"..{self.number}"
        version.mkdir()
        for name, content in files.items():
            (version / name).write_bytes(content)
        (self.path / "..tmp").symlink_to(version.name)
        (self.path / "..tmp").replace(self.path / "..data")
        for name in files:
            if not (self.path / name).is_symlink():
                (self.path / name).symlink_to(f"..data/{name}")
        for entry in self.path.iterdir():
            if not entry.name.startswith("..") and entry.name not in files:
                entry.unlink()
        shutil.rmtree(self.path / f"..{self.number - 1}", ignore_errors=True)
        return digest_files({n: c for n, c in files.items() if n != LAST_GOOD})


@dataclass
class Pod:
    """The folders of a pod, its agent running: `source` and `settings` are what the kubelet mounts."""

    folder: Path
    source: Mount
    settings: Mount
    good: dict[str, Mount]
    request: Path
    agent: Agent

    @property
    def versions(self) -> Path:
        return self.folder / "content"

    @property
    def live(self) -> Path:
        return self.versions / "source/live"

    def code(self, version: str, **files: str) -> dict[str, bytes]:
        """Return the files of one version of the app."""
        app = CODE.replace("{version}", version).replace("{mount!r}", repr(str(self.live)))
        app = app.replace("{go!r}", repr(str(self.folder / "go")))
        texts = {
            "app.py": app,
            "page.html": f"page {version}",
            "late.py": f"VERSION = 'late {version}'",
        }
        return {name: text.encode() for name, text in {**texts, **files}.items()}

    def keep_good(self, revision: str = REVISION, **contents: Files) -> None:
        """Be the operator: make these the last good contents."""
        digests = {name: digest_files(files) for name, files in contents.items()}
        mark = json.dumps({"revision": revision, "contents": digests}).encode()
        for name, files in contents.items():
            self.good[name].write({**files, LAST_GOOD: mark})

    def server(self, *arguments: str) -> Prefork:
        """Return a start of the app's container."""
        return Prefork(
            "--chdir", str(self.live), f"--content=source={self.live}",
            f"--content=settings={self.versions}/settings/live", *arguments, cwd=self.folder,
            environment={"WSGIAPP_CONFIG_SETTINGS": f"{self.versions}/settings/live"},
        )  # fmt: skip

    def kept(self, name: str = "source") -> set[str]:
        return {entry.name for entry in (self.versions / name).iterdir()} - {"live"}


def agent_arguments(pod: Pod) -> list[str]:
    return [
        f"--content=source={pod.source.path}", f"--content=settings={pod.settings.path}",
        f"--versions={pod.versions}", f"--revision={REVISION}", f"--reload-file={pod.request}",
        *(f"--last-good={name}={mount.path}" for name, mount in pod.good.items()),
    ]  # fmt: skip


@contextmanager
def running_pod(folder: Path, **files: str) -> Iterator[Pod]:
    """Run the agent over version 1, without a last good one unless `keep_good` made one."""
    pod = new_pod(folder)
    pod.source.write(pod.code("1", **files))
    pod.settings.write({"level": b"1"})
    with running_agent(folder / "run", *agent_arguments(pod)) as agent:
        pod.agent = agent
        yield pod


def new_pod(folder: Path) -> Pod:
    mounts = {name: Mount(folder / "mounted" / name) for name in ("source", "settings")}
    good = {name: Mount(folder / "last-good" / name) for name in mounts}
    (folder / "run").mkdir()
    return Pod(folder, mounts["source"], mounts["settings"], good, folder / "reload", Agent(0))


def body(server: Prefork, path: str) -> str:
    status, text = server.get(path)
    assert status == 200, server.log()
    return text


def kept_whole(pod: Pod, name: str) -> set[str]:
    """Return the versions of a content, none while one is being copied."""
    kept = pod.kept(name)
    return set() if any(version.endswith(".new") for version in kept) else kept


def wait_kept(pod: Pod, *digests: str) -> None:
    wanted = {digest[:16] for digest in digests}
    wait_until(lambda: pod.kept() == wanted, UNHURRIED_S, what=f"kept {pod.kept()}, not {wanted}")


def test_old_generation_reads_and_imports_its_own_files_after_a_failed_reload(folder: Path):
    with running_pod(folder) as pod, pod.server("-w", "2") as server:
        pod.settings.write({"level": b"2"})
        broken = pod.source.write(pod.code("2", **{"app.py": BROKEN}))
        request_reload(pod.request, "bad", source=broken)
        assert pod.agent.wait_reload("bad", "failed")["message"] == "RuntimeError: broken"
        for path, expected in {
            "/": "1", "/relative": "page 1", "/own": "page 1", "/plain": "page 1", "/setting": "1", "/lazy": "late 1",
        }.items():  # fmt: skip
            assert body(server, path) == expected


def test_what_a_secret_holds_is_named_by_a_keyed_digest_everywhere(folder: Path):
    """In /status, in the names of folders, and in all logs: a plain digest of a short value gives it away."""
    pod = new_pod(folder)
    pod.source.write(pod.code("1"))
    plain = pod.settings.write({"level": b"hunter2"})
    key = Mount(folder / "key")
    key.write({"key": b"0123456789abcdef"})
    # As an operator gives it that is newer than the agent.
    given = {"secret": ["settings"], "digest-key": f"{key.path}/key", "of-a-later-version": "1"}
    environment = {"PREFORK_AGENT_OPTIONS": json.dumps(given)}
    del pod.good["settings"]
    with (
        running_agent(folder / "run", *agent_arguments(pod), environment=environment) as agent,
        pod.server() as server,
    ):
        agent.wait_ready()
        keyed = with_key(plain, b"0123456789abcdef")
        assert agent.status()["content"]["settings"] == keyed
        assert agent.status()["keyed"] == ["settings"]
        wait_until(lambda: pod.kept("settings") == {keyed[:16]})
        assert body(server, "/setting") == "hunter2"
        changed = pod.settings.write({"level": b"hunter3"})
        request_reload(pod.request, "plain", settings=changed)
        wait_until(lambda: "not arrived" in str(agent.status()["reload"]), UNHURRIED_S)
        request_reload(pod.request, "keyed", settings=with_key(changed, b"0123456789abcdef"))
        agent.wait_reload("keyed", "succeeded")
        assert body(server, "/setting") == "hunter3"
        live = pod.versions / "settings/live"
        wait_until(lambda: (live / "level").read_bytes() == b"hunter3", UNHURRIED_S)
        # The link for the next start follows, in one step by way of a draft beside it.
        wait_until(
            lambda: {entry.name for entry in live.iterdir()} == {"..boot", "..data", "level"},
            UNHURRIED_S,
        )
        shown = server.log() + json.dumps(agent.status())
        assert plain[:12] not in shown
        assert changed[:12] not in shown


def test_agent_without_a_key_makes_one_and_keeps_it(folder: Path):
    pod = new_pod(folder)
    pod.source.write(pod.code("1"))
    plain = pod.settings.write({"level": b"hunter2"})
    del pod.good["settings"]
    arguments = (*agent_arguments(pod), "--secret=settings", f"--digest-key={folder}/nowhere/key")
    with running_agent(folder / "run", *arguments):
        first = wait_until(lambda: kept_whole(pod, "settings"))
    with running_agent(folder / "run", *arguments):
        wait_until(lambda: pod.kept("settings") == first)
    assert first != {plain[:16]}


def test_new_generation_reads_its_own_files_and_the_mount_path_follows_it(folder: Path):
    with running_pod(folder) as pod, pod.server() as server:
        first = pod.agent.status()["content"]["source"]
        assert body(server, "/lazy") == "late 1"
        second = pod.source.write({**pod.code("2"), "new.html": b"new"})
        settings = pod.settings.write({"level": b"2"})
        request_reload(pod.request, "good", source=second, settings=settings)
        pod.agent.wait_reload("good", "succeeded")
        for path, expected in {
            "/": "2",
            "/relative": "page 2",
            "/plain": "page 2",
            "/setting": "2",
            "/lazy": "late 2",
        }.items():
            assert body(server, path) == expected
        assert (pod.live / "new.html").read_bytes() == b"new"
        assert pod.agent.status()["content"] == {"source": second, "settings": settings}
        wait_kept(pod, second)
        assert first != second


def test_a_version_stays_as_long_as_a_request_of_its_generation_runs(folder: Path):
    with running_pod(folder) as pod, pod.server("--threads", "2") as server:
        first = pod.agent.status()["content"]["source"]
        slow = server_thread(server, "/slow")
        server.wait(lambda: pod.agent.value("wsgi_http_requests_in_flight") == 1)
        second = pod.source.write(pod.code("2"))
        request_reload(pod.request, "good", source=second)
        pod.agent.wait_reload("good", "succeeded")
        time.sleep(1.5 * CLEAN_UP_PERIOD_S)  # so that it would be gone
        assert first[:16] in pod.kept()
        (folder / "go").touch()
        assert slow() == (200, "page 1")
        wait_kept(pod, second)


def server_thread(server: Prefork, path: str) -> Any:
    from concurrent.futures import ThreadPoolExecutor

    pool = ThreadPoolExecutor(1)
    return pool.submit(server.get, path, timeout_s=60).result


def test_killed_mold_and_worker_come_back_with_the_code_and_files_that_serve(folder: Path):
    with running_pod(folder) as pod, pod.server("-w", "2") as server:
        before = pod.agent.status()["content"]
        broken = pod.source.write(pod.code("2", **{"app.py": BROKEN}))
        request_reload(pod.request, "bad", source=broken)
        pod.agent.wait_reload("bad", "failed")
        mold = server.mold()
        os.kill(mold, signal.SIGKILL)
        server.wait(lambda: server.pids("mold") not in ([], [mold]), UNHURRIED_S)
        for worker in server.workers():
            os.kill(worker, signal.SIGKILL)
        server.wait(lambda: body(server, "/") == "1" and len(server.workers()) == 2, UNHURRIED_S)
        assert body(server, "/lazy") == "late 1"
        assert pod.agent.status()["content"] == before


def test_workers_that_import_for_themselves_import_what_serves(folder: Path):
    with running_pod(folder) as pod, pod.server("-w", "2", "--preload=never") as server:
        broken = pod.source.write(pod.code("2", **{"app.py": BROKEN}))
        request_reload(pod.request, "bad", source=broken)
        pod.agent.wait_reload("bad", "failed")
        old = server.wait_workers(2)  # those of the failed reload are gone
        for worker in old:
            os.kill(worker, signal.SIGKILL)
        server.wait(lambda: len(set(server.workers()) - set(old)) == 2, UNHURRIED_S)
        assert body(server, "/lazy") == "late 1"


def test_restart_boots_what_has_served_in_this_pod_before_there_is_a_last_good_one(folder: Path):
    with running_pod(folder) as pod:
        with pod.server():
            broken = pod.source.write(pod.code("2", **{"app.py": BROKEN}))
            request_reload(pod.request, "bad", source=broken)
            pod.agent.wait_reload("bad", "failed")
        with pod.server() as server:
            assert body(server, "/") == "1"
            failed = pod.agent.wait_reload("bad", "failed")
            assert failed["message"] == "RuntimeError: broken"  # not tried again
            assert server.ask({"op": "status"})["generation"] == 1
            assert body(server, "/relative") == "page 1"


def test_start_boots_the_last_good_content_and_a_request_brings_the_newest(folder: Path):
    pod = new_pod(folder)
    pod.keep_good(source=pod.code("1"), settings={"level": b"1"})
    newest = pod.source.write(pod.code("2"))
    settings = pod.settings.write({"level": b"2"})
    with running_agent(folder / "run", *agent_arguments(pod)) as pod.agent, pod.server() as server:
        assert (body(server, "/"), body(server, "/setting")) == ("1", "1")
        request_reload(pod.request, "good", source=newest, settings=settings)
        pod.agent.wait_reload("good", "succeeded")
        assert (body(server, "/"), body(server, "/setting")) == ("2", "2")


def test_start_boots_the_last_good_content_also_when_the_newest_was_deleted(folder: Path):
    """The mount of a ConfigMap that does not exist is empty."""
    pod = new_pod(folder)
    pod.keep_good(source=pod.code("1"), settings={"level": b"1"})
    pod.source.write({})
    pod.settings.write({})
    with running_agent(folder / "run", *agent_arguments(pod)) as pod.agent, pod.server() as server:
        assert (body(server, "/"), body(server, "/setting")) == ("1", "1")


def test_what_serves_outlives_the_deletion_of_its_content(folder: Path):
    with running_pod(folder) as pod:
        with pod.server() as server:
            pod.source.write({})
            pod.settings.write({})
            server.reload()
            assert (body(server, "/"), body(server, "/plain")) == ("1", "page 1")
        with pod.server() as server:
            assert (body(server, "/"), body(server, "/plain")) == ("1", "page 1")


def test_content_that_is_neither_mounted_nor_kept_ends_the_agent_with_the_remedy(folder: Path):
    pod = new_pod(folder)
    pod.source.write({})
    pod.settings.write({"level": b"1"})
    ended = run_prefork(
        "agent", "--run-dir", str(folder / "run"), *agent_arguments(pod), cwd=folder
    )
    assert ended.returncode == 5
    assert (
        "content source is not there: its ConfigMap does not exist, or is empty; create it"
        in ended.stderr
    )


def test_change_that_is_taken_back_during_its_reload_does_not_serve_in_the_end(folder: Path):
    """What serves is what is wanted again, but only until the reload that is under way has ended."""
    with running_pod(folder) as pod, pod.server() as server:
        files = pod.code("2")
        slow = f"import os, time\nwhile not os.path.exists({str(folder / 'go')!r}):\n    time.sleep(0.01)\n"
        second = pod.source.write({**files, "app.py": slow.encode() + files["app.py"]})
        request_reload(pod.request, "there", source=second)
        pod.agent.wait_reload("there", "running")
        server.wait(lambda: len(server.ask({"op": "status"})["generations"]) == 2, UNHURRIED_S)
        request_reload(pod.request, "back", source=pod.source.write(pod.code("1")))
        pod.agent.wait_reload("back", "running")
        (folder / "go").touch()
        pod.agent.wait_reload("back", "succeeded")
        server.wait(lambda: len(server.ask({"op": "status"})["generations"]) == 1, UNHURRIED_S)
        assert (body(server, "/"), body(server, "/plain")) == ("1", "page 1")


def test_last_good_content_of_another_revision_is_not_booted(folder: Path):
    pod = new_pod(folder)
    pod.keep_good("another", source=pod.code("1"), settings={"level": b"1"})
    pod.source.write(pod.code("2"))
    pod.settings.write({"level": b"2"})
    with running_agent(folder / "run", *agent_arguments(pod)) as pod.agent, pod.server() as server:
        assert (body(server, "/"), body(server, "/setting")) == ("2", "2")


def test_copies_that_do_not_belong_together_are_not_booted(folder: Path):
    pod = new_pod(folder)
    pod.keep_good(source=pod.code("1"), settings={"level": b"1"})
    half = pod.code("3")
    mark = {"revision": REVISION, "contents": {"source": digest_files(half), "settings": "0" * 64}}
    pod.good["source"].write({**half, LAST_GOOD: json.dumps(mark).encode()})
    pod.source.write(pod.code("2"))
    pod.settings.write({"level": b"2"})
    with running_agent(folder / "run", *agent_arguments(pod)) as pod.agent, pod.server() as server:
        assert body(server, "/") == "2"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_container_that_was_ended_after_a_good_reload_does_not_make_its_content_bad(
    folder: Path, number: signal.Signals
):
    """SIGTERM comes from the kubelet, a node that shuts down, a person; SIGKILL from a kernel without memory."""
    with running_pod(folder) as pod:
        pod.keep_good(source=pod.code("1"), settings={"level": b"1"})
        with pod.server() as server:
            second = pod.source.write(pod.code("2"))
            request_reload(pod.request, "good", source=second)
            pod.agent.wait_reload("good", "succeeded")
            os.kill(server.process.pid, number)
            server.wait(lambda: server.process.poll() is not None, UNHURRIED_S)
        with pod.server() as server:
            server.wait(lambda: body(server, "/") == "2", UNHURRIED_S)
            pod.agent.wait_reload("good", "succeeded")


def test_reload_that_a_stop_of_the_server_ended_is_left_to_the_next_server(folder: Path):
    slow = f"import os, time\nwhile not os.path.exists({str(folder / 'go')!r}):\n    time.sleep(0.05)\n"
    with running_pod(folder) as pod:
        pod.keep_good(source=pod.code("1"), settings={"level": b"1"})
        files = pod.code("2")
        second = pod.source.write({**files, "app.py": slow.encode() + files["app.py"]})
        with pod.server() as server:
            server.wait_serving()
            request_reload(pod.request, "slow", source=second)
            pod.agent.wait_reload("slow", "running")
            os.kill(server.process.pid, signal.SIGTERM)
            assert server.wait_exit(UNHURRIED_S) == 0
        (folder / "go").touch()
        with pod.server() as server:
            pod.agent.wait_reload("slow", "succeeded")
            assert body(server, "/") == "2"


def test_containers_that_are_killed_together_do_not_make_their_content_bad(folder: Path):
    """As by the restart of a node's container runtime: agent and server are gone at once."""
    with running_pod(folder) as pod:
        pod.keep_good(source=pod.code("1"), settings={"level": b"1"})
        with pod.server() as server:
            second = pod.source.write(pod.code("2"))
            request_reload(pod.request, "good", source=second)
            pod.agent.wait_reload("good", "succeeded")
            os.kill(server.process.pid, signal.SIGKILL)
            server.wait(lambda: server.process.poll() is not None, UNHURRIED_S)
    with (
        running_agent(folder / "run", *agent_arguments(pod)) as agent,
        pod.server() as server,
    ):
        agent.wait_reload("good", "succeeded")
        server.wait(lambda: body(server, "/") == "2", UNHURRIED_S)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_content_that_ends_its_own_server_is_tried_twice_and_no_more(
    folder: Path, number: signal.Signals
):
    deadly = f"import os, time\nos.kill(os.getppid(), {int(number)})\ntime.sleep(1)\n"
    with running_pod(folder) as pod:
        pod.keep_good(source=pod.code("1"), settings={"level": b"1"})
        killer = pod.source.write(pod.code("2", **{"app.py": deadly}))
        for _ in range(2):
            with pod.server() as server:
                request_reload(pod.request, "deadly", source=killer)
                server.wait(lambda server=server: server.process.poll() is not None, UNHURRIED_S)
        with pod.server() as server:
            failed = pod.agent.wait_reload("deadly", "failed")
            assert "ended twice during or right after the reload" in failed["message"]
            assert "add an annotation" in failed["message"]
            assert body(server, "/relative") == "page 1"


def test_first_content_that_does_not_start_is_replaced_by_the_next_one(folder: Path):
    with running_pod(folder, **{"app.py": BROKEN}) as pod:
        assert pod.server().wait_exit() == 3
        digest = pod.source.write(pod.code("2"))
        wait_until(
            lambda: (pod.live / "..boot").resolve().name == digest[:16],
            UNHURRIED_S,
            what="not pinned",
        )
        with pod.server() as server:
            assert body(server, "/") == "2"
            wait_until(lambda: body(server, "/plain") == "page 2")


def test_binary_content_of_a_megabyte_arrives_whole(folder: Path):
    blob = bytes(range(256)) * 4096
    with running_pod(folder) as pod, pod.server() as server:
        digest = pod.source.write({**pod.code("2"), "blob": blob})
        request_reload(pod.request, "big", source=digest)
        pod.agent.wait_reload("big", "succeeded")
        assert (pod.versions / "source" / digest[:16] / "blob").read_bytes() == blob
        assert body(server, "/") == "2"


def test_config_file_in_a_content_is_read_in_the_version_of_its_generation(folder: Path):
    with running_pod(folder, **{"conf.py": "raw_env = ['FROM_CONF=1']\nworkers = 1\n"}) as pod:
        named = ("-c", str(pod.live / "conf.py"))
        with pod.server(*named) as server:
            files = pod.code("2", **{"conf.py": "workers = 2\n"})
            request_reload(pod.request, "good", source=pod.source.write(files))
            pod.agent.wait_reload("good", "succeeded")
            server.wait_workers(2)
            broken = pod.code("3", **{"conf.py": "workers = 3\n", "app.py": BROKEN})
            request_reload(pod.request, "bad", source=pod.source.write(broken))
            pod.agent.wait_reload("bad", "failed")
            server.wait_workers(2)


def test_version_that_does_not_fit_fails_the_reload_with_the_remedy(folder: Path):
    """The limit on a file's size stands for the volume's: both refuse the write in the middle."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with running_pod(folder) as pod:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            with pod.server() as server:
                digest = pod.source.write({**pod.code("2"), "blob": b"x" * (2 << 20)})
                request_reload(pod.request, "big", source=digest)
                message = pod.agent.wait_reload("big", "failed")["message"]
                assert "content source (4 files, " in message
                assert "move large files into the image or a volume" in message
                assert body(server, "/") == "1"
                wait_until(
                    lambda: not any("new" in name for name in pod.kept()), what="half a copy stays"
                )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_nine_changes_in_a_row_end_on_the_last_and_leave_nothing_behind(folder: Path):
    with running_pod(folder) as pod, pod.server("-w", "2") as server:
        for number in range(2, 11):
            digest = pod.source.write(pod.code(str(number)))
            request_reload(pod.request, f"change-{number}", source=digest)
        pod.agent.wait_reload("change-10", "succeeded")
        assert (body(server, "/"), body(server, "/relative")) == ("10", "page 10")
        wait_kept(pod, digest)


def test_everyone_can_read_the_versions_and_only_the_agent_can_write(folder: Path):
    before = os.umask(0o077)
    try:
        with running_pod(folder) as pod:
            wait_until(lambda: has_modes(pod.versions / "source"))
    finally:
        os.umask(before)


def has_modes(folder: Path) -> bool:
    """Whether all can read what is in a folder; the agent may just be at work in it."""
    for path in folder.rglob("*"):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError as error:
            raise NotYetError(str(error)) from error
        expected = 0o755 if stat.S_ISDIR(mode) else 0o644
        if not stat.S_ISLNK(mode) and stat.S_IMODE(mode) != expected:
            raise NotYetError(f"{path} has mode {mode:o}")
    return True


def test_agent_that_is_restarted_keeps_the_mount_path_on_what_serves(folder: Path):
    pod = new_pod(folder)
    pod.source.write(pod.code("1"))
    pod.settings.write({"level": b"1"})
    with ExitStack() as agent:
        pod.agent = agent.enter_context(running_agent(folder / "run", *agent_arguments(pod)))
        with pod.server() as server:
            second = pod.source.write(pod.code("2"))
            request_reload(pod.request, "good", source=second)
            pod.agent.wait_reload("good", "succeeded")
            assert body(server, "/plain") == "page 2"
            agent.close()
            pod.source.write(pod.code("3"))
            with running_agent(folder / "run", *agent_arguments(pod)) as pod.agent:
                pod.agent.wait_reload("good", "succeeded")
                assert body(server, "/plain") == "page 2"
                assert body(server, "/lazy") == "late 2"


def test_content_that_cannot_be_read_ends_the_agent_with_its_path(folder: Path):
    ended = run_prefork(
        "agent", "--run-dir", str(folder), f"--content=source={folder}/nowhere",
        f"--versions={folder}/content", cwd=folder,
    )  # fmt: skip
    assert ended.returncode == 5
    assert f"contents cannot be read: {folder}/nowhere: No such file or directory" in ended.stderr


def test_reload_that_names_a_content_which_is_not_there_fails_and_the_old_generation_serves(
    folder: Path,
):
    with running_pod(folder) as pod, pod.server() as server:
        answer = server.ask({"op": "reload", "id": "x", "content": {"source": "f" * 64}})
        assert answer["result"] == "failed"
        assert "content source cannot be read, ffffffffffff is requested" in answer["message"]
        assert (
            "content is to be digests by name"
            in server.ask({"op": "reload", "id": "y", "content": {"source": "../x"}})["error"]
        )
        assert body(server, "/") == "1"


def test_version_that_cannot_be_pinned_now_is_pinned_later_and_the_agent_stays(folder: Path):
    with running_pod(folder) as pod, pod.server() as server:
        digest = digest_files(pod.code("2"))
        in_the_way = pod.versions / "source" / f"{digest[:16]}.new"
        in_the_way.write_text("of another agent")
        pod.source.write(pod.code("2"))
        request_reload(pod.request, "later", source=digest)
        wait_until(
            lambda: (
                (report := pod.agent.status()["reload"]) and "cannot be pinned" in report["message"]
            ),
            UNHURRIED_S,
        )
        assert body(server, "/") == "1"
        in_the_way.unlink()
        pod.agent.wait_reload("later", "succeeded")
        assert body(server, "/") == "2"
