"""Children that the app starts are as they would be without the server."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from prefork.base.children import NUMBERS

from tests.process.harness import Prefork, is_gone, open_files, run_prefork, write_app
from tests.support.ports import reserve_port
from tests.support.wait import UNHURRIED_S, children_of, parent_of, wait_until

APP = """
    def app(environ, start_response):
        body = str(run(environ)).encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def serve(folder: Path, text: str, *options: str, **more: object) -> Prefork:
    write_app(folder, textwrap.dedent(text) + textwrap.dedent(APP))
    return Prefork(*options, cwd=folder, **more)  # type: ignore[arg-type]


def sockets_of(pid: int) -> list[str]:
    return [target for target in open_files(pid).values() if target.startswith("socket:")]


def alive_children(folder: Path) -> list[int]:
    """Return the children that have said that they run."""
    found = [int(path.name.partition("-")[2]) for path in folder.glob("child-*")]
    return [pid for pid in found if not is_gone(pid)]


def wait_helpers(server: Prefork, folder: Path, *, of_mold: bool) -> list[int]:
    """Wait until each worker, or the mold, has one child that has said that it runs; return them.

    Not counted is that of the import by which the server has seen whether it can be shared: it may be about to end.
    """

    def helpers() -> list[int]:
        parents = server.pids("mold") if of_mold else server.workers()
        found = [pid for pid in alive_children(folder) if parent_of(pid) in parents]
        return found if parents and sorted(map(parent_of, found)) == sorted(parents) else []

    pids: list[int] = server.wait(helpers, what="not one child each")
    return pids


def is_refused(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


DAEMON_CHILD = """
    import multiprocessing, os, time
    def background():
        with open(f"child-{os.getpid()}", "w"):
            time.sleep(60)
    multiprocessing.get_context("fork").Process(target=background, daemon=True).start()
    def run(environ): return "ok"
"""


@pytest.mark.parametrize("preload", [(), ("--preload=never",), ("--preload",)], ids=str)
def test_a_child_of_the_import_ends_with_the_server_and_the_port_is_free(
    folder: Path, preload: tuple[str, ...]
):
    port = reserve_port()
    with serve(folder, DAEMON_CHILD, "-w", "2", *preload, bind=f"127.0.0.1:{port}") as server:
        assert server.get() == (200, "ok")
        alive = wait_helpers(server, folder, of_mold=preload == ("--preload",))
        assert len(alive) == (1 if preload == ("--preload",) else 2)
        for child in alive:
            assert sockets_of(child) == []
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert is_refused(port)
        for child in alive:
            wait_until(lambda pid=child: is_gone(pid), what="child is still there")
    with Prefork("-w", "1", "-b", f"127.0.0.1:{port}", cwd=folder, bind="") as again:
        assert again.get() == (200, "ok")


@pytest.mark.parametrize("preload", [(), ("--preload=never",)], ids=str)
@pytest.mark.parametrize("ends", ["os._exit(3)", "os.kill(os.getpid(), 9)", "time.sleep(60)"])
def test_a_child_of_an_import_that_ends_in_its_middle_ends_too(
    folder: Path, preload: tuple[str, ...], ends: str
):
    """The import reports nothing then: the arbiter sees its children while it lasts."""
    write_app(folder)
    text = f"""
        import os, subprocess, time
        CHILD = subprocess.Popen(["sleep", "600"])
        with open("children", "a") as file:
            print(CHILD.pid, file=file)
        time.sleep(2.5)
        {ends}
    """
    with Prefork("-w", "1", *preload, cwd=folder) as server:
        # For this import alone: the first one may be slow.
        (folder / "gunicorn.conf.py").write_text("boot_timeout = 8\n")
        write_app(folder, textwrap.dedent(text))
        assert server.reload("ends")["result"] == "failed"
        for child in map(int, (folder / "children").read_text().split()):
            wait_until(lambda pid=child: is_gone(pid), what="child is still there")
        assert server.version() == "1"


STUBBORN_CHILD = {
    "subprocess": """
        import subprocess
        CHILD = subprocess.Popen(["sh", "-c", "trap '' TERM; touch child-$$; while :; do sleep 1; done"])
    """,
    "multiprocessing": """
        import multiprocessing, os, signal, time
        def background():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            open(f"child-{os.getpid()}", "w").close()
            time.sleep(600)
        multiprocessing.get_context("fork").Process(target=background, daemon=True).start()
    """,
}


@pytest.mark.parametrize(
    ("kind", "leaves", "preload"),
    [
        ("subprocess", "stop", ()),
        ("subprocess", "quick stop", ()),
        ("subprocess", "kill", ()),
        ("subprocess", "stop", ("--preload",)),
        ("multiprocessing", "stop", ()),  # its exit function waits for the child
        ("multiprocessing", "stop", ("--preload",)),
    ],
    ids=str,
)
def test_a_child_of_the_import_that_ignores_sigterm_does_not_outlive_its_worker(
    folder: Path, kind: str, leaves: str, preload: tuple[str, ...]
):
    text = textwrap.dedent(STUBBORN_CHILD[kind]) + 'def run(environ): return "ok"\n'
    with serve(folder, text, "-w", "1", "--graceful-timeout=2", *preload) as server:
        children = wait_helpers(server, folder, of_mold=preload == ("--preload",))
        if leaves == "kill":  # its replacement has a child of its own
            (worker,) = server.workers()
            os.kill(worker, signal.SIGKILL)
        else:
            server.signal(signal.SIGINT if leaves == "quick stop" else signal.SIGTERM)
            assert server.wait_exit() == 0
        wait_until(lambda: all(is_gone(child) for child in children), what="child is there")
        server.signal(signal.SIGINT)  # the fixture's end would only kill


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=str)
def test_sigterm_ends_a_child_of_the_import(folder: Path, preload: tuple[str, ...]):
    with serve(folder, DAEMON_CHILD, "-w", "1", *preload) as server:
        (child,) = wait_helpers(server, folder, of_mold=preload == ("--preload",))
        os.kill(child, signal.SIGTERM)
        wait_until(lambda: is_gone(child), what="SIGTERM does not end the child")


def test_a_grandchild_keeps_its_descriptors_and_handlers(folder: Path):
    text = """
        import os, signal
        def mine(*_): pass
        def run(environ):
            r, w = os.pipe()
            if os.fork() == 0:
                files = [os.open("/dev/null", os.O_WRONLY) for _ in range(12)]
                signal.signal(signal.SIGTERM, mine)
                if os.fork() == 0:
                    bad = [fd for fd in files if not os.path.exists(f"/proc/self/fd/{fd}")]
                    os.write(w, f"{bad} {signal.getsignal(signal.SIGTERM) is mine}".encode())
                    os._exit(0)
                os.wait()
                os._exit(0)
            os.close(w)
            out = os.read(r, 4096).decode()
            os.close(r)
            os.wait()
            return out
    """
    with serve(folder, text, "-w", "1") as server:
        assert server.get()[1] == "[] True"
        assert "Bad file descriptor" not in server.log()
        assert "Exception ignored" not in server.log()


def test_a_pool_works_in_a_forked_job(folder: Path):
    text = """
        import multiprocessing
        fork = multiprocessing.get_context("fork")
        def job(q):
            with fork.Pool(2) as pool:
                q.put(pool.map_async(abs, [-1, 2]).get(30))
        def run(environ):
            q = fork.Queue()
            p = fork.Process(target=job, args=(q,))
            p.start()
            out = q.get(timeout=30)
            p.join(30)
            return out, p.exitcode
    """
    with serve(folder, text, "-w", "1") as server:
        assert server.get(timeout_s=90)[1] == "([1, 2], 0)"
        assert "Exception ignored" not in server.log()


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_processes_of_each_start_method_work_in_requests(folder: Path, method: str):
    (folder / "jobs.py").write_text(
        "import os, signal, sys\n"
        "def look(q):\n"
        "    usual = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL\n"
        "    sockets = [e for e in os.listdir('/proc/self/fd')\n"
        "        if os.path.exists(f'/proc/self/fd/{e}') and os.readlink(f'/proc/self/fd/{e}').startswith('socket:')]\n"
        "    q.put((usual, signal.getsignal(signal.SIGINT) is signal.default_int_handler))\n"
        "    sys.exit(7)\n"
    )
    text = f"""
        import multiprocessing, jobs
        context = multiprocessing.get_context("{method}")
        def run(environ):
            q = context.Queue()
            p = context.Process(target=jobs.look, args=(q,))
            p.start()
            seen = q.get(timeout=30)
            p.join(30)
            return seen, p.exitcode
    """
    with serve(folder, text, "-w", "1") as server:
        assert server.get(timeout_s=90)[1] == "((True, True), 7)"
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


def test_a_thread_that_forks_while_the_server_forks_gets_a_child_of_the_app(folder: Path):
    """The children of a thread of the app's are the app's, also while a worker is being forked."""
    script = """
        import os, threading
        from prefork.base import children
        children.own()
        read, write = os.pipe()
        children.undo_in_children(lambda: os.write(write, b"undone"))
        def fork():
            if os.fork() == 0:
                os._exit(0)
        with children.own_fork():
            thread = threading.Thread(target=fork)
            thread.start()
            thread.join()
            if os.fork() == 0:
                os._exit(0)
        os.wait(), os.wait()
        os.close(write)
        assert os.read(read, 99) == b"undone"
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=folder, check=False)
    assert done.returncode == 0


@pytest.mark.parametrize("kind", ["ProcessPoolExecutor", "Manager", "Pool"])
def test_helpers_made_on_import_work_and_end_with_the_server(folder: Path, kind: str):
    made = {
        "ProcessPoolExecutor": (
            "from concurrent.futures import ProcessPoolExecutor\n"
            "E = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context('fork'))\n"
            "E.submit(abs, -1).result()\n"
            "def run(environ): return E.submit(abs, -3).result(30)"
        ),
        "Manager": (
            "M = multiprocessing.get_context('fork').Manager()\nD = M.dict(x=3)\n"
            "def run(environ): return D['x']"
        ),
        "Pool": (
            "P = multiprocessing.get_context('fork').Pool(2)\n"
            "def run(environ): return P.apply(abs, (-3,))"
        ),
    }[kind]
    with serve(folder, f"import multiprocessing\n{made}\n", "-w", "2") as server:
        assert [server.get()[1] for _ in range(6)] == ["3"] * 6
        family = set(everything_below(server.process.pid))
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        wait_until(lambda: all(is_gone(pid) for pid in family), what="all ended")


def everything_below(pid: int) -> list[int]:
    return [p for child in children_of(pid) for p in (child, *everything_below(child))]


def test_a_program_started_by_a_request_has_the_usual_signals_and_stdio(folder: Path):
    text = """
        import subprocess
        LOOK = "grep -E 'Sig(Ign|Blk)' /proc/self/status | tr -d '\\\\n\\\\t'; echo; ls /proc/self/fd | wc -w"
        def run(environ):
            return subprocess.run(["sh", "-c", LOOK], capture_output=True, text=True).stdout
    """
    with serve(folder, text, "-w", "1") as server:
        # What is ignored here is so for every child; what Python itself ignores is restored by subprocess.
        status = Path("/proc/self/status").read_text()
        ignored = int(status.split("SigIgn:")[1].split()[0], 16)
        ignored &= ~(1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)
        for number in (
            NUMBERS
        ):  # to these the server gives a meaning of its own, and its children the usual one
            ignored &= ~(1 << number - 1)
        signals, descriptors = server.get()[1].split("\n")[:2]
        assert signals == f"SigBlk:{0:016x}SigIgn:{ignored:016x}"
        assert int(descriptors) == 4  # 0, 1, 2 and the folder that is listed


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_nothing_depends_on_which_standard_descriptors_are_open(
    folder: Path, closed: tuple[int, ...]
):
    write_app(
        folder,
        "import subprocess\ndef run(e): return subprocess.run(['echo', 'hi'], capture_output=True).stdout\n"
        + APP.replace("\n    ", "\n"),
    )
    close = " ".join(f"{number}>&-" for number in closed).replace("0>&-", "0<&-")
    log = folder / "errors.log"
    run_dir = folder / "run"
    process = subprocess.Popen(
        [
            "sh",
            "-c",
            f"exec {sys.executable} -m prefork --run-dir {run_dir} --error-logfile {log} -b 127.0.0.1:0 -w 1 app:app {close}",
        ],
        cwd=folder,
    )
    try:
        wait_until(
            lambda: log.exists() and "generation active" in log.read_text(),
            what="serves",
        )
        port = int(re.search(r"listening=\S*?:(\d+)", log.read_text())[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=UNHURRIED_S)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"b'hi\\n'"
        connection.close()
        for pid in (process.pid, *everything_below(process.pid)):
            for number in (0, 1, 2):
                assert not os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:")
        process.terminate()
        assert process.wait(UNHURRIED_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.mark.parametrize("where", ["app", "gunicorn.conf"])
def test_an_app_that_patches_threads_is_refused_with_a_remedy(folder: Path, where: str):
    app = "def app(e, s):\n    s('200 OK', [])\n    return []\n"
    patch = "from gevent import monkey\nmonkey.patch_all()\n"
    write_app(folder, patch + app if where == "app" else app)
    if where != "app":
        (folder / "gunicorn.conf.py").write_text(patch)
    for arguments in (
        ["--check-config"],
        ["-b", "127.0.0.1:0"],
        ["-b", "127.0.0.1:0", "--preload=never"],
    ):
        done = run_prefork(*arguments, "app:app", cwd=folder)
        assert done.returncode == 3, done.stderr
        assert "has replaced Python's threads" in done.stderr
        assert "--worker-class gevent" in done.stderr
        assert "remove the patching" in done.stderr


IMPORT_WITH_REMAINS = """
    import atexit, multiprocessing, os, pathlib, subprocess, sys, tempfile, time
    def background():
        pathlib.Path(f"child-{os.getpid()}").touch()
        time.sleep(60)
    multiprocessing.get_context("fork").Process(target=background, daemon=True).start()
    program = subprocess.Popen(["sleep", "60"])
    pathlib.Path(f"child-{program.pid}").touch()
    FOLDER = tempfile.TemporaryDirectory()
    while len(list(pathlib.Path().glob("child-*"))) % 2:
        time.sleep(0.01)
    if os.path.exists("slow"):
        time.sleep(60)
    if os.path.exists("broken"):
        raise OSError("broken")
    def run(environ): return "ok"
"""


def assert_nothing_is_left(folder: Path, temporary: Path) -> None:
    """Of the imports so far; begins anew."""
    marks = list(folder.glob("child-*"))
    assert marks
    for mark in marks:
        pid = int(mark.name.partition("-")[2])
        wait_until(lambda pid=pid: is_gone(pid), what=f"child {pid} is still there")
        mark.unlink()
    wait_until(lambda: not list(temporary.glob("tmp*")), what="folder is still there")


@pytest.fixture
def temporary(folder: Path) -> Path:
    temporary = folder / "temporary"
    temporary.mkdir()
    return temporary


@pytest.mark.parametrize("preload", ["auto", "never"])
def test_an_import_that_fails_leaves_no_child_and_no_folder_behind(
    folder: Path, temporary: Path, preload: str
):
    options = ("-w", "1", f"--preload={preload}")
    environment = {"TMPDIR": str(temporary)}
    (folder / "broken").touch()
    with serve(
        folder, IMPORT_WITH_REMAINS, *options, environment=environment, wait=False
    ) as server:
        assert server.wait_exit() == 3
    assert_nothing_is_left(folder, temporary)
    (folder / "broken").unlink()
    with serve(folder, IMPORT_WITH_REMAINS, *options, environment=environment) as server:
        served = {mark: mark.rename(folder / f"of-{mark.name}") for mark in folder.glob("child-*")}
        kept = set(temporary.iterdir())
        (folder / "broken").touch()
        for _ in range(2):
            assert server.reload()["result"] == "failed"
        failed = [mark for mark in folder.glob("child-*") if mark not in served]
        assert failed
        for mark in failed:
            pid = int(mark.name.partition("-")[2])
            wait_until(lambda pid=pid: is_gone(pid), what=f"child {pid} is still there")
        wait_until(lambda: set(temporary.iterdir()) <= kept, what="folder is still there")
        assert server.get() == (200, "ok")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


def test_an_import_that_takes_too_long_leaves_no_child_behind(folder: Path, temporary: Path):
    (folder / "slow").touch()
    with serve(
        folder, IMPORT_WITH_REMAINS, "-w", "1", "--boot-timeout", "2",
        environment={"TMPDIR": str(temporary)}, wait=False,
    ) as server:  # fmt: skip
        assert server.wait_exit() == 3
    for mark in folder.glob("child-*"):
        pid = int(mark.name.partition("-")[2])
        wait_until(lambda pid=pid: is_gone(pid), what=f"child {pid} is still there")


@pytest.mark.parametrize("code", [0, 3])
def test_check_config_leaves_nothing_of_the_import_behind(folder: Path, temporary: Path, code: int):
    if code:
        (folder / "broken").touch()
    write_app(folder, textwrap.dedent(IMPORT_WITH_REMAINS) + textwrap.dedent(APP))
    environment = {"TMPDIR": str(temporary)}
    checked = run_prefork("--check-config", "app:app", cwd=folder, environment=environment)
    assert checked.returncode == code, checked.stderr
    assert_nothing_is_left(folder, temporary)


@pytest.mark.parametrize("preload", ["auto", "always", "never"])
def test_shared_memory_with_a_name_is_there_for_one_import_and_gone_at_the_end(
    folder: Path, preload: str
):
    """multiprocessing removes it in a child of its own, which ignores SIGTERM: it is given the time to."""
    name = f"prefork-test-{os.getpid()}-{preload}"
    write_app(folder, f"""
        from multiprocessing.shared_memory import SharedMemory
        TABLE = SharedMemory(name="{name}", create=True, size=64)
        def app(environ, start_response):
            start_response("200 OK", [("Content-Length", "64")])
            return [bytes(TABLE.buf[:64])]
    """)  # fmt: skip
    with Prefork("-w", "1", f"--preload={preload}", cwd=folder) as server:
        assert server.get()[0] == 200
        assert Path("/dev/shm", name).exists()
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    wait_until(lambda: not Path("/dev/shm", name).exists(), what="the name is left")


def test_a_pool_of_threads_made_on_import_ends_without_a_word(folder: Path):
    write_app(folder, """
        from multiprocessing.pool import ThreadPool
        POOL = ThreadPool(2)
        def app(environ, start_response):
            start_response("200 OK", [])
            return [str(POOL.map(abs, [1, -2])).encode()]
    """)  # fmt: skip
    with Prefork("-w", "1", cwd=folder) as server:
        assert server.get() == (200, "[1, 2]")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert "Traceback" not in server.log()
