"""What a config file may do: import, set things as text, name sockets; and what of it a reload takes anew."""

import os
import signal
import socket
from pathlib import Path

import pytest
from prefork.config.options import SETTINGS

from tests.process.harness import Prefork, run_prefork, write_app
from tests.support.wait import UNHURRIED_S

SHARED = 'VALUE = "{version}"\nSEEN = []\n'
APP = """
    import shared, sys

    def app(environ, start_response):
        body = f"{shared.VALUE} {shared.SEEN} {len(sys.path) - len(set(sys.path))}".encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
"""
CONF = """
import shared

def post_fork(server, worker):
    shared.SEEN.append("hook " + shared.VALUE)

def when_ready(server):
    import late
    server.log.info("when_ready sees %s %s", late.VALUE, shared.VALUE)

def on_reload(server):
    import late
    server.log.info("on_reload sees %s %s", late.VALUE, shared.VALUE)
"""


@pytest.mark.parametrize("preload", ["always", "never"])
def test_reload_takes_what_the_file_imported_anew_and_hooks_share_it_with_the_app(
    folder: Path, preload: str
):
    write_app(folder, APP)
    for name in ("shared", "late"):
        write_app(folder, SHARED, version="1", name=f"{name}.py")
    (folder / "prefork.conf.py").write_text(CONF)
    with Prefork(f"--preload={preload}", cwd=folder) as server:
        assert server.get()[1] == "1 ['hook 1'] 0"
        server.wait_log("when_ready sees 1 1")
        for name in ("shared", "late"):
            write_app(folder, SHARED, version="22", name=f"{name}.py")
        assert server.reload("a")["result"] == "succeeded"
        assert server.get()[1] == "22 ['hook 22'] 0"
        server.wait_log("on_reload sees 1 1")
        assert server.reload("b")["result"] == "succeeded"
        server.wait_log("on_reload sees 22 22")


def test_failed_reload_leaves_no_module_behind(folder: Path):
    write_app(folder, APP)
    write_app(folder, SHARED, version="1", name="shared.py")
    with Prefork(cwd=folder) as server:
        write_app(folder, SHARED, version="broken", name="shared.py")
        (folder / "prefork.conf.py").write_text("import shared\nraise RuntimeError\n")
        assert server.reload("a")["result"] == "failed"
        write_app(folder, SHARED, version="2", name="shared.py")
        (folder / "prefork.conf.py").write_text("")
        assert server.reload("b")["result"] == "succeeded"
        assert server.get()[1].startswith("2 ")


def test_module_named_as_config_is_read_anew(folder: Path):
    (folder / "settings.py").write_text("workers = 1\n")
    with Prefork("-c", "python:settings", cwd=folder) as server:
        (folder / "settings.py").write_text("workers =  2\n")
        assert server.reload()["result"] == "succeeded"
        server.wait_workers(2)


def test_package_with_an_extension_module_survives_reloads(folder: Path):
    """CPython loads such modules once per process."""
    pytest.importorskip("numpy")
    (folder / "prefork.conf.py").write_text("import numpy\nworkers = int(numpy.int64(1))\n")
    with Prefork(cwd=folder) as server:
        for id in ("a", "b"):
            assert server.reload(id)["result"] == "succeeded"


def test_search_path_that_the_file_extends_is_the_apps_and_not_the_next_generations(folder: Path):
    (folder / "lib").mkdir()
    write_app(folder / "lib", SHARED, name="shared.py")
    write_app(folder, APP)
    (folder / "prefork.conf.py").write_text("import sys\nsys.path.insert(0, 'lib')\n")
    with Prefork(cwd=folder) as server:
        assert server.get()[1] == "1 [] 0"
        assert server.reload("a")["result"] == "succeeded"
        assert server.get()[1] == "1 [] 0"
        (folder / "prefork.conf.py").write_text("")
        failed = server.reload("b")
        assert (failed["result"], failed["message"]) == (
            "failed",
            "ModuleNotFoundError: No module named 'shared'",
        )


def test_file_imports_its_project_from_the_working_directory(folder: Path):
    (folder / "project").mkdir()
    (folder / "project" / "settings.py").write_text("WORKERS = 2\nTIMEOUT = 5\n")
    (folder / "gunicorn.conf.py").write_text(
        "from project.settings import WORKERS, TIMEOUT\nworkers = WORKERS\npreload_app = 'true'\n"
    )
    result = run_prefork("--print-config", "app:app", cwd=folder)
    assert result.returncode == 0
    assert "workers = 2" in result.stdout
    assert "preload_app = 'always'" in result.stdout
    assert "did you mean" not in result.stderr
    with Prefork(cwd=folder) as server:
        server.wait_workers(2)


def test_name_that_is_nearly_a_setting_draws_a_warning(folder: Path):
    (folder / "gunicorn.conf.py").write_text("WORKERS = 2\nworkers = WORKERS\ntimeot = 5\n")
    result = run_prefork("--print-config", "app:app", cwd=folder)
    assert "timeot is not a setting; did you mean timeout?" in result.stderr
    assert "WORKERS is not" not in result.stderr


def test_no_config_file_by_name(folder: Path):
    (folder / "gunicorn.conf.py").write_text("raise RuntimeError\n")
    result = run_prefork("-c", "/dev/null", "--check-config", "app:app", cwd=folder)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("command", [("--check-config",), ()])
@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--forwarded-allow-ips=10.0.0.0/33", "forwarded_allow_ips is 10.0.0.0/33"),
        ("--forwarded-allow-ips=proxy", "forwarded_allow_ips is proxy"),
        ("--forwarded-allow-ips=fe80::1%eth0", "forwarded_allow_ips is fe80::1%eth0"),
        ("--bind=8017", "use 127.0.0.1:8017"),
        ("--bind=unix:" + "x" * 108, "107 at most"),
        ("--bind=127.0.0.1:0,127.0.0.1:0", "twice"),
        ("--bind=,", "bind is empty"),
    ],
)
def test_value_that_cannot_work_is_a_usage_error_and_named(
    folder: Path, command: tuple[str, ...], option: str, named: str
):
    result = run_prefork(*command, option, "app:app", cwd=folder)
    assert (result.returncode, named in result.stderr) == (2, True), result.stderr


def test_abstract_socket_has_no_file(folder: Path):
    name = f"@prefork-{os.getpid()}"
    with (
        Prefork(cwd=folder, bind=f"unix:{name}") as server,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client,
    ):
        client.settimeout(UNHURRIED_S)
        client.connect("\0" + name[1:])
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert client.recv(64).startswith(b"HTTP/1.1 200")
        assert not (folder / name).exists()
        taken = run_prefork("-b", f"unix:{name}", "app:app", cwd=folder)
        assert (taken.returncode, "another process listens there" in taken.stderr) == (4, True)
        assert server.process.poll() is None


CANDIDATES = (
    "0", "1", "-1", "0.1", "64", "511", "512", "4095", "4096", "65535", "65536", "65537", "86400", "1000000000", "1Gi",
    "1Ti", "", "/", "/a/", "a/b", "*", "::1", "127.0.0.1", "0.0.0.0/0", "127.0.0.0/08", "::/0", "::ffff:1.2.3.4/128",
    "01.2.3.4", "1.2.3", "1.2.3.4/", "1.2.3.4/+8", "1.2.3.4/33", "ü", "\udcff", "/\udcff", "true", "auto", "\t",
)  # fmt: skip


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_every_value_that_is_accepted_makes_an_engine(setting):
    from prefork.arbiter.check import check_engine
    from prefork.base.log import Log
    from prefork.config.options import Options

    for candidate in CANDIDATES:
        try:
            value = setting.read(candidate, "test")
        except ValueError:
            continue
        if value != "auto":  # is a number by then
            check_engine(lambda *_: [], Options(**{setting.name: value}), Log())


@pytest.mark.parametrize("name", ["prefork.conf.py", "gunicorn.conf.py"])
def test_no_file_that_lies_in_the_folder_is_read_where_none_is_named(folder: Path, name: str):
    (folder / name).write_text("raise RuntimeError\n")
    with Prefork("--config=none", cwd=folder) as server:
        assert server.reload()["result"] == "succeeded"
        assert "settings read" not in server.log()


WAYS_TO_BLOCK = {
    "sleep": "import time\ntime.sleep(3600)\n",
    "loop": "while True:\n    pass\n",
    "caught": "import time\nwhile True:\n    try:\n        time.sleep(3600)\n    except Exception:\n        pass\n",
    "lock": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()\n",
    "read": "import os\nos.read(os.pipe()[0], 1)\n",
}


@pytest.mark.parametrize("way", WAYS_TO_BLOCK)
def test_reload_whose_config_file_blocks_fails_after_a_limit_and_the_old_code_serves(
    folder: Path, way: str
):
    conf = folder / "prefork.conf.py"
    conf.write_text("workers = 1\n")
    with Prefork(cwd=folder) as server:
        conf.write_text(WAYS_TO_BLOCK[way])
        write_app(folder, version="2")
        reloaded = server.reload()
        assert (reloaded["result"], reloaded["generation"]) == ("failed", 1)
        assert (
            f"config file {conf}: it took longer than 10 s (at {conf}, line " in reloaded["message"]
        )
        assert server.version() == "1"
        conf.write_text("workers = 1\n")
        assert server.reload("again")["result"] == "succeeded"
        assert server.version() == "2"


def test_server_stops_at_once_while_the_config_file_of_a_reload_blocks(folder: Path):
    conf = folder / "prefork.conf.py"
    conf.write_text("workers = 1\n")
    with Prefork(cwd=folder) as server:
        begun = folder / "begun"
        conf.write_text(f"open({str(begun)!r}, 'w').close()\n{WAYS_TO_BLOCK['sleep']}")
        server.signal(signal.SIGHUP)
        server.wait(begun.exists, what="the file is not read")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert "the server is to stop" in server.log()
        assert "longer than 10 s" not in server.log()


def test_hook_that_blocks_the_arbiter_is_ended_and_the_server_goes_on(folder: Path):
    (folder / "prefork.conf.py").write_text(
        "import time\ndef child_exit(server, worker):\n    time.sleep(3600)\n"
    )
    with Prefork(cwd=folder) as server:
        (worker,) = server.wait_workers(1)
        os.kill(worker, signal.SIGKILL)
        server.wait_log(
            r"hook failed hook=child_exit\n(  .*\n)*.*TimeLimitError: it took longer than 10 s"
        )
        server.wait(lambda: server.workers() not in ([], [worker]), what="worker is not replaced")
        assert server.get()[0] == 200


def test_start_that_is_interrupted_says_so(folder: Path):
    begun = folder / "begun"
    (folder / "prefork.conf.py").write_text(
        f"import time\nopen({str(begun)!r}, 'w').close()\ntime.sleep(3600)\n"
    )
    with Prefork(cwd=folder, wait=False) as server:
        server.wait(begun.exists, what="the file is not read")
        server.signal(signal.SIGINT)
        assert server.wait_exit() == 130
        assert server.log() == "prefork: interrupted\n"


@pytest.mark.parametrize("value", ["5", "[]", "True"])
def test_hook_that_cannot_be_called_is_refused(folder: Path, value: str):
    (folder / "gunicorn.conf.py").write_text(f"on_starting = {value}\n")
    done = run_prefork("--check-config", "app:app", cwd=folder)
    assert done.returncode == 2
    assert f"on_starting is {value}; it is called: use a function (from " in done.stderr


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("missing.hooks.post_fork", "No module named 'missing'"),
        ("hooks.missing", "module 'hooks' has no attribute 'missing'"),
        ("post_fork", "Empty module name"),
    ],
)
def test_hook_by_name_that_is_not_there_is_refused(folder: Path, text: str, why: str):
    (folder / "hooks.py").write_text("")
    (folder / "gunicorn.conf.py").write_text(f"post_fork = {text!r}\n")
    done = run_prefork("--check-config", "app:app", cwd=folder)
    assert done.returncode == 2
    assert (
        f"post_fork is {text!r}: {why}; use a function, or its MODULE.NAME as text" in done.stderr
    )


def test_hook_by_name_is_called_and_read_anew_by_a_reload(folder: Path):
    hook = "def post_worker_init(worker):\n    worker.log.info('hook of version {version}')\n"
    (folder / "gunicorn.conf.py").write_text("post_worker_init = 'shop_hooks.post_worker_init'\n")
    write_app(folder, hook, version="1", name="shop_hooks.py")
    with Prefork(cwd=folder) as server:
        server.wait_log("hook of version 1")
        write_app(folder, hook, version="2", name="shop_hooks.py")
        assert server.reload()["result"] == "succeeded"
        server.wait_log("hook of version 2")


def test_hook_that_is_none_is_none(folder: Path):
    (folder / "gunicorn.conf.py").write_text("on_starting = None\n")
    assert run_prefork("--check-config", "app:app", cwd=folder).returncode == 0


def test_handlers_of_signals_that_a_reloaded_file_sets_keep_no_stop_from_the_server(folder: Path):
    (folder / "gunicorn.conf.py").write_text(
        "import signal\nfor number in (signal.SIGTERM, signal.SIGHUP): signal.signal(number, signal.SIG_IGN)\n"
    )
    with Prefork(cwd=folder) as server:
        assert server.reload()["result"] == "succeeded"
        server.signal(signal.SIGHUP)
        server.wait_log("generation active generation=3")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0


@pytest.mark.parametrize("closed", ["1", "2", "0, 1, 2"])
def test_config_file_that_closes_standard_descriptors_is_named_and_they_are_open_again(
    folder: Path, closed: str
):
    (folder / "gunicorn.conf.py").write_text(
        f"import os\nfor number in ({closed},): os.close(number)\n"
    )
    with Prefork(cwd=folder) as server:
        for number in closed.split(", "):
            server.wait_log(
                f"WARNING .*a config file closed descriptor {number}, which is open again"
            )
        assert server.get()[0] == 200
        assert server.reload("again")["result"] == "succeeded"
        assert server.log().count("generation active") == 2
        assert server.log().count("ready: the first generation serves requests") == 1


def test_config_file_that_closes_standard_error_and_fails_says_why(folder: Path):
    (folder / "gunicorn.conf.py").write_text("import os\nos.close(2)\nraise ValueError('seen')\n")
    done = run_prefork("app:app", cwd=folder)
    assert (done.returncode, "ValueError: seen" in done.stderr) == (2, True)


def test_config_file_that_cannot_be_read_is_named_with_the_reason(folder: Path):
    # Not even root can read what is no file's content: permissions do not bind root.
    (folder / "gunicorn.conf.py").symlink_to("/proc/self/mem")
    result = run_prefork("--check-config", "app:app", cwd=folder)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1), result.stderr
    assert f"config file {folder}/gunicorn.conf.py cannot be read: Input/output error" in (
        result.stderr
    )
