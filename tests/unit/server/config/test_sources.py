"""Command line, environment and config file become checked settings, or a clear refusal."""

import grp
import os
import pwd
from pathlib import Path

import pytest
from prefork.config.gunicorn import UNSUPPORTED, UnsupportedSetting
from prefork.config.sources import Configuration, configure
from prefork.errors import StartupError


def read(
    *arguments: str, folder: Path = Path("/nonexistent"), environment: dict[str, str] | None = None
) -> Configuration:
    return configure(arguments, environment or {}, folder=folder)


def write(folder: Path, text: str, name: str = "gunicorn.conf.py") -> str:
    (folder / name).write_text(text)
    return name


def refusal(*arguments: str, **keys: object) -> str:
    with pytest.raises(StartupError) as caught:
        read(*arguments, **keys)  # type: ignore[arg-type]
    return str(caught.value)


def test_a_gunicorn_command_line_is_understood():
    options = read(
        "-w", "4", "-b", "0.0.0.0:8000", "-b", "unix:/run/x.sock", "-k", "gthread", "--threads", "2", "-t", "60",
        "--max-requests", "1000", "--max-requests-jitter=50", "--graceful-timeout", "20", "--keep-alive", "5",
        "--forwarded-allow-ips", "10.0.0.1,10.0.0.2", "--access-logfile", "-", "--preload", "-e", "A=1,2",
        "--limit-request-line", "4094", "--limit-request-field_size", "100", "app:app",
    ).options  # fmt: skip
    assert options.workers == 4
    assert options.bind == ("0.0.0.0:8000", "unix:/run/x.sock")
    assert options.worker_class == "threads"
    assert (options.threads, options.timeout, options.graceful_timeout, options.keepalive) == (
        2,
        60,
        20,
        5,
    )
    assert (options.max_requests, options.max_requests_jitter) == (1000, 50)
    assert options.forwarded_allow_ips == ("10.0.0.1", "10.0.0.2")
    assert options.accesslog == "-"
    assert options.preload_app == "always"
    assert options.raw_env == ("A=1,2",)
    assert (options.limit_request_line, options.limit_request_field_size) == (4094, 100)
    assert options.wsgi_app == "app:app"


@pytest.mark.parametrize(
    ("arguments", "preload", "app"),
    [
        (["--preload", "app:app"], "always", "app:app"),
        (["--preload", "never", "app:app"], "never", "app:app"),
        (["--preload", "auto", "app:app"], "auto", "app:app"),
        (["--preload=never", "app:app"], "never", "app:app"),
        (["app:app", "--preload", "never"], "never", "app:app"),
        (["app:app", "--preload"], "always", "app:app"),
        (["--preload", "-w", "2", "app:app"], "always", "app:app"),
        (["--no-preload", "never"], "never", "never"),
        (["--preload=always", "never"], "always", "never"),
        (["--preload", "--preload", "never", "app:app"], "never", "app:app"),
    ],
)
def test_preload_takes_a_value_or_none(arguments: list[str], preload: str, app: str):
    options = read(*arguments).options
    assert (options.preload_app, options.wsgi_app) == (preload, app)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-w", "0"], "workers is 0; use 1 to 512, or auto"),
        (["-w", "513"], "workers is 513; use 1 to 512, or auto"),
        (["-w", "two"], "workers is two; use 1 to 512, or auto"),
        (["--threads", "0"], "threads is 0; use 1 to 256"),
        (["-k", "eventlet"], "worker_class is eventlet; use threads or gevent"),
        (["-t", "-1"], "timeout is -1; use 0.1 to 86400 seconds, or 0 for none"),
        (["-t", "nan"], "timeout is nan"),
        (["--max-request-body", "16Xi"], "max_request_body is 16Xi; use"),
        (["--content", "source"], "content is source; use NAME=DIR"),
        (["-e", "NAME"], "raw_env is NAME; use NAME=VALUE"),
        (["--preload=sometimes"], "preload_app is sometimes; use auto or always or never"),
        (["--log-level", "loud"], "loglevel is loud; use debug"),
        (["--metrics", "9000"], "metrics is 9000; use HOST:PORT"),
        (["--script-name", "shop"], "script_name is shop; use a path that begins with /"),
        (["--wrokers", "2"], "unknown option --wrokers; did you mean --workers?"),
        (["--max-request=2"], "unknown option --max-request; did you mean --max-requests?"),
        (["--qqqqqq"], "unknown option --qqqqqq; prefork --help lists the options"),
        (["app:app", "other:app"], "unexpected argument other:app"),
        (["-w"], "expected one argument"),
        (["--user", "www-data"], "--user is not supported; start prefork as the user"),
        (["--certfile", "x.pem"], "--certfile is not supported; prefork serves plain HTTP"),
        (
            ["--paste", "x.ini"],
            """name the app as 'paste.deploy:loadapp("config:/srv/shop/production.ini")'""",
        ),
        (["-D"], "--daemon is not supported; leave it to systemd"),
        (["-c", "missing.py"], "config is missing.py; there is no such file"),
    ],
)
def test_what_is_wrong_is_named_with_the_remedy(arguments: list[str], message: str):
    assert message in refusal(*arguments)


@pytest.mark.parametrize(
    ("written", "level"), [("INFO", "info"), ("Debug", "debug"), ("WARN", "warning")]
)
def test_log_level_may_be_written_as_logging_does(written: str, level: str):
    assert read("--log-level", written, "app:app").options.loglevel == level


@pytest.mark.parametrize(
    ("written", "worker_class"),
    [
        ("gthread", "threads"),
        ("gunicorn.workers.gthread.ThreadWorker", "threads"),
        ("gunicorn.workers.ggevent.GeventWorker", "gevent"),
    ],
)
def test_worker_class_may_be_written_as_gunicorn_takes_it(written: str, worker_class: str):
    assert read("-k", written, "app:app").options.worker_class == worker_class


@pytest.mark.parametrize(
    ("user", "group"),
    [
        (str(os.geteuid()), str(os.getegid())),
        (pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name),
    ],
)
def test_the_user_that_prefork_runs_as_anyway_may_be_named(user: str, group: str, tmp_path: Path):
    assert read("--user", user, "-g", group, "app:app").warnings == ()
    write(tmp_path, f"user = {user!r}\ngroup = {os.getegid()}\n")
    assert read("app:app", folder=tmp_path).warnings == ()
    other = os.geteuid() + 1
    write(tmp_path, f"user = {other}\n")
    assert "user is not supported" in refusal("app:app", folder=tmp_path)
    assert "--user is not supported" in refusal("--user", str(other), "app:app")
    assert "--group is not supported" in refusal("--group", "no\0such", "app:app")


def test_gunicorn_options_without_effect_here_are_named_and_their_values_skipped():
    found = read("--worker-tmp-dir", "/dev/shm", "--capture-output", "app:app")
    assert found.options.wsgi_app == "app:app"
    assert len(found.warnings) == 2
    assert "--worker-tmp-dir is not supported" in found.warnings[0] + found.warnings[1]


def test_app_finds_itself_served_by_the_variable_that_gunicorn_sets(tmp_path: Path):
    assert "gunicorn" in read("app:app").environment["SERVER_SOFTWARE"]
    write(tmp_path, "raw_env = ['SERVER_SOFTWARE=mine']\n")
    assert read("app:app", folder=tmp_path).environment["SERVER_SOFTWARE"] == "mine"
    given = {"SERVER_SOFTWARE": "given"}
    assert read("app:app", environment=given).environment["SERVER_SOFTWARE"] == "given"


def test_command_line_wins_over_environment_over_file(tmp_path: Path):
    write(tmp_path, "workers = 2\nthreads = 2\ntimeout = 2\n")
    environment = {"PREFORK_WORKERS": "3", "PREFORK_THREADS": "3"}
    options = read("-w", "4", folder=tmp_path, environment=environment).options
    assert (options.workers, options.threads, options.timeout) == (4, 3, 2)


def test_every_setting_can_be_given_in_the_environment():
    environment = {
        "PREFORK_MAX_REQUESTS": "7",
        "PREFORK_KEEP_ALIVE": "9",
        "PREFORK_CONTENT": "a=/a,b=/b",
        "PREFORK_PRELOAD": "never",
        "PREFORK_WSGI_APP": "app:app",
        "FORWARDED_ALLOW_IPS": "*",
    }
    options = read(environment=environment).options
    assert (options.max_requests, options.keepalive) == (7, 9)
    assert options.content == ("a=/a", "b=/b")
    assert options.preload_app == "never"
    assert options.wsgi_app == "app:app"
    assert options.forwarded_allow_ips == ("*",)


def test_bad_environment_names_the_variable():
    assert "(from environment WEB_CONCURRENCY)" in refusal(environment={"WEB_CONCURRENCY": "many"})


def test_near_misses_in_environment_and_file_are_named(tmp_path: Path):
    write(tmp_path, "worker = 3\nTHREADS = 2\nmax_request = 5\nname = 'x'\n")
    found = read(
        folder=tmp_path, environment={"PREFORK_WORKER": "3", "PREFORK_PORT": "tcp://10.0.0.1:80"}
    )
    assert [warning.partition(" (from")[0] for warning in found.warnings] == [
        "environment PREFORK_WORKER is not a setting; did you mean PREFORK_WORKERS?",
        "worker is not a setting; did you mean workers?",
        "THREADS is not a setting; did you mean threads?",
        "max_request is not a setting; did you mean max_requests?",
    ]


def test_port_of_the_environment_is_the_default_address():
    assert read(environment={"PORT": "5000"}).options.bind == ("0.0.0.0:5000",)
    assert read(environment={"PORT": "\N{SUPERSCRIPT TWO}"}).options.bind == read().options.bind
    assert read("-b", ":1", environment={"PORT": "5000"}).options.bind == (":1",)


def test_a_gunicorn_config_file_loads_unchanged(tmp_path: Path):
    write(
        tmp_path,
        "import multiprocessing\n"
        "bind = ['127.0.0.1:8001', 'unix:/tmp/x']\n"
        "workers = multiprocessing.cpu_count() * 2 + 1\n"
        "worker_class = 'sync'\n"
        "preload_app = True\n"
        "accesslog = '-'\n"
        "errorlog = None\n"
        "user = None\n"
        "statsd_host = 'localhost:8125'\n"
        "my_own_name = 5\n"
        "def post_fork(server, worker):\n    server.log.info('x')\n"
        "def pre_request(worker, req):\n    pass\n",
    )
    found = read(folder=tmp_path)
    assert found.options.bind == ("127.0.0.1:8001", "unix:/tmp/x")
    assert found.options.preload_app == "always"
    assert set(found.hooks) == {"post_fork"}
    assert len(found.warnings) == 2
    assert any(
        "statsd_host is not supported: read /metrics" in warning for warning in found.warnings
    )
    assert any("pre_request is not called" in warning for warning in found.warnings)


STRANGE = """
class Strange:
    def fail(self, *_):
        raise RuntimeError
    __eq__ = __hash__ = __repr__ = __str__ = __bool__ = __len__ = __iter__ = __int__ = __float__ = fail
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("workers = 0\n", "workers is 0; use 1 to 512, or auto (from "),
        ("workers = True\n", "workers is True; use 1 to 512"),
        ("threads = 1.5\n", "threads is 1.5; use 1 to 256"),
        ("bind = 5\n", "bind is 5; use HOST:PORT"),
        ("keyfile = 'k.pem'\n", "keyfile is not supported; prefork serves plain HTTP"),
        ("workers = \n", "gunicorn.conf.py, line 1: invalid syntax"),
        ("bind = [['127.0.0.1:80']]\n", "bind is [['127.0.0.1:80']]; use HOST:PORT"),
        ("bind = b'127.0.0.1:80'\n", "bind is b'127.0.0.1:80'; use HOST:PORT"),
        ("bind = {'127.0.0.1:80': 1}\n", "bind is {'127.0.0.1:80': 1}; use HOST:PORT"),
        ("bind = iter(['127.0.0.1:80', 5])\n", "bind is <list_iterator"),
        (f"{STRANGE}workers = Strange()\n", "workers is an object of class Strange; use 1 to 512"),
        (f"{STRANGE}bind = [Strange()]\n", "bind is an object of class list; use HOST:PORT"),
        (f"{STRANGE}raw_paste_global_conf = Strange()\nworkers = 0\n", "workers is 0"),
        (f"{STRANGE}ssl_version = Strange()\nworkers = 0\n", "workers is 0"),
        ("x = '\0'\n", "gunicorn.conf.py, line 1: source code string cannot contain null bytes"),
        ("x = 1\nraise RuntimeError('no database')\n", "line 2): RuntimeError: no database"),
    ],
)
def test_bad_config_file_names_file_value_and_remedy(tmp_path: Path, text: str, message: str):
    assert message in refusal("-c", write(tmp_path, text, "gunicorn.conf.py"), folder=tmp_path)


@pytest.mark.parametrize(
    ("text", "size"), [("16Mi", 16 << 20), ("300M", 300_000_000), ("1024", 1024), ("0", 0)]
)
def test_sizes_have_the_units_of_kubernetes(text: str, size: int):
    assert read("--max-request-body", text).options.max_request_body == size


def test_auto_workers_become_a_number():
    assert read("-w", "auto").options.worker_count() >= 1


def test_threads_with_worker_class_gevent_draw_a_warning():
    (warning,) = read("-k", "gevent", "--threads", "4", "app:app").warnings
    assert "threads=4 has no effect" in warning
    assert not read("-k", "gevent", "app:app").warnings
    assert not read("--threads", "4", "app:app").warnings


@pytest.mark.parametrize(
    ("arguments", "environment", "workers"),
    [
        ((), {"GUNICORN_CMD_ARGS": "-w 7"}, 7),
        ((), {"GUNICORN_CMD_ARGS": "--workers=7", "WEB_CONCURRENCY": "2"}, 7),
        ((), {"GUNICORN_CMD_ARGS": "-w 7", "PREFORK_WORKERS": "3"}, 3),
        (("-w", "4"), {"GUNICORN_CMD_ARGS": "-w 7"}, 4),
        ((), {"GUNICORN_CMD_ARGS": ""}, 5),
    ],
)
def test_gunicorn_cmd_args_count_below_the_command_line_and_above_the_file(
    tmp_path: Path, arguments: tuple[str, ...], environment: dict[str, str], workers: int
):
    write(tmp_path, "workers = 5\n")
    assert read(*arguments, folder=tmp_path, environment=environment).options.workers == workers


def test_gunicorn_cmd_args_are_split_as_by_a_shell_and_named_as_the_source(tmp_path: Path):
    write(tmp_path, "raw_env = ['A=file']\n", "conf.py")
    environment = {"GUNICORN_CMD_ARGS": "-c conf.py --env 'A=1 2' --name shop other:app"}
    configuration = read("app:app", folder=tmp_path, environment=environment)
    assert configuration.options.raw_env == ("A=1 2",)
    assert configuration.options.wsgi_app == "app:app"
    assert configuration.sources == ("environment GUNICORN_CMD_ARGS", "config file conf.py")
    assert len(configuration.warnings) == 1
    assert "--name is not supported" in configuration.warnings[0]
    assert "GUNICORN_CMD_ARGS" in configuration.warnings[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "-w 0",
            "workers is 0; use 1 to 512, or auto (from option --workers in GUNICORN_CMD_ARGS)",
        ),
        (
            "--wokers 2",
            "GUNICORN_CMD_ARGS in the environment: unknown option --wokers; did you mean",
        ),
        ("--user www", "GUNICORN_CMD_ARGS in the environment: --user is not supported"),
        ("--env 'A=1", "GUNICORN_CMD_ARGS in the environment: No closing quotation"),
    ],
)
def test_gunicorn_cmd_args_that_are_wrong_are_refused(text: str, message: str):
    assert message in refusal(environment={"GUNICORN_CMD_ARGS": text})


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        (("-c", "none"), {}),
        (("--config=none",), {"GUNICORN_CMD_ARGS": "-c gunicorn.conf.py"}),
        ((), {"PREFORK_CONFIG": "none"}),
    ],
)
@pytest.mark.parametrize("name", ["gunicorn.conf.py", "prefork.conf.py"])
def test_none_reads_no_config_file(
    tmp_path: Path, name: str, arguments: tuple[str, ...], environment: dict[str, str]
):
    write(tmp_path, "workers = 7\n", name)
    configuration = read(*arguments, folder=tmp_path, environment=environment)
    assert configuration.options.workers == 1
    assert not any("config file" in source for source in configuration.sources)


def test_file_that_is_called_none_is_named_by_its_path(tmp_path: Path):
    write(tmp_path, "workers = 7\n", "none")
    assert read("-c", "./none", folder=tmp_path).options.workers == 7


@pytest.mark.parametrize(
    ("option", "name", "least", "most"),
    [
        ("--limit-request-line", "limit_request_line", 64, 65536),
        ("--limit-request-fields", "limit_request_fields", 1, 32768),
        ("--limit-request-field-size", "limit_request_field_size", 64, 65536),
        ("--graceful-timeout", "graceful_timeout", 0.1, 86400),
    ],
)
def test_zero_is_taken_where_gunicorn_takes_it(option: str, name: str, least: float, most: float):
    for value in (0, least, most):
        assert getattr(read(option, str(value)).options, name) == value
    for value in (least / 2 if least < 1 else least - 1, most + 1):
        if value:
            assert f"{name} is " in refusal(option, str(value))


def test_hooks_read_settings_that_prefork_lacks_as_gunicorn_leaves_them():
    cfg = read("-e", "A=1").options
    assert (cfg.certfile, cfg.is_ssl, cfg.reload, cfg.spew, cfg.worker_tmp_dir) == (
        None, False, False, False, None,
    )  # fmt: skip
    assert (cfg.proc_name, cfg.uid, cfg.user) == ("gunicorn", os.geteuid(), os.geteuid())
    assert cfg.env == {"A": "1"}
    with pytest.raises(AttributeError, match=r"cfg has no setting wokers; docs/options.md lists"):
        cfg.wokers  # noqa: B018


@pytest.mark.parametrize("entry", UNSUPPORTED, ids=lambda entry: entry.name)
def test_every_setting_of_gunicorns_can_be_read(entry: UnsupportedSetting):
    getattr(read().options, entry.name)
