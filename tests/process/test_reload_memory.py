"""Reloads under a memory limit: never more than there is, and nobody is killed for want of it."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.process.harness import PREFORK, Prefork, unhurried_plan, wait_loaded, write_app
from tests.process.test_agent import running_agent
from tests.support.background_load import BackgroundLoad
from tests.support.wait import NotYetError, wait_until

MIB = 1 << 20
WORKERS = 5

# The import takes `import_mib` MiB, each worker `worker_mib` MiB more at its first breath.
APP = """
    import os, time

    VERSION = "{version}"
    PAYLOAD = os.urandom(1 << 20) * {import_mib}

    def app(environ, start_response):
        body = b"hello"
        if environ["PATH_INFO"] == "/echo":
            body = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Length", str(len(body))), ("X-App-Version", VERSION)])
        return [body]
"""
HOOK = """
import os
OWN = []
def post_worker_init(worker):
    OWN.append(os.urandom(1 << 20) * {worker_mib})
"""


class MemoryGroup:
    """A memory cgroup of version 1 below our own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def used(self) -> int:
        words = dict(
            line.split() for line in (self.folder / "memory.stat").read_text().splitlines()
        )
        usage = int((self.folder / "memory.usage_in_bytes").read_text())
        return usage - int(words["total_inactive_file"])

    def limit(self, size: int) -> None:
        (self.folder / "memory.limit_in_bytes").write_text(str(size))

    @property
    def peak(self) -> int:
        return int((self.folder / "memory.max_usage_in_bytes").read_text())

    @property
    def kills(self) -> int:
        lines = (self.folder / "memory.oom_control").read_text().splitlines()
        return int(dict(line.split() for line in lines)["oom_kill"])

    @property
    def command(self) -> tuple[str, ...]:
        """Return the command of a server in this group."""
        return ("sh", "-c", f'echo $$ > {self.folder}/cgroup.procs && exec "$0" "$@"', *PREFORK)


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    own = next(
        (
            line.split(":", 2)[2]
            for line in Path("/proc/self/cgroup").read_text().splitlines()
            if line.split(":", 2)[1] == "memory"
        ),
        None,
    )
    if own is None:
        pytest.skip("the memory controller is not mounted as cgroup v1")
    folder = Path("/sys/fs/cgroup/memory") / own.lstrip("/") / f"prefork-test-{uuid.uuid4().hex}"
    try:
        folder.mkdir()
        (folder / "memory.limit_in_bytes").read_text()
    except OSError as error:
        pytest.skip(f"no memory cgroup can be made here: {error}")
    yield MemoryGroup(folder)
    wait_until(lambda: not (folder / "cgroup.procs").read_text(), what="processes left")
    wait_until(lambda: is_removed(folder), what="the group is still in use")


def is_removed(folder: Path) -> bool:
    """Remove a group; the last of its processes may be on their way out."""
    try:
        folder.rmdir()
    except OSError as error:
        raise NotYetError(str(error)) from error
    return True


@contextmanager
def serving(
    group: MemoryGroup,
    folder: Path,
    *options: str,
    import_mib: int,
    worker_mib: int,
    workers: int = WORKERS,
) -> Iterator[Prefork]:
    """Serve an app of this size, and set the limit so that it uses 85 % of it."""
    (folder / "gunicorn.conf.py").write_text(HOOK.replace("{worker_mib}", str(worker_mib)))
    write_app(folder, APP.replace("{import_mib}", str(import_mib)))
    with Prefork("-w", str(workers), *options, cwd=folder, command=group.command) as server:
        server.wait_workers(workers)
        group.limit(int(group.used / 0.85))
        yield server


@pytest.mark.parametrize(
    ("preload", "import_mib", "worker_mib"),
    [("always", 12, 24), ("always", 2, 12), ("never", 12, 12), ("never", 2, 40)],
)
def test_app_at_85_percent_of_its_limit_is_reloaded_without_a_kill_or_a_lost_request(
    group: MemoryGroup, folder: Path, preload: str, import_mib: int, worker_mib: int
):
    options = (f"--preload={preload}", "--health-path=/")
    with (
        serving(group, folder, *options, import_mib=import_mib, worker_mib=worker_mib) as server,
        BackgroundLoad(unhurried_plan(server.url, 200)) as load,
    ):
        wait_loaded(load)
        before = set(server.workers())
        for version in ("2", "3"):
            write_app(folder, APP.replace("{import_mib}", str(import_mib)), version=version)
            answer = server.reload(version)
            assert answer["result"] == "succeeded", answer
            assert {server.version() for _ in range(10)} == {version}
            # What the old generation used is free once its workers and its mold have ended.
            server.wait_workers(WORKERS)
            server.mold()
        load.run_until(load.elapsed_s + 0.5)
        report = load.finish()
        assert not before & set(server.wait_workers(WORKERS))
        # One by one, or what the old generation leaves is not free yet and the import may take what there is.
        assert server.log().count("memory is short, ") == 2
        assert "signal SIGKILL" not in server.log()
    print(f"peak {group.peak // MIB} MiB")
    assert group.kills == 0
    assert report.is_clean, report.to_text()


def test_limit_and_use_of_memory_are_metrics(group: MemoryGroup, folder: Path):
    names = ("wsgi_memory_working_set_bytes", "wsgi_memory_limit_bytes")
    group.limit(512 * MIB)
    write_app(folder, APP.replace("{import_mib}", "200"))
    with (
        Prefork("-w", "2", cwd=folder, command=group.command) as server,
        running_agent(server.run_dir) as agent,
    ):
        server.wait(lambda: agent.value(names[0], 0) > 200 * MIB, what="no use of memory")
        used, limit = (agent.value(name) for name in names)
        assert limit == 512 * MIB
        assert abs(used - group.used) < 16 * MIB
        group.limit(1024 * MIB)
        server.wait(lambda: agent.value(names[1]) == 1024 * MIB, what="the new limit is not seen")


def test_whole_generation_that_fits_takes_over_at_once(group: MemoryGroup, folder: Path):
    with serving(group, folder, import_mib=2, worker_mib=2) as server:
        group.limit(1024 * MIB)
        write_app(folder, APP.replace("{import_mib}", "2"), version="2")
        assert server.reload()["result"] == "succeeded"
        assert "memory is short" not in server.log()


@pytest.mark.parametrize("fails_at", [1, 3])
def test_failure_in_the_middle_goes_back_to_the_old_generation(
    group: MemoryGroup, folder: Path, fails_at: int
):
    """The new generation's n-th worker does not import."""
    with (
        serving(group, folder, "--preload=never", import_mib=12, worker_mib=12) as server,
        BackgroundLoad(unhurried_plan(server.url, 200)) as load,
    ):
        wait_loaded(load)
        text = APP.replace("{import_mib}", "12").replace(
            "    def app(",
            f"""
    with open("imports", "a") as file:
        print(file=file)
    if len(open("imports").readlines()) >= {fails_at}:
        raise RuntimeError("not this one")

    def app(""",
            1,
        )
        write_app(folder, text, version="2")
        answer = server.reload()
        assert (answer["result"], answer["message"]) == ("failed", "RuntimeError: not this one")
        assert len((folder / "imports").read_text()) == fails_at
        # The old generation's replacements import again, each for itself.
        write_app(folder, APP.replace("{import_mib}", "12"), version="1")
        server.wait(
            lambda: (
                server.ask({"op": "status"})["workers"]["ready"] == WORKERS
                and len(server.workers()) == WORKERS
            )
        )
        assert {server.version() for _ in range(20)} == {"1"}
        load.run_until(load.elapsed_s + 0.5)
        report = load.finish()
    assert group.kills == 0
    assert report.is_clean, report.to_text()


def test_reload_that_cannot_fit_is_refused_and_the_old_generation_serves(
    group: MemoryGroup, folder: Path
):
    with serving(group, folder, "--preload=always", import_mib=60, worker_mib=1) as server:
        before = server.workers()
        write_app(folder, APP.replace("{import_mib}", "60"), version="2")
        answer = server.reload()
        assert answer["result"] == "failed"
        assert "memory does not suffice for a reload" in answer["message"]
        assert "raise the limit" in answer["message"]
        assert server.version() == "1"
        assert server.workers() == before
    assert group.kills == 0


def test_reload_right_after_another_waits_for_the_memory_that_is_being_released(
    group: MemoryGroup, folder: Path
):
    with serving(group, folder, "--preload=always", import_mib=12, worker_mib=24) as server:
        for version in ("2", "3", "4"):
            write_app(folder, APP.replace("{import_mib}", "12"), version=version)
            answer = server.reload(version)
            assert answer["result"] == "succeeded", answer
            assert {server.version() for _ in range(5)} == {version}
    assert group.kills == 0


@pytest.mark.parametrize("workers", [1, 5])
def test_smaller_fix_is_loaded_after_a_reload_that_did_not_fit(
    group: MemoryGroup, folder: Path, workers: int
):
    """Where an old generation as large as the new one would not fit, the new one is held to what there is."""
    with serving(
        group, folder, "--preload=auto", import_mib=80, worker_mib=1, workers=workers
    ) as server:
        for version, import_mib in (("2", 80), ("3", 60)):
            write_app(folder, APP.replace("{import_mib}", str(import_mib)), version=version)
            answer = server.reload(version)
            assert answer["result"] == "failed", answer
            assert "memory does not suffice for a reload" in answer["message"]
        assert server.version() == "1"
        write_app(folder, APP.replace("{import_mib}", "1"), version="4")
        answer = server.reload("4")
        assert answer["result"] == "succeeded", answer
        assert {server.version() for _ in range(10)} == {"4"}
        # The next is taken to be about as large as this one: what the first has used must be free for it.
        server.wait_workers(workers)
        server.mold()
        # The limit was that of the import alone.
        write_app(folder, APP.replace("{import_mib}", "40"), version="5")
        server.wait(lambda: server.reload("5")["result"] == "succeeded")
        assert {server.version() for _ in range(10)} == {"5"}
        assert "signal SIGKILL" not in server.log()
    assert group.kills == 0
