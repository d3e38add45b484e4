"""Preloading never changes what an app means: what must not be shared is not shared."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sqlite3
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefork.worker.import_end import END_S

from tests.process.harness import Prefork, is_gone, run_prefork, write_app
from tests.support.wait import children_of, wait_until


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def serve(
    folder: Path, text: str, *options: str, environment: dict[str, str] | None = None, **more: Any
) -> Prefork:
    write_app(folder, text)
    (folder / "answer.py").write_text(
        "def answer(start_response, text):\n"
        "    body = str(text).encode()\n"
        "    start_response('200 OK', [('Content-Length', str(len(body)))])\n"
        "    return [body]\n"
    )
    return Prefork(*options, cwd=folder, environment=environment, **more)


def ask_many(server: Prefork, path: str = "/", *, count: int = 40) -> list[str]:
    """Ask from four threads at once, so that several workers answer."""
    answers: list[str] = []

    def ask() -> None:
        answers.extend(server.get(path)[1] for _ in range(count // 4))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def kill_a_worker(server: Prefork) -> None:
    """Kill one of those that max_requests replaces all the time."""

    def is_killed() -> bool:
        try:
            os.kill(server.workers()[0], signal.SIGKILL)
        except (IndexError, ProcessLookupError):
            return False
        return True

    server.wait(is_killed)


def imports(server: Prefork) -> int:
    return len(server.log().split("app imported")) - 1


# numpy's OpenBLAS starts native threads otherwise, by which an import cannot be shared.
ONE_BLAS_THREAD = {"OPENBLAS_NUM_THREADS": "1"}

# What an import can leave, and what the log says of it.
UNSAFE = {
    "thread": ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()", r"thread Thread-1"),
    "child": ("import subprocess\nCHILD = subprocess.Popen(['sleep', '60'])", r"child process \d+ \(sleep 60\)"),
    "forked child": ("import os, time\nif os.fork() == 0:\n    time.sleep(60)\n    os._exit(0)", r"child process \d+"),
    "socket": ("import socket\nPAIR = socket.socketpair()", r"open socket .*held by app.PAIR \(app.py:2\)"),
    "pipe": ("import os\nENDS = os.pipe()", r"open pipe"),
    "file for writing": ("OUT = open('out.txt', 'w')", r"file open for writing: \S+/out.txt, held by app.OUT \(app.py:1\)"),
    "file for appending": ("OUT = open('out.txt', 'ab', buffering=0)", r"file open for writing: \S+/out.txt"),
    "file for reading": ("IN = open(__file__)", r"file open for reading: \S+/app.py, held by app.IN"),
    "file in an object": ("class Store:\n    def __init__(self):\n        self.log = open('out.txt', 'a')\nSTORE = Store()", r"held by app.STORE \(app.py:4\)"),
    "locked file": ("import fcntl\nF = open('lock', 'w')\nfcntl.flock(F, fcntl.LOCK_EX)", r"file open for writing, locked: \S+/lock"),
    "file locked by fcntl": ("import fcntl\nF = open('lock', 'w')\nfcntl.lockf(F, fcntl.LOCK_EX | fcntl.LOCK_NB)", r"locked: \S+/lock"),
    "SQLite": ("import sqlite3\nDB = sqlite3.connect('data.db')\nDB.execute('create table if not exists t (x)')\nDB.commit()", r"file open for writing: \S+/data.db"),
    "event descriptor": ("import os\nE = os.eventfd(0)", r"open anon_inode:\[eventfd\]"),
    "epoll": ("import select\nE = select.epoll()", r"open anon_inode:\[eventpoll\]"),
    "memory file": ("import os\nM = os.memfd_create('m')", r"file open for writing: /memfd:m"),
    "shared memory": ("import mmap\nM = mmap.mmap(-1, 4096)", r"memory shared with other processes"),
    "mapped file": ("import mmap\nwith open('map', 'w+b') as f:\n    f.truncate(4096)\n    M = mmap.mmap(f.fileno(), 4096)", r"memory shared with other processes \(\S+/map\)"),
    "random.Random": ("import random\nR = random.Random(7)", r"random generator random.Random app.R \(app.py:2\)"),
    "own Random": ("import random\nclass Mine(random.Random): pass\nBOX = {'r': Mine()}", r"random generator app.Mine app.BOX"),
    "numpy generator": ("import numpy\nG = numpy.random.default_rng(1)", r"random generator numpy.random._generator.Generator app.G"),
    "numpy RandomState": ("import numpy\nG = numpy.random.RandomState(1)", r"random generator numpy.random.mtrand.RandomState app.G"),
    "multiprocessing pool": ("import multiprocessing\nPOOL = multiprocessing.get_context('fork').Pool(2)", r"thread|child process"),
    "multiprocessing manager": ("import multiprocessing\nM = multiprocessing.get_context('fork').Manager()", r"child process"),
    "locked folder": ("import fcntl, os\nD = os.open('.', os.O_RDONLY)\nfcntl.flock(D, fcntl.LOCK_EX | fcntl.LOCK_NB)", r"folder locked: "),
    "timer": ("import signal\nsignal.signal(signal.SIGALRM, print)\nsignal.setitimer(signal.ITIMER_REAL, 3600)", r"timer ITIMER_REAL"),
    "Random frozen by the app": ("import gc, random\nR = random.Random()\ngc.freeze()", r"random generator random.Random app.R \(app.py:2\)"),
    "many Randoms": ("import random\nR = [random.Random() for _ in range(300)]", r"random generator random.Random app.R .*and 297 more"),
    "many sockets": ("import socket\nS = [socket.socket() for _ in range(100)]", r"held by app.S .*and 97 more"),
    "numpy seed sequence": ("import numpy\nS = numpy.random.SeedSequence()", r"random generator numpy.random.bit_generator.SeedSequence app.S"),
    "numpy bit generator": ("import numpy\nB = numpy.random.PCG64()", r"random generator numpy.random._pcg64.PCG64 app.B"),
    "interpreter": ("try: import _interpreters as I\nexcept ImportError: import _xxsubinterpreters as I\nN = I.create()", r"interpreter besides the main one"),
    "finalizer": ("import weakref\nclass Client: pass\nC = Client()\nweakref.finalize(C, print, 'bye')", r"finalizer builtins:print"),
    "destructor": ("class C:\n    def __del__(self): pass\nC1 = C()", r"object with a destructor: app.C app.C1 \(app.py:3\)"),
    "exit function": ("import atexit\natexit.register(print, 'bye')", r"exit function print registered by app \(app.py:2\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSAFE)
def test_what_cannot_be_shared_makes_each_worker_import_for_itself(folder: Path, name: str):
    lines, found = UNSAFE[name]
    text = f"{lines}\nfrom answer import answer\ndef app(e, s): return answer(s, 1)\n"
    # A lock that only one import can take leaves room for one worker, here as in any server.
    workers = "1" if "lock" in name else "2"
    # Native threads only where they are meant.
    environment = ONE_BLAS_THREAD if "seed" in name or "bit" in name else None
    with serve(folder, text, "-w", workers, environment=environment) as server:
        assert re.search(r"each worker imports for itself .*found=.*" + found, server.log()), (
            server.log()
        )
        assert imports(server) == 0
        assert server.get() == (200, "1")
        server.signal(
            signal.SIGTERM
        )  # not only killed: helpers of the import end with their worker
        assert server.wait_exit() == 0


SAFE = {
    "nothing": "",
    "more_itertools": "import random, sys, types\nM = sys.modules['more_itertools.recipes'] = types.ModuleType('recipes')\nM._private_randrange = random.Random().randrange",
    "log file": "import logging\nlogging.basicConfig(filename='app.log')",
    "rotating log": "import logging\nfrom logging.handlers import *\nlogging.getLogger().addHandler(RotatingFileHandler('app.log', maxBytes=9999))\nlogging.getLogger().addHandler(TimedRotatingFileHandler('timed.log'))",
    "log on stderr": "import logging\nlogging.basicConfig(filename='/dev/stderr')",
    "system log": "from logging.handlers import SysLogHandler\nH = SysLogHandler(('127.0.0.1', 9))",
    "receiver of a Django signal": "from django.dispatch import Signal\nclass R:\n    def heard(self, **_): pass\nR1 = R()\nS = Signal()\nS.connect(R1.heard)",
    "ended threads": "from concurrent.futures import ThreadPoolExecutor\nwith ThreadPoolExecutor(16) as E:\n    list(E.map(abs, range(99)))",
    "closed file": "open('x', 'w').close()",
    "device": "import os\nN = open(os.devnull, 'w')\nU = open('/dev/urandom', 'rb')",
    "folder": "import os\nD = os.open('.', os.O_RDONLY)",
    "ended child": "import subprocess\nsubprocess.run(['true'])",
    "ended thread": "import threading\nt = threading.Thread(target=int)\nt.start()\nt.join()",
    "module's generator": "import random\nrandom.seed(1)",
    "numpy": "import numpy\nnumpy.random.seed(1)",
    "secrets": "import random, secrets\nS = random.SystemRandom()",
    "requests": "import requests\nS = requests.Session()",
    "class without a hash": "class M(type):\n    def __eq__(cls, other): return cls is other\nclass C(metaclass=M): pass\nC1 = C()",
    "class that hides its bases": "class M(type):\n    @property\n    def __mro__(cls): raise RuntimeError\nclass C(metaclass=M): pass\nC1 = C()",
    "temporary name": "import tempfile\nopen(tempfile.mktemp(), 'w').close()",
}


@pytest.mark.parametrize("name", SAFE)
def test_what_can_be_shared_is_imported_once(folder: Path, name: str):
    text = f"{SAFE[name]}\nfrom answer import answer\ndef app(e, s): return answer(s, 1)\n"
    with serve(folder, text, "-w", "2", environment=ONE_BLAS_THREAD) as server:
        assert imports(server) == 1, server.log()
        assert server.get() == (200, "1")


def test_an_app_that_replaces_what_the_server_uses_of_the_standard_library_is_served(folder: Path):
    """`signal.signal` that does nothing is a way around its limit to the main thread; a faster json takes other arguments."""
    text = """
        import json, signal
        def refuse(*_, **__): raise TypeError
        json.dumps = json.loads = refuse
        signal.signal = lambda *_: None
        from answer import answer
        def app(e, s): return answer(s, 1)
    """
    with serve(folder, text, "-w", "2") as server:
        assert server.get() == (200, "1")
        assert imports(server) == 1
        first, _ = server.wait_workers(2)
        os.kill(first, signal.SIGTERM)
        server.wait(lambda: first not in server.workers() and len(server.workers()) == 2)
        server.wait_log(rf"worker exited pid={first} .*reason=retired")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_session_connected_on_import_mixes_up_no_answers(folder: Path):
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    try:
        text = f"""
            import requests
            from answer import answer
            URL = "http://127.0.0.1:{upstream.server_port}"
            SESSION = requests.Session()
            SESSION.get(URL + "/warm-up")
            def app(environ, start_response):
                asked = "/" + environ["QUERY_STRING"]
                return answer(start_response, SESSION.get(URL + asked).text == asked)
        """
        with serve(folder, text, "-w", "4") as server:
            assert Counter(ask_many(server, "/?a", count=80)) == {"True": 80}
    finally:
        upstream.shutdown()
        upstream.server_close()


def test_an_appended_file_with_an_index_in_memory_loses_nothing_acknowledged(folder: Path):
    """Each worker writes a file of its own, as with one import per worker, and finds all it has written."""
    text = """
        import os, uuid
        from answer import answer
        NAME = f"store-{uuid.uuid4().hex}"
        FILE = open(NAME, "a+b", buffering=0)
        def app(environ, start_response):
            at = FILE.seek(0, 2)
            FILE.write(environ["QUERY_STRING"].encode() + b"\\n")
            FILE.seek(at)
            return answer(start_response, FILE.readline().decode().strip())
    """
    with serve(folder, text, "-w", "3", "--max-requests", "15") as server:
        written = []
        for number in range(60):
            assert server.get(f"/?{number}")[1] == str(number)
            written.append(str(number))
            if number == 20:
                kill_a_worker(server)
            if number == 40:
                assert server.reload()["result"] == "succeeded"
        kept = [line for file in folder.glob("store-*") for line in file.read_text().splitlines()]
        assert sorted(kept) == sorted(written)


def test_sqlite_connected_on_import_keeps_every_row(folder: Path):
    with sqlite3.connect(folder / "data.db") as database:
        database.execute("create table rows (x)")
    database.close()
    text = """
        import sqlite3
        from answer import answer
        DB = sqlite3.connect("data.db", check_same_thread=False, timeout=30)
        DB.execute("pragma synchronous = off")  # a busy disk takes seconds for each row
        DB.execute("select * from rows").fetchall()
        def app(environ, start_response):
            with DB:
                DB.execute("insert into rows values (1)")
            return answer(start_response, "ok")
    """
    with serve(folder, text, "-w", "3") as server:
        assert Counter(ask_many(server)) == {"ok": 40}
    with sqlite3.connect(folder / "data.db") as database:
        assert database.execute("select count(*) from rows").fetchone() == (40,)
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)
    database.close()


OWN_FILE = """
class OwnFile:
    def __init__(self):
        self.name = tempfile.mktemp()
        open(self.name, 'w').close()
    def __del__(self):
        os.unlink(self.name)
"""


@pytest.mark.parametrize(
    "made",
    [
        f"import os, tempfile\n{OWN_FILE}\nF = OwnFile()\nD = F.name",
        "import tempfile\nT = tempfile.TemporaryDirectory()\nD = T.name",
        "import atexit, shutil, tempfile\nD = tempfile.mkdtemp()\natexit.register(shutil.rmtree, D)",
    ],
    ids=["__del__", "TemporaryDirectory", "atexit"],
)
def test_a_folder_made_on_import_is_there_after_workers_exited_and_gone_after_the_stop(
    folder: Path, made: str
):
    text = f"{made}\nimport os\nfrom answer import answer\ndef app(e, s): return answer(s, f'{{D}} {{os.path.exists(D)}}')\n"
    temporary = folder / "tmp"
    temporary.mkdir()
    environment = {"TMPDIR": str(temporary)}
    with serve(folder, text, "-w", "2", "--max-requests", "5", environment=environment) as server:
        for _ in range(30):
            assert server.get()[1].endswith(" True")
        for worker in server.workers():
            with contextlib.suppress(ProcessLookupError):  # just replaced
                os.kill(worker, signal.SIGTERM)
            server.wait(lambda pid=worker: is_gone(pid), what="worker is still there")
        server.wait_workers(2)
        assert {answer.rpartition(" ")[2] for answer in ask_many(server)} == {"True"}
        assert server.reload()["result"] == "succeeded"
        server.wait_workers(2)
        assert server.get()[1].endswith(" True")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert list(temporary.glob("tmp*")) == []


def test_a_handler_of_the_import_does_not_end_the_mold_before_its_workers(folder: Path):
    """`systemctl stop` and Ctrl-C signal every process of the server."""
    text = """
        import os, signal, sys, tempfile, time
        from answer import answer
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        FOLDER = tempfile.TemporaryDirectory()
        def app(environ, start_response):
            open("begun", "w").close()
            time.sleep(1)
            return answer(start_response, os.path.isdir(FOLDER.name))
    """
    with serve(folder, text, "-w", "1", process_group=0) as server:
        assert imports(server) == 1
        answers: list[str] = []
        request = threading.Thread(target=lambda: answers.append(server.get()[1]))
        request.start()
        wait_until((folder / "begun").exists, what="the request has begun")
        os.killpg(server.process.pid, signal.SIGTERM)
        request.join()
        assert server.wait_exit() == 0
        assert answers == ["True"]


def test_a_signal_to_a_worker_that_imports_is_followed_when_it_has_booted(folder: Path):
    text = """
        import os, time
        open(f"importing-{os.getpid()}", "w").close()
        time.sleep(1)
        from answer import answer
        def app(e, s): return answer(s, os.getpid())
    """
    with serve(folder, text, "-w", "1", "--preload=never", wait=False) as server:
        wait_until(lambda: list(folder.glob("importing-*")), what="a worker imports")
        first = int(next(folder.glob("importing-*")).name.partition("-")[2])
        os.kill(first, signal.SIGTERM)
        wait_until(lambda: is_gone(first), what="the worker has ended")
        server.wait_serving()
        assert server.get()[1] != str(first)


def test_an_exit_function_that_hangs_in_c_code_does_not_keep_an_old_mold(folder: Path):
    # Where no handler of a signal runs, for minutes.
    text = """
        import atexit
        atexit.register(sum, range(10**12))
        from answer import answer
        def app(e, s): return answer(s, 1)
    """
    with serve(folder, text, "-w", "1", "--preload") as server:
        old = set(children_of(server.process.pid))
        assert server.reload()["result"] == "succeeded"
        wait_until(lambda: all(map(is_gone, old)), what="the old mold has ended")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


def test_a_thread_of_the_import_delays_no_start(folder: Path):
    text = """
        import threading, time
        threading.Thread(target=time.sleep, args=(60,)).start()  # not a daemon
        from answer import answer
        def app(e, s): return answer(s, 1)
    """

    def start_s(app: str) -> float:
        began = time.monotonic()
        with serve(folder, app, "-w", "1", "--graceful-timeout", "1") as server:
            passed = time.monotonic() - began
            assert server.get() == (200, "1")
            return passed

    usual_s = start_s("from answer import answer\ndef app(e, s): return answer(s, 1)\n")
    # The thread would delay each start; a busy machine, some.
    assert any(start_s(text) < usual_s + END_S for _ in range(4))


def test_what_the_import_prints_appears_once(folder: Path):
    text = """
        import io, sys
        print("from the import")
        sys.stdout = io.StringIO()  # the old one has it in its buffer
        from answer import answer
        def app(e, s): return answer(s, 1)
    """
    with serve(folder, text, "-w", "2") as server:
        assert imports(server) == 1
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert server.out_path.read_text() == "from the import\n"


def test_what_a_worker_registers_itself_runs_at_its_exit(folder: Path):
    text = """
        import atexit, os
        from answer import answer
        def app(environ, start_response):
            atexit.register(lambda: open(f"request-{os.getpid()}", "w").close())
            return answer(start_response, os.getpid())
    """
    (folder / "gunicorn.conf.py").write_text(
        "import atexit, os\n"
        "def post_fork(server, worker):\n"
        "    atexit.register(lambda: open(f'start-{os.getpid()}', 'w').close())\n"
    )
    with serve(folder, text, "-w", "1") as server:
        assert imports(server) == 1
        worker = server.get()[1]
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    assert {p.name for p in folder.glob("*-*") if p.name.partition("-")[0] in ("request", "start")} == {
        f"request-{worker}", f"start-{worker}",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("options", "imports_in_mold"),
    [((), True), (("--preload=never",), False), (("-k", "gevent"), True)],
    ids=["shared", "own", "gevent"],
)
def test_what_is_registered_at_the_start_of_python_runs_at_the_end_of_each_process(
    folder: Path, options: tuple[str, ...], imports_in_mold: bool
):
    """As opentelemetry-instrument, ddtrace-run, newrelic-admin and coverage do it: each process has its own telemetry to send."""
    (folder / "sitecustomize.py").write_text(
        "import atexit, os\n"
        "def leave():\n"
        "    with open(f'left-{os.getpid()}', 'a') as file:\n"
        "        file.write('once ')\n"
        "atexit.register(leave)\n"
    )
    (folder / "gunicorn.conf.py").write_text(
        "import atexit, os\natexit.register(lambda: open(f'config-{os.getpid()}', 'w').close())\n"
    )
    text = "import logging\nfrom answer import answer\ndef app(e, s): return answer(s, 1)\n"
    environment = {"PYTHONPATH": str(folder)}
    with serve(folder, text, "-w", "2", *options, environment=environment) as server:
        arbiter, first, old_mold = server.process.pid, set(server.workers()), server.mold()
        assert server.reload()["result"] == "succeeded"
        server.wait_workers(2)
        workers = first | set(server.workers())
        molds = {old_mold, server.mold()} if imports_in_mold else set()
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    left = {p.name: p.read_text() for p in folder.glob("left-*")}
    assert left == {f"left-{pid}": "once " for pid in {arbiter, *workers, *molds}}
    assert [p.name for p in folder.glob("config-*")] == [f"config-{arbiter}"]


@pytest.mark.parametrize("preload", ["auto", "never"])
def test_hooks_of_a_fork_run_in_no_process_but_those_that_stay(folder: Path, preload: str):
    """Tracers and clients start their threads anew in them: in a process that forks at once, locks would stay held."""
    (folder / "sitecustomize.py").write_text(
        "import os\n"
        "def note():\n"
        "    with open('forked', 'a') as file:\n"
        "        file.write(f'{os.getpid()} ')\n"
        "os.register_at_fork(after_in_child=note)\n"
    )
    text = "from answer import answer\ndef app(e, s): return answer(s, 1)\n"
    environment = {"PYTHONPATH": str(folder)}
    with serve(folder, text, "-w", "3", f"--preload={preload}", environment=environment) as server:
        workers, mold = server.wait_workers(3), server.mold()
        forked = (folder / "forked").read_text().split()
    assert sorted(map(int, forked)) == sorted([mold, *workers])


def test_a_tracer_that_hangs_in_forks_of_forks_is_named_with_the_remedy(folder: Path):
    """ddtrace-run imports it in a sitecustomize."""
    write_app(folder, "def app(e, s): pass")
    assert "ddtrace" not in run_prefork("--check-config", "app:app", cwd=folder).stderr
    (folder / "sitecustomize.py").write_text("import ddtrace\n")
    (folder / "ddtrace.py").touch()
    environment = {"PYTHONPATH": str(folder)}
    done = run_prefork("--check-config", "app:app", cwd=folder, environment=environment)
    assert "begin the app's module with `import ddtrace.auto`" in done.stderr


def test_an_object_that_only_an_exit_function_refers_to_is_destroyed_by_no_worker(folder: Path):
    text = """
        import atexit, os, tempfile
        from answer import answer
        made = tempfile.TemporaryDirectory()
        NAME = made.name
        atexit.register(print, made)
        atexit.register(made.cleanup)
        del made
        def app(environ, start_response):
            return answer(start_response, os.path.exists(NAME))
    """
    with serve(folder, text, "-w", "2", "--preload=always", "--max-requests", "5") as server:
        assert set(ask_many(server)) == {"True"}


@pytest.mark.parametrize(
    "draw",
    [
        "import random\nR = random.Random(3)\ndraw = R.random",
        "import random\nrandom.seed(3)\ndraw = random.random",
        "import numpy\ndraw = numpy.random.random",
        "import numpy\ndraw = numpy.random.default_rng().random",
    ],
    ids=["random.Random", "random", "numpy.random", "numpy generator"],
)
def test_no_two_workers_and_no_replacement_draw_the_same_numbers(folder: Path, draw: str):
    draw = draw.replace("Random(3)", "Random()")
    text = f"{draw}\nfrom answer import answer\ndef app(e, s): return answer(s, draw())\n"
    with serve(
        folder, text, "-w", "3", "--max-requests", "4", environment=ONE_BLAS_THREAD
    ) as server:
        drawn = ask_many(server)
        kill_a_worker(server)
        server.wait_workers(3)
        drawn += ask_many(server)
        assert len(set(drawn)) == len(drawn)


def test_an_app_that_cannot_be_shared_is_imported_once_per_worker_after_a_reload(folder: Path):
    text = """
        import os
        with open("imports", "a") as f:
            f.write("x")
        OUT = open("out.txt", "a")
        from answer import answer
        def app(e, s): return answer(s, 1)
    """
    with serve(folder, text, "-w", "2") as server:
        assert (folder / "imports").read_text() == "xxx"  # once to find out
        assert server.reload()["result"] == "succeeded"
        server.wait_workers(2)
        assert (folder / "imports").read_text() == "xxxxx"


def test_an_app_that_can_be_shared_again_is_shared_from_the_reload_after_that(folder: Path):
    safe = "from answer import answer\ndef app(e, s): return answer(s, 1)\n"
    with serve(folder, "OUT = open('out.txt', 'a')\n" + safe, "-w", "2") as server:
        write_app(folder, safe)
        assert server.reload("one")["result"] == "succeeded"
        assert imports(server) == 0
        assert server.reload("two")["result"] == "succeeded"
        assert imports(server) == 1


DJANGO = """
import django
from django.conf import settings
settings.configure(ROOT_URLCONF="urls", SECRET_KEY="x" * 50, ALLOWED_HOSTS=["*"])
from django.core.wsgi import get_wsgi_application
app = get_wsgi_application()
"""
VIEWS = """
import os
from django.http import HttpResponse
from django.urls import path
IMPORTED_BY = os.getpid()
urlpatterns = [path("", lambda request: HttpResponse(str(IMPORTED_BY)))]
"""


def test_django_views_are_imported_once_although_django_imports_them_late(folder: Path):
    (folder / "urls.py").write_text(VIEWS)
    with serve(folder, DJANGO, "-w", "2") as server:
        assert imports(server) == 1
        assert set(ask_many(server)) == {str(server.mold())}


def test_what_django_views_hold_is_found(folder: Path):
    (folder / "urls.py").write_text("import os\nENDS = os.pipe()\n" + VIEWS)
    with serve(folder, DJANGO, "-w", "2") as server:
        assert re.search(r"each worker imports for itself .*found=.*open pipe", server.log())
        assert {int(answer) for answer in ask_many(server)} <= set(server.workers())


def test_django_urls_that_do_not_import_fail_where_they_are_needed(folder: Path):
    (folder / "urls.py").write_text("raise SystemExit(3)\n" + VIEWS)
    with serve(folder, DJANGO, "-w", "1") as server:
        assert imports(server) == 1


def test_preload_insists_and_says_what_is_shared(folder: Path):
    text = "OUT = open('out.txt', 'a')\nfrom answer import answer\ndef app(e, s): return answer(s, 1)\n"
    with serve(folder, text, "-w", "2", "--preload") as server:
        assert "workers share it all the same (--preload)" in server.log()
        assert imports(server) == 1


def test_check_config_tells_whether_the_import_can_be_shared(folder: Path):
    write_app(folder, "OUT = open('out.txt', 'a')\ndef app(e, s): pass\n")
    done = run_prefork("--check-config", "app:app", cwd=folder)
    assert done.returncode == 0
    assert re.search(r"each worker imports for itself .*out.txt, held by app.OUT", done.stderr)
    write_app(folder, "def app(e, s): pass\n")
    done = run_prefork("--check-config", "app:app", cwd=folder)
    assert "the import can be shared by all workers" in done.stderr


def test_live_gauges_of_prometheus_client_count_workers_only(folder: Path):
    """As prometheus_client's documentation sets it up, after three reloads."""
    values = folder / "prom"
    values.mkdir()
    (folder / "gunicorn.conf.py").write_text(
        "def child_exit(server, worker):\n"
        "    from prometheus_client import multiprocess\n"
        "    multiprocess.mark_process_dead(worker.pid)\n"
    )
    text = """
        from prometheus_client import CollectorRegistry, Gauge, generate_latest, multiprocess
        from answer import answer
        LIVE = Gauge("app_live", "1 in every live worker", multiprocess_mode="livemin")
        def app(environ, start_response):
            LIVE.set(1)
            registry = CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)
            return answer(start_response, generate_latest(registry).decode())
    """
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(values)}
    with serve(folder, text, "-w", "1", environment=environment) as server:
        for number in range(3):
            assert server.reload(f"r{number}")["result"] == "succeeded"
            server.wait_workers(1)
        server.get()
        # The hook runs a moment after a worker's end, and removes what that worker counted.
        wait_until(lambda: "\napp_live 1.0" in "\n" + server.get()[1], what="the live gauge")
        wait_until(lambda: len(list(values.glob("*live*"))) == 1, what="one live file")


@pytest.mark.parametrize("preload", ["auto", "never"])
def test_signals_that_the_server_does_not_need_are_the_app_s(folder: Path, preload: str):
    """USR1 and USR2 often dump stacks or switch a log level; gunicorn leaves the app's handlers alone."""
    text = """
        import faulthandler, os, signal, subprocess, threading, time
        from answer import answer
        GOT = []
        MINE = [signal.SIGHUP, signal.SIGUSR2, signal.SIGTTIN]
        for number in MINE:
            signal.signal(number, lambda number, _: GOT.append(number))
        # Of its own thread: the stack of one that runs meanwhile may be read half changed, and crash.
        faulthandler.register(signal.SIGUSR1, all_threads=False)
        def app(environ, start_response):
            GOT.clear()
            for number in MINE:
                os.kill(os.getpid(), number)
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
            until = time.monotonic() + 20
            while len(GOT) < len(MINE) and time.monotonic() < until:
                time.sleep(0.01)
            child = os.fork()
            if not child:
                os._exit(signal.getsignal(signal.SIGUSR2) is not signal.SIG_DFL)
            _, status = os.waitpid(child, 0)
            return answer(start_response, f"{sorted(GOT) == sorted(MINE)} {os.waitstatus_to_exitcode(status)}")
    """
    with serve(folder, text, "-w", "1", f"--preload={preload}") as server:
        assert server.get() == (200, "True 1")
        server.wait_log("most recent call first")
        mold = server.mold()
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN):
            os.kill(mold, number)
        os.kill(server.workers()[0], signal.SIGKILL)
        server.wait(lambda: server.log().count("worker ready") == 2)
        assert server.mold() == mold
        assert server.get() == (200, "True 1")


def test_handler_of_the_app_that_is_never_called_is_named(folder: Path):
    text = """
        import signal, sys
        from answer import answer
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        def app(environ, start_response): return answer(start_response, 1)
    """
    with serve(folder, text, "-w", "2") as server:
        server.wait_log(r"signal handler of the app is not called.*signals=SIGTERM")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


def test_what_a_destructor_writes_at_the_end_is_written_by_each_worker(folder: Path):
    """A buffer that is written when it is destroyed: with a shared import it was lost at each exit of a worker."""
    text = """
        import os
        from answer import answer
        class Buffer:
            def __init__(self):
                self.lines = []
            def __del__(self, write=os.write, opened=os.open, flags=os.O_CREAT | os.O_APPEND | os.O_WRONLY):
                write(opened("written", flags), b"".join(self.lines))
        BUFFER = Buffer()
        def app(environ, start_response):
            BUFFER.lines.append(b"line\\n")
            return answer(start_response, "ok")
    """
    with serve(folder, text, "-w", "2") as server:
        assert Counter(ask_many(server)) == {"ok": 40}
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    assert (folder / "written").read_text() == 40 * "line\n"


def test_what_an_import_shared_all_the_same_destroys_is_destroyed_by_no_worker(folder: Path):
    """Also an object that no weak reference can point to: it is not known by one, but the mold's all the same."""
    text = """
        import os
        from answer import answer
        class Lock:
            __slots__ = ("name",)
            def __init__(self, name):
                self.name = name
                open(name, "w").close()
            def __del__(self, append=os.open, write=os.write, getpid=os.getpid, flags=os.O_CREAT | os.O_APPEND | os.O_WRONLY):
                write(append("destroyed", flags), b"%s %d\\n" % (self.name.encode(), getpid()))
        LOCK, OWN = Lock("import"), []
        def app(environ, start_response):
            OWN[:] = [Lock("request")]
            return answer(start_response, os.getpid())
    """
    with serve(folder, text, "-w", "1", "--preload=always") as server:
        worker, mold = server.get()[1], server.mold()
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
    destroyed = (folder / "destroyed").read_text().splitlines()
    assert sorted(destroyed) == sorted([f"import {mold}", f"request {worker}"])


CONTEXT = """
    import contextvars, decimal, time
    from answer import answer
    decimal.getcontext().prec = 50
    VARIABLE = contextvars.ContextVar("variable", default="lost")
    VARIABLE.set("kept")
    def app(environ, start_response):
        if environ["PATH_INFO"] == "/change":
            decimal.getcontext().prec = 5
            VARIABLE.set("another request's")
            open("changed", "w").close()
            time.sleep(1)
        return answer(start_response, f"{decimal.getcontext().prec} {VARIABLE.get()}")
"""


@pytest.mark.parametrize(
    "options",
    [("--threads", "2"), ("--threads", "2", "--preload=never"), ("-k", "gevent")],
    ids=["shared", "own", "gevent"],
)
def test_what_the_import_sets_for_its_thread_holds_in_requests(
    folder: Path, options: tuple[str, ...]
):
    """As in gunicorn's sync worker, whose one thread imports and serves; and one request does not change it for another."""
    with serve(folder, CONTEXT, "-w", "1", *options) as server:
        assert server.get() == (200, "50 kept")
        changed: list[str] = []
        other = threading.Thread(target=lambda: changed.append(server.get("/change")[1]))
        other.start()
        server.wait((folder / "changed").exists)
        assert server.get() == (200, "50 kept")
        other.join()
        assert changed == ["5 another request's"]
