"""Starting: what is wrong is said in one line with a distinct exit code; habits of gunicorn's users work."""

import os
import shutil
import socket
import stat
import subprocess
import sys
from contextlib import ExitStack, suppress
from http.client import HTTPConnection
from pathlib import Path

import pytest
from prefork.errors import Exit

from tests.process.harness import PREFORK, Prefork, run_prefork, write_app
from tests.support.wait import UNHURRIED_S, wait_until

ROOT = Path(__file__).resolve().parents[2]
USAGE, APP, LISTEN, ENVIRONMENT = 2, 3, 4, 5


def test_gunicorn_command_line(folder: Path):
    arguments = (
        "-k", "gthread", "--threads", "2", "-t", "30", "--graceful-timeout", "10", "--keep-alive", "5",
        "--max-requests", "1000", "--max-requests-jitter", "100", "--access-logfile", "-", "--log-level", "info",
        "--forwarded-allow-ips", "*", "--preload", "-e", "COLOUR=green", "--worker-tmp-dir", "/dev/shm",
    )  # fmt: skip
    with Prefork("-w", "4", *arguments, cwd=folder) as server:
        assert len(server.workers()) == 4
        assert server.get("/variable?COLOUR") == (200, "green")
        assert "--worker-tmp-dir is not supported" in server.log()
        server.wait(lambda: '"target":"/variable?COLOUR"' in server.out_path.read_text())


def test_installed_command_is_the_module(folder: Path):
    command = (str(Path(sys.executable).with_name("prefork")),)
    with Prefork(cwd=folder, command=command) as server:
        assert server.get()[0] == 200


def test_plain_folder_serves_without_coming_between_the_app_and_its_modules(folder: Path):
    """As in the image: /prefork holds __main__.py and the package, the app's own modules win."""
    home = folder / "image"
    shutil.copytree(ROOT / "server/src/prefork", home / "prefork")
    shutil.copy(ROOT / "server/image/__main__.py", home)
    (home / "shadow.py").write_text("NAME = 'of the server'\n")
    (folder / "log.py").write_text("NAME = 'of the app'\n")
    write_app(
        folder,
        f"""
        import sys, log

        def app(environ, start_response):
            found = "shadow" in sys.modules or any(p.startswith({str(home)!r}) for p in sys.path)
            try:
                import shadow
                found = True
            except ModuleNotFoundError:
                pass
            start_response("200 OK", [])
            return [(log.NAME + (" and the server's folder" if found else "")).encode()]
        """,
    )
    command = (sys.executable, "-S", str(home))
    with Prefork("-w", "2", cwd=folder, command=command) as server:
        assert server.get() == (200, "of the app")


@pytest.mark.parametrize(
    ("app", "code", "message"),
    [
        ("nothing:app", APP, "ModuleNotFoundError: No module named 'nothing'"),
        ("app:nothing", APP, "module app has no 'nothing'; did you mean app:app?"),
        (
            "factory",
            APP,
            "module factory has no 'application'; did you mean factory:create_app()?",
        ),
        ("app:VERSION", APP, "VERSION is str, which cannot be called"),
        ("app.py", APP, "app.py is not a module name (leave .py out)"),
        ("app:app(1)", APP, "TypeError"),
        (
            "made:create",
            APP,
            "create takes (config), but a WSGI app is called with (environ, start_response); if it returns the app, write made:create()",
        ),
        ("made:create()", APP, "what create(…) returns takes (scope, receive, send)"),
        ("raises", APP, "RuntimeError: no database"),
        ("leaves", APP, "SystemExit: 5"),
        ("syntax", APP, "SyntaxError"),
    ],
)
@pytest.mark.parametrize("preload", ["auto", "never"])
def test_app_that_cannot_be_imported_ends_the_start(
    folder: Path, app: str, code: int, message: str, preload: str
):
    (folder / "raises.py").write_text("raise RuntimeError('no database')\n")
    (folder / "leaves.py").write_text("import sys\nsys.exit(5)\n")
    (folder / "made.py").write_text(
        "def create(config=None):\n    return asgi\nasync def asgi(scope, receive, send): pass\n"
    )
    (folder / "factory.py").write_text("def create_app(test_config=None): return print\n")
    (folder / "syntax.py").write_text("def :\n")
    ended = run_prefork("-b", "127.0.0.1:0", f"--preload={preload}", app, cwd=folder)
    assert ended.returncode == code, ended.stderr
    assert message in ended.stderr
    if preload == "auto":
        checked = run_prefork("--check-config", app, cwd=folder)
        assert checked.returncode == code, checked.stderr
        assert message in checked.stderr


def test_traceback_of_a_broken_app_shows_the_app_and_not_the_server(folder: Path):
    (folder / "raises.py").write_text(
        "def connect():\n    raise RuntimeError('no database')\nconnect()\n"
    )
    ended = run_prefork("-b", "127.0.0.1:0", "raises", cwd=folder)
    assert f'File "{folder}/raises.py", line 3, in <module>' in ended.stderr
    assert "importlib" not in ended.stderr
    assert "prefork/worker/app_import.py" not in ended.stderr


def test_check_config_of_a_good_app(folder: Path):
    ended = run_prefork("--check-config", "-w", "3", "app:app", cwd=folder)
    assert (ended.returncode, "configuration valid, app imports" in ended.stderr) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-w", "0", "app:app"], USAGE, "prefork: workers is 0; use 1 to 512, or auto"),
        (["--wokers", "2", "app:app"], USAGE, "prefork: unknown option --wokers; did you mean --workers?"),
        ([], USAGE, "prefork: no app is named; use prefork MODULE:CALLABLE"),
        (["-b", "1.2.3.4:99999", "app:app"], USAGE, "the port 99999 is not one of 0 to 65535"),
        (["-b", "192.0.2.1:8000", "app:app"], LISTEN, "no network interface has this address"),
        (["-b", "no.such.host.invalid:80", "app:app"], LISTEN, "is not an address of this machine"),
        (["-b", "unix:/nonexistent/s", "app:app"], LISTEN, "cannot listen on unix:/nonexistent/s: No such file"),
        (["-b", "fd://77", "app:app"], LISTEN, "cannot listen on fd://77: Bad file descriptor"),
        (["--run-dir", "/proc/x", "app:app"], ENVIRONMENT, "run_dir is /proc/x; "),
        (["--log-file", "/nonexistent/log", "app:app"], ENVIRONMENT, "errorlog is /nonexistent/log; it cannot be written"),
        (["--chdir", "/nonexistent", "app:app"], USAGE, "chdir is /nonexistent; No such file"),
        (["-c", "none.py", "app:app"], USAGE, "config is none.py; there is no such file"),
        (["agent", "--run-dir", "/tmp", "--lisen", "x"], USAGE, "unknown option --lisen; did you mean --listen?"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_an_exit_code(
    folder: Path, arguments: list[str], code: int, message: str
):
    environment = {"PREFORK_BIND": "127.0.0.1:0"}
    ended = run_prefork(*arguments, cwd=folder, environment=environment)
    assert ended.returncode == code, ended.stderr
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_port_in_use_is_one_line_and_harms_the_other_server_in_no_way(folder: Path):
    with Prefork(cwd=folder) as server:
        ended = run_prefork("-b", f"127.0.0.1:{server.port}", "app:app", cwd=folder)
        assert ended.returncode == LISTEN
        assert ended.stderr.strip() == (
            f"prefork: cannot listen on 127.0.0.1:{server.port}: another process listens there; "
            "stop it or choose another --bind"
        )
        assert server.get()[0] == 200


def test_run_directory_in_use_is_refused_and_left_alone(folder: Path):
    with Prefork(cwd=folder) as server:
        ended = run_prefork(
            "-b", "127.0.0.1:0", "--run-dir", str(server.run_dir), "app:app", cwd=folder
        )
        assert ended.returncode == ENVIRONMENT
        assert "another prefork uses it" in ended.stderr
        assert server.ask({"op": "status"})["state"] == "serving"


def test_unix_socket_is_replaced_when_stale_and_refused_when_alive(folder: Path):
    path = folder / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with Prefork(bind=f"unix:{path}", cwd=folder) as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert client.recv(4096).startswith(b"HTTP/1.1 200")
        ended = run_prefork("-b", f"unix:{path}", "app:app", cwd=folder)
        assert ended.returncode == LISTEN
        assert "another process listens there" in ended.stderr
        assert server.process.poll() is None


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("app.py/socket", "Not a directory"),
        ("loop", "Too many levels of symbolic links"),
        ("app.py", "the path exists and is not a socket"),
    ],
)
def test_unix_socket_that_cannot_be_is_one_line(folder: Path, path: str, why: str):
    (folder / "loop").symlink_to("loop")
    ended = run_prefork("-b", f"unix:{path}", "app:app", cwd=folder)
    assert ended.returncode == LISTEN
    assert ended.stderr == f"prefork: cannot listen on unix:{path}: {why}\n"


def test_unix_socket_whose_server_has_a_full_queue_is_taken(folder: Path):
    """A connect would block there, and with it the start."""
    path = str(folder / "s")
    with socket.socket(socket.AF_UNIX) as busy, ExitStack() as clients:
        busy.bind(path)
        busy.listen(0)
        for _ in range(3):
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect(path)
        ended = run_prefork("-b", f"unix:{path}", "app:app", cwd=folder)
        assert ended.returncode == LISTEN
        assert "another process listens there" in ended.stderr


def test_all_addresses_of_ipv6_are_those_of_ipv4_too(folder: Path):
    """In a cluster whose pods have IPv6 addresses; the agent asks the app at 127.0.0.1."""
    with Prefork("-b", "[::]:0", cwd=folder) as server:
        port = int(server.wait_log(r"\[::\]:(\d+)")[1])
        for host in ("127.0.0.1", "::1"):
            connection = HTTPConnection(host, port, timeout=UNHURRIED_S)
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
            connection.close()


def test_several_addresses_ipv6_among_them(folder: Path):
    with Prefork("-b", f"unix:{folder}/s", "-b", "[::1]:0", cwd=folder) as server:
        port = int(server.wait_log(r"\[::1\]:(\d+)")[1])
        connection = HTTPConnection("::1", port, timeout=UNHURRIED_S)
        connection.request("GET", "/")
        assert connection.getresponse().status == 200
        connection.close()
        assert server.get()[0] == 200


def test_descriptor_as_address(folder: Path):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port, fd = sock.getsockname()[1], sock.fileno()
        with Prefork(bind=f"fd://{fd}", pass_fds=(fd,), cwd=folder):
            connection = HTTPConnection("127.0.0.1", port, timeout=UNHURRIED_S)
            connection.request("GET", "/")
            assert connection.getresponse().status == 200
            connection.close()


def test_systemd_sockets_and_readiness(folder: Path):
    """As systemd does it: descriptor 3, LISTEN_PID of the process itself, a notify socket."""
    start = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.environ['LISTEN_PID'] = str(os.getpid()); os.execv(sys.executable, [sys.executable, '-m', 'prefork', *sys.argv[2:]])"
    with (
        socket.create_server(("127.0.0.1", 0)) as sock,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify,
    ):
        notify.bind(str(folder / "notify"))
        notify.settimeout(UNHURRIED_S)
        fd, port = sock.fileno(), sock.getsockname()[1]
        environment = {
            "LISTEN_FDS": "1",
            "NOTIFY_SOCKET": str(folder / "notify"),
            "WATCHDOG_USEC": "1000000",
        }
        with Prefork(
            bind="", pass_fds=(fd, 3), cwd=folder, environment=environment,
            command=(sys.executable, "-c", start, str(fd)), wait=False,
        ) as server:  # fmt: skip
            seen = []
            while not seen or "READY=1" not in seen[-1]:
                seen.append(notify.recv(4096).decode())
            assert f"MAINPID={server.process.pid}" in seen[-1]
            connection = HTTPConnection("127.0.0.1", port, timeout=UNHURRIED_S)
            connection.request("GET", "/environ?LISTEN_FDS")
            assert connection.getresponse().read() == b"-"
            connection.close()
            server.process.terminate()
            while "STOPPING=1" not in seen[-1]:
                seen.append(notify.recv(4096).decode())
            assert "WATCHDOG=1" in seen
            assert server.wait_exit() == 0


def test_hooks_of_a_gunicorn_config_file_are_called_in_their_places(folder: Path):
    (folder / "gunicorn.conf.py").write_text(
        "import os\n"
        "workers = 2\n"
        "def note(name, pid=None):\n"
        "    with open('hooks', 'a') as file:\n"
        "        file.write(f'{name} {pid or os.getpid()}\\n')\n"
        "def on_starting(server): note('on_starting')\n"
        "def when_ready(server): note('when_ready'); server.log.info('ready with %d', server.cfg.workers)\n"
        "def pre_fork(server, worker): note('pre_fork')\n"
        "def post_fork(server, worker): note('post_fork', worker.pid)\n"
        "def post_worker_init(worker): note('post_worker_init')\n"
        "def worker_exit(server, worker): note('worker_exit')\n"
        "def child_exit(server, worker): note('child_exit', worker.pid)\n"
        "def on_exit(server): note('on_exit')\n"
        "def on_reload(server): note('on_reload')\n"
        "def nworkers_changed(server, new, old): note(f'nworkers_changed-{new}-{old}')\n"
    )
    with Prefork(cwd=folder) as server:
        workers = {str(pid) for pid in server.workers()}
        server.reload()
        server.process.terminate()
        assert server.wait_exit() == 0
        arbiter = str(server.process.pid)
    lines = [line.split() for line in (folder / "hooks").read_text().splitlines()]
    by_name: dict[str, list[str]] = {}
    for name, pid in lines:
        by_name.setdefault(name, []).append(pid)
    assert by_name["on_starting"] == by_name["when_ready"] == by_name["on_exit"] == [arbiter]
    assert by_name["on_reload"] == [arbiter]
    assert workers <= set(by_name["post_fork"])
    for name in ("pre_fork", "post_fork", "post_worker_init", "worker_exit", "child_exit"):
        assert len(by_name[name]) == 4, name
    assert set(by_name["post_fork"]) == set(by_name["worker_exit"]) == set(by_name["child_exit"])
    assert "ready with 2" in server.log()


def test_failing_hook_is_reported_and_the_server_goes_on(folder: Path):
    (folder / "conf.py").write_text("def when_ready(server):\n    1 / 0\n")
    with Prefork("-c", "conf.py", cwd=folder) as server:
        server.wait_log("hook failed hook=when_ready")
        server.wait_log("ZeroDivisionError")
        assert server.get()[0] == 200


def test_app_is_never_imported_by_the_arbiter(folder: Path):
    (folder / "marker.py").write_text(
        "import os\nopen('importers', 'a').write(f'{os.getpid()}\\n')\n"
    )
    app = (folder / "app.py").read_text()
    (folder / "app.py").write_text("import marker\n" + app)
    with Prefork("-w", "3", cwd=folder) as server:
        server.reload()
        importers = (folder / "importers").read_text().split()
        assert len(importers) == 2
        assert str(server.process.pid) not in importers


def test_exit_functions_of_the_app_run_in_each_worker(folder: Path):
    app = (folder / "app.py").read_text()
    (folder / "app.py").write_text(
        "import atexit, os\natexit.register(lambda: open(f'left-{os.getpid()}', 'w').close())\n"
        + app
    )
    with Prefork("-w", "2", cwd=folder) as server:
        workers = server.workers()
        server.process.terminate()
        assert server.wait_exit() == 0
    left = {path.name for path in folder.glob("left-*")}
    # And in the process that imported the app to see whether the import can be shared.
    assert left >= {f"left-{pid}" for pid in workers}
    assert len(left) == 3


def test_garbage_collection_in_a_worker_takes_nothing_it_serves_with(folder: Path):
    """Collecting whatever is left of the arbiter in a forked process must not close its sockets."""
    app = (folder / "app.py").read_text()
    (folder / "app.py").write_text("import gc\ngc.unfreeze()\ngc.collect()\n" + app)
    for preload in ("never", "always"):
        with Prefork("-w", "2", f"--preload={preload}", cwd=folder) as server:
            assert {server.get()[0] for _ in range(10)} == {200}
            assert server.reload()["result"] == "succeeded"
            assert {server.get()[0] for _ in range(10)} == {200}


def test_workers_auto_serves(folder: Path):
    with Prefork("-w", "auto", cwd=folder) as server:
        assert len(server.workers()) >= 1
        assert server.get()[0] == 200


def test_help_and_version(folder: Path):
    shown = run_prefork("--help", cwd=folder)
    assert shown.returncode == 0
    for text in ("--max-requests", "--graceful-timeout", "prefork agent", "TTIN"):
        assert text in shown.stdout
    assert run_prefork("--version", cwd=folder).stdout.startswith("prefork ")


def test_script_name_and_environment_settings(folder: Path):
    with Prefork(
        cwd=folder, environment={"PREFORK_SCRIPT_NAME": "/shop/", "PREFORK_WORKERS": "2"}
    ) as server:
        assert server.get("/shop/environ?SCRIPT_NAME") == (200, "/shop")
        assert len(server.workers()) == 2


def test_ctrl_c_in_a_terminal_ends_everything(folder: Path):
    """The terminal sends INT to the whole process group."""
    process = subprocess.Popen(
        [*PREFORK, "-w", "2", "-b", "127.0.0.1:0", "app:app"],
        cwd=folder, stderr=subprocess.PIPE, text=True, process_group=0,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "generation active" in line:
            break
    os.killpg(process.pid, 2)
    rest = process.stderr.read()
    process.stderr.close()
    assert process.wait(UNHURRIED_S) == 0
    assert "Traceback" not in rest
    assert "crash" not in rest
    with pytest.raises(ProcessLookupError):
        wait_until(lambda: os.killpg(process.pid, 0))


def test_python_without_an_engine_is_told(folder: Path):
    """A copy of the package without its compiled module."""
    shutil.copytree(
        ROOT / "server/src/prefork", folder / "site/prefork", ignore=shutil.ignore_patterns("*.so")
    )
    ended = run_prefork("app:app", cwd=folder, environment={"PYTHONPATH": str(folder / "site")})
    assert ended.returncode == ENVIRONMENT
    assert "prefork has no engine for cpython-3" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_what_settings_come_from_besides_the_command_line_is_logged_and_a_reload_logs_it_again(
    folder: Path,
):
    (folder / "gunicorn.conf.py").write_text("threads = 2\n")
    environment = {"GUNICORN_CMD_ARGS": "--workers 2"}
    with Prefork(cwd=folder, environment=environment) as server:
        server.wait_workers(2)
        for source in ("environment GUNICORN_CMD_ARGS", f"config file {folder}/gunicorn.conf.py"):
            assert f'settings read source="{source}"' in server.log()
        assert server.reload()["result"] == "succeeded"
        assert server.log().count("settings read") == 4


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        ("mkdir -p run/stats/x", "run_dir is "),
        ("mkdir -p run/control.sock/x", "run_dir is "),
        ("echo 1 > pid", "process 1 in it is alive"),
        ("mkdir pid", "pidfile is pid"),
    ],
)
def test_start_that_fails_leaves_nothing_behind(folder: Path, prepare: str, message: str):
    subprocess.run(["sh", "-c", prepare], cwd=folder, check=True)
    before = everything_in(folder)
    ended = run_prefork(
        "-b", "unix:s", "--run-dir", "run", "-p", "pid", "app:app", cwd=folder,
        environment={"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert (ended.returncode, message in ended.stderr) == (ENVIRONMENT, True), ended.stderr
    assert "Traceback" not in ended.stderr
    assert everything_in(folder) - before <= {"run"}


def test_address_that_cannot_be_bound_leaves_none_of_the_others_behind(folder: Path):
    with Prefork(cwd=folder) as server:
        taken = f"127.0.0.1:{server.port}"
        ended = run_prefork("-b", "unix:s", "-b", taken, "app:app", cwd=folder)
    assert ended.returncode == LISTEN
    assert not (folder / "s").exists()


def everything_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def test_stats_table_has_its_room_from_the_start(folder: Path):
    """A hole in it, on a disk that is full by the time it is touched, would kill the process that touches it."""
    with Prefork(cwd=folder) as server:
        table = (server.run_dir / "stats").stat()
        assert table.st_blocks * 512 >= table.st_size


def test_pid_file_for_which_there_is_no_room_is_not_left_behind(folder: Path):
    limited = ("/bin/sh", "-c", 'ulimit -f 0; exec "$0" "$@"', *PREFORK)
    done = subprocess.run(
        [*limited, "-b", "127.0.0.1:0", "-p", "pid", "--run-dir", "run", "app:app"], cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, not (folder / "pid").exists()) == (Exit.ENVIRONMENT, True), done.stderr
    assert "pidfile is pid; it cannot be written: File too large" in done.stderr


def test_working_directory_that_is_gone_is_said_in_a_sentence(folder: Path):
    gone = ("/bin/sh", "-c", 'mkdir gone; cd gone; rmdir ../gone; exec "$0" "$@"', *PREFORK)
    done = subprocess.run(
        [*gone, "app:app"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == Exit.ENVIRONMENT
    assert done.stderr.splitlines() == [
        "prefork: the working directory is not there any more, or cannot be seen: No such file or directory; "
        "start prefork in another one"
    ]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--error-logfile", "nowhere/log"), Exit.ENVIRONMENT),
        (("--error-logfile", "."), Exit.ENVIRONMENT),
        (("--access-logfile", "nowhere/log"), Exit.ENVIRONMENT),
        (("--access-logfile", "app.py/log"), Exit.ENVIRONMENT),
        (("--pid", "nowhere/pid"), Exit.ENVIRONMENT),
        (("--run-dir", "app.py"), Exit.ENVIRONMENT),
        (("--run-dir", "app.py/run"), Exit.ENVIRONMENT),
        (("-b", "unix:nowhere/socket"), Exit.LISTEN),
    ],
)
def test_check_config_refuses_files_as_the_start_does(
    folder: Path, arguments: tuple[str, ...], code: Exit
):
    checked = run_prefork("--check-config", *arguments, "app:app", cwd=folder)
    bound = () if "-b" in arguments else ("-b", "127.0.0.1:0")
    started = run_prefork(*bound, *arguments, "app:app", cwd=folder)
    assert (checked.returncode, started.returncode) == (code, code)
    assert checked.stderr.splitlines()[-1] == started.stderr.splitlines()[-1]


def test_check_config_makes_no_file_and_warns_of_a_spool_that_cannot_be(folder: Path):
    before = set(folder.iterdir())
    done = run_prefork(
        "--check-config", "--error-logfile", "log", "--access-logfile", "access", "--pid", "pid",
        "--run-dir", "a/run", "-b", "unix:socket", "--spool-dir", "nowhere", "app:app", cwd=folder,
        environment={"PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert set(folder.iterdir()) == before
    assert "set --spool-dir why=" in done.stderr
