"""Reloads with `--health-path`: a generation that imports but does not work never serves a client."""

import signal
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.process.harness import Prefork, run_prefork, unhurried_plan, wait_loaded, write_app
from tests.support.background_load import BackgroundLoad
from tests.support.wait import UNHURRIED_S, wait_until

# What /healthz answers is in the file `health`, one line per answer; the last one stays.
APP = """
    import os, time

    VERSION = "{version}"
    FOLDER = os.path.dirname(os.path.abspath(__file__))

    def app(environ, start_response):
        status, body = "200 OK", b"hello"
        if environ["PATH_INFO"] == "/echo":
            body = environ["wsgi.input"].read()
        if environ["PATH_INFO"] == "/healthz":
            with open(os.path.join(FOLDER, "asked"), "a") as asked:
                print(VERSION, os.getpid(), environ["HTTP_HOST"], environ["QUERY_STRING"], file=asked)
            with open(os.path.join(FOLDER, "asked")) as asked:
                count = sum(line.startswith(VERSION + " ") for line in asked)
            with open(os.path.join(FOLDER, "health")) as file:
                answers = file.read().splitlines()
            answer = answers[min(count, len(answers)) - 1]
            if answer == "hang":
                time.sleep(600)
            if answer == "raise":
                raise RuntimeError("no database")
            status, _, text = answer.partition("|")
            body = text.encode()
        start_response(status, [("Content-Length", str(len(body))), ("X-App-Version", VERSION)])
        return [body]
"""


def write_health(folder: Path, *answers: str) -> None:
    (folder / "health").write_text("\n".join(answers) + "\n")


def asked(folder: Path) -> list[list[str]]:
    """Return version, pid, host and query of each health request so far."""
    path = folder / "asked"
    return [line.split(" ") for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def app(folder: Path) -> Path:
    write_app(folder, APP)
    write_health(folder, "200 OK|fine")
    return folder


@pytest.mark.parametrize("preload", ["always", "never"])
@pytest.mark.parametrize("status", ["200 OK", "204 No Content", "301 Moved", "399 Odd"])
def test_healthy_generation_is_asked_once_and_serves(app: Path, preload: str, status: str):
    write_health(app, f"{status}|")
    options = ("--health-path=/healthz?full=1", "--health-host=shop.example", "-w", "2")
    with Prefork(*options, f"--preload={preload}", cwd=app) as server:
        assert asked(app) == [], "nothing older serves: the first start is not gated"
        write_app(app, APP, version="2")
        assert server.reload()["result"] == "succeeded"
        assert server.version() == "2"
        ((version, pid, host, query),) = asked(app)
        assert (version, host, query) == ("2", "shop.example", "full=1")
        assert int(pid) in server.wait_workers(2)


@pytest.mark.parametrize("preload", ["always", "never"])
@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("503 Service Unavailable|no database\nat db:5432", "answered 503: no database at db:5432"),
        ("404 Not Found|", "answered 404"),
        ("400 Bad Request|" + "x" * 500, "answered 400: " + "x" * 200),
        ("raise", "answered 500"),
    ],
)
def test_unhealthy_generation_is_reported_and_never_answers_a_client(
    app: Path, preload: str, answer: str, message: str
):
    options = ("--health-path=/healthz", "-w", "2", f"--preload={preload}")
    with Prefork(*options, cwd=app) as server:
        before = server.wait_workers(2)
        with BackgroundLoad(unhurried_plan(server.url, 300)) as load:
            wait_loaded(load)
            write_app(app, APP, version="2")
            (app / "health").write_text(answer.replace("\n", " ") + "\n")
            reply = server.reload("bad")
            report = load.finish()
        assert reply["result"] == "failed"
        assert f"GET /healthz {message}" in reply["message"]
        assert reply["message"].startswith("the new generation is not healthy: ")
        assert reply["message"].endswith(" (3 attempts)")
        assert reply["message"] in server.log()
        assert reply["generation"] == 1
        assert report.is_clean, report.to_text()
        assert set(report.versions) == {"1"}
        assert server.wait_workers(2) == before
        assert [version for version, *_ in asked(app)] == ["2"] * 3
        write_health(app, "200 OK|")
        write_app(app, APP, version="3")
        assert server.reload("good")["result"] == "succeeded"
        assert server.version() == "3"


def test_app_that_is_healthy_after_a_moment_passes(app: Path):
    with Prefork("--health-path=/healthz", cwd=app) as server:
        write_health(app, "503 Wait|warming up", "503 Wait|warming up", "200 OK|")
        write_app(app, APP, version="2")
        assert server.reload()["result"] == "succeeded"
        assert server.log().count("new generation is not healthy yet") == 2
        assert server.version() == "2"


def test_hanging_answer_is_given_up_and_another_worker_asked(app: Path):
    options = ("--health-path=/healthz", "-w", "2", "--boot-timeout=5")
    with Prefork(*options, cwd=app) as server:
        write_health(app, "hang", "200 OK|")
        write_app(app, APP, version="2")
        assert server.reload("one")["result"] == "succeeded"
        assert "GET /healthz was not answered within 5 s" in server.log()
        (_, first, *_), (_, second, *_) = asked(app)
        assert first != second
        write_health(app, "hang")
        write_app(app, APP, version="3")
        reply = server.reload("all")
        assert reply["result"] == "failed"
        assert "GET /healthz was not answered within 5 s (3 attempts)" in reply["message"]
        assert server.version() == "2"


def test_app_that_holds_the_interpreter_is_given_up_too(app: Path):
    """Its worker cannot even report that the answer is late."""
    with Prefork("--health-path=/healthz", "--boot-timeout=4", cwd=app) as server:
        held = APP.replace("time.sleep(600)", "import ctypes; ctypes.PyDLL(None).sleep(600)")
        write_health(app, "hang")
        write_app(app, held, version="2")
        reply = server.reload()
        assert reply["result"] == "failed"
        assert "was not answered within 4 s" in reply["message"]
        assert server.version() == "1"
        server.wait_workers(1)


def test_worker_that_dies_of_the_question_fails_the_reload(app: Path):
    with Prefork("--health-path=/healthz", cwd=app) as server:
        write_health(app, "hang")
        write_app(app, APP.replace("time.sleep(600)", "os._exit(7)"), version="2")
        reply = server.reload()
        assert reply["result"] == "failed"
        assert "a worker ended" in reply["message"]
        assert server.version() == "1"


def test_health_requests_are_no_traffic(app: Path):
    """Neither the access log nor the counters know them; and max_requests does not count them."""
    options = ("--health-path=/healthz", "--access-logfile=-", "--max-requests=1")
    with Prefork(*options, cwd=app) as server:
        write_health(app, "503 No|", "200 OK|")
        write_app(app, APP, version="2")
        assert server.reload()["result"] == "succeeded"
        assert len(asked(app)) == 2
        (worker,) = server.wait_workers(1)
        assert server.get()[0] == 200
        wait_until(lambda: worker not in server.workers(), what="max_requests did not hold")
        assert "healthz" not in server.out_path.read_text()
        assert server.out_path.read_text().count("\n") == 1


def test_kept_connections_survive_a_reload_that_is_not_healthy(app: Path):
    with Prefork("--health-path=/healthz", cwd=app) as server:
        connection = HTTPConnection("127.0.0.1", server.port, timeout=UNHURRIED_S)
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"hello"
        write_health(app, "500 No|")
        write_app(app, APP, version="2")
        assert server.reload()["result"] == "failed"
        sock = connection.sock
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"hello"
        assert connection.sock is sock
        connection.close()


def test_stop_in_the_middle_of_the_question_ends_the_server(app: Path):
    with Prefork("--health-path=/healthz", cwd=app) as server:
        write_health(app, "hang")
        write_app(app, APP, version="2")
        server.signal(signal.SIGHUP)
        server.wait(lambda: asked(app), what="not asked")
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert "reload failed" in server.log()


def test_health_path_set_by_a_reload_gates_that_reload(app: Path):
    config = app / "gunicorn.conf.py"
    config.write_text("")
    with Prefork(cwd=app) as server:
        config.write_text("health_path = '/healthz'\n")
        write_health(app, "503 No|")
        assert server.reload("a")["result"] == "failed"
        config.write_text("")
        assert server.reload("b")["result"] == "succeeded"


@pytest.mark.parametrize(
    ("option", "allowed"),
    [
        ("--health-path=healthz", "use a path that begins with /"),
        ("--health-path=/a b", "use a path that begins with /"),
        ("--health-host=a b", "use a host name"),
    ],
)
def test_option_that_cannot_be_sent_is_refused(folder: Path, option: str, allowed: str):
    done = run_prefork("--check-config", option, "app:app", cwd=folder)
    assert done.returncode == 2
    assert allowed in done.stderr
