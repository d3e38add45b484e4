"""Every setting of the server, declared once.

The fields of `Options` are the table: command line, environment, config file, `--help`,
`docs/options.md` and validation are all made from it. Names and meaning are gunicorn's where
gunicorn has the setting. Reading the sources is the work of `sources`; nothing here does I/O.
"""

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from prefork.config import access_log
from prefork.config.gunicorn import UNSUPPORTED, HookSetting, find_default, to_address
from prefork.config.kinds import (
    FLAG_WORDS,
    Kind,
    bounds,
    choice,
    flag,
    integer,
    is_content,
    is_field_word,
    is_host_port,
    is_peer,
    is_request_path,
    is_variable,
    octal,
    read_script_name,
    seconds,
    size,
    text,
    texts,
)  # fmt: skip
from prefork.config.settings import Setting, setting, to_setting

MAX_WORKERS = 512
MAX_FIELDS = 32768  # gunicorn's own bound
MIB = 1024 * 1024
DURATION_BUCKETS_MAX = 16  # room for so many is in the stats table (BOUNDS_MAX)
DURATION_BUCKETS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
)  # fmt: skip

# Preloading is what gunicorn's flag `--preload` asks for; here it is the default, unless
# the app is not safe to preload.
PRELOAD_VALUES = ("auto", "always", "never")
PRELOAD = choice(
    *PRELOAD_VALUES,
    aliases={**{word: "always" if yes else "never" for word, yes in FLAG_WORDS.items()}, None: "auto", "": "auto"},
)  # fmt: skip
WORKER_CLASSES = choice(
    "threads", "gevent", aliases={"sync": "threads", "gthread": "threads", "gunicorn.workers.sync.SyncWorker":
    "threads", "gunicorn.workers.gthread.ThreadWorker": "threads", "gevent_wsgi": "gevent", "gevent_pywsgi": "gevent",
    "gunicorn.workers.ggevent.GeventWorker": "gevent", "gunicorn.workers.ggevent.GeventPyWSGIWorker": "gevent"}
)  # fmt: skip

APP, SOCKET, PROCESSES, TIMES, LIMITS, PROXY, LOGGING, OPERATION, COMMANDS = (
    "App", "Server socket", "Processes", "Times", "Limits", "Behind a proxy", "Logs and metrics",
    "Operation", "Commands",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """All settings, checked. Attributes have the names that a gunicorn config file uses."""

    # App
    wsgi_app: str = setting(
        kind=text("MODULE:CALLABLE, such as shop.wsgi:application", "APP"),
        default="",
        section=APP,
        help="The app, MODULE:CALLABLE or MODULE:FACTORY(); the callable's name is 'application' when left out.",
    )
    config: str = setting(
        "-c", "--config",
        kind=text("a path, file:PATH, python:MODULE, or none", "FILE"),
        default="",
        section=APP,
        help="Config file in Python, as gunicorn's. Without it ./prefork.conf.py, then ./gunicorn.conf.py is read if there is one; none reads no file.",
    )  # fmt: skip
    chdir: str = setting(
        "--chdir",
        kind=text("a directory", "DIR"),
        default="",
        section=APP,
        help="Directory to change to before the app is imported; it leads sys.path. A link is followed anew by each reload.",
    )
    pythonpath: tuple[str, ...] = setting(
        "--pythonpath",
        kind=texts("directories separated by commas", "DIR,…"),
        default=(),
        section=APP,
        help="Directories to put before the others in sys.path.",
    )
    raw_env: tuple[str, ...] = setting(
        "-e", "--env",
        kind=texts("NAME=VALUE", "NAME=VALUE", separator="", accept=is_variable),
        default=(),
        section=APP,
        help="Environment variable for the app; repeatable.",
    )  # fmt: skip
    preload_app: str = setting(
        "--preload",
        kind=PRELOAD,
        default="auto",
        section=APP,
        help="Import the app once per generation, in the mold from which workers are forked. auto: unless the import leaves what processes must not share, such as threads, connections, open files and random generators (docs/fork-safety.md). --preload alone means always.",
    )

    # Server socket
    bind: tuple[str, ...] = setting(
        "-b", "--bind",
        kind=texts("HOST:PORT, [IPV6]:PORT, unix:PATH, unix:@NAME or fd://N", "ADDRESS"),
        default=("127.0.0.1:8000",),
        section=SOCKET,
        help="Address to listen on: HOST:PORT, [IPV6]:PORT, unix:PATH, unix:@NAME (abstract, without a file) or fd://N; repeatable. Sockets passed by systemd replace it; with PORT in the environment the default is 0.0.0.0:$PORT.",
    )  # fmt: skip
    backlog: int = setting(
        "--backlog",
        kind=integer(1, 65535),
        default=2048,
        section=SOCKET,
        help="Connections that may wait in the accept queue (the kernel's somaxconn bounds it).",
    )
    umask: int = setting(
        "-m", "--umask",
        kind=Kind(octal, "an octal number, 0 to 777", "OCTAL"),
        default=0,
        section=SOCKET,
        help="Bits taken from the mode 0666 of a unix socket.",
    )  # fmt: skip

    # Processes
    workers: int | str = setting(
        "-w", "--workers",
        kind=integer(1, MAX_WORKERS, auto=True),
        default=1,
        section=PROCESSES,
        help="Worker processes. auto: two per CPU that quota and affinity leave, as far as the memory limit allows 128Mi each.",
        environment=("WEB_CONCURRENCY",),
    )  # fmt: skip
    worker_class: str = setting(
        "-k", "--worker-class",
        kind=WORKER_CLASSES,
        default="threads",
        section=PROCESSES,
        help="How a worker runs the app. threads: in --threads threads; gunicorn's sync and gthread mean that. gevent: each request in a greenlet of one hub, the standard library patched before the app is imported; needs gevent where the app runs.",
    )  # fmt: skip
    threads: int = setting(
        "--threads",
        kind=integer(1, 256),
        default=1,
        section=PROCESSES,
        help="App threads per worker, of worker class threads; slow clients occupy none of them (see --stream-request-bodies and --spool-size for the exceptions).",
    )
    max_requests: int = setting(
        "--max-requests",
        kind=integer(1, 10**9, none="never"),
        default=0,
        section=PROCESSES,
        help="Requests after which a worker is replaced (its replacement is ready before it leaves).",
    )
    max_requests_jitter: int = setting(
        "--max-requests-jitter",
        kind=integer(0, 10**9),
        default=0,
        section=PROCESSES,
        help="Up to this many are added to max_requests, at random, so that workers do not leave together.",
    )
    max_worker_memory: int = setting(
        "--max-worker-memory",
        kind=size(16 * MIB, 1 << 40, none="no bound"),
        default=0,
        section=PROCESSES,
        help="Resident memory above which a worker is replaced (its replacement is ready before it leaves).",
    )

    # Times
    timeout: float = setting(
        "-t", "--timeout",
        kind=seconds(0.1, 86400, none="none"),
        default=30.0,
        section=TIMES,
        help="Time one request may take in the app, waits for its client not counted: then 504 if nothing was sent, the stack in the log, and a new worker.",
    )  # fmt: skip
    graceful_timeout: float = setting(
        "--graceful-timeout",
        kind=seconds(0.1, 86400, none="no wait for them"),
        default=30.0,
        section=TIMES,
        help="Time running requests get when a worker leaves (stop, reload, recycling); then it is killed. With 0 a worker has 0.1 s to leave in order.",
    )
    keepalive: float = setting(
        "--keep-alive",
        kind=seconds(0, 3600),
        default=75.0,
        section=TIMES,
        help="Time an idle connection is kept. Longer than the proxy's own (nginx: 60), or the proxy meets closed connections.",
    )
    header_timeout: float = setting(
        "--header-timeout",
        kind=seconds(0.1, 3600),
        default=15.0,
        section=TIMES,
        help="Time from the first byte of a request's head to its last.",
    )
    body_timeout: float = setting(
        "--body-timeout",
        kind=seconds(0.1, 3600),
        default=30.0,
        section=TIMES,
        help="Longest pause of a client within a request body (then 408), and the grace before --min-body-rate counts.",
    )
    min_body_rate: int = setting(
        "--min-body-rate",
        kind=size(1, 1 << 30, none="no bound"),
        default=500,
        section=TIMES,
        help="Bytes per second at which a request body has to come, on average since its head; a slower client gets 408.",
    )
    write_timeout: float = setting(
        "--write-timeout",
        kind=seconds(0.1, 3600),
        default=60.0,
        section=TIMES,
        help="Longest time a client may take nothing of a response (then it is disconnected), and the grace before --min-response-rate counts.",
    )
    min_response_rate: int = setting(
        "--min-response-rate",
        kind=size(1, 1 << 30, none="no bound"),
        default=500,
        section=TIMES,
        help="Bytes per second that a client has to take of a response that waits for it, on average; a slower client is disconnected.",
    )
    boot_timeout: float = setting(
        "--boot-timeout",
        kind=seconds(1, 86400),
        default=300.0,
        section=TIMES,
        help="Time the app may take to import, and a worker to get ready; then the stack is in the log and the boot has failed.",
    )

    # Limits
    limit_request_line: int = setting(
        "--limit-request-line",
        kind=integer(64, 65536, none="no limit of its own"),
        default=8190,
        section=LIMITS,
        help="Bytes of a request line; 0 leaves it to --limit-head-bytes.",
    )
    limit_request_fields: int = setting(
        "--limit-request-fields",
        kind=integer(1, MAX_FIELDS, none=f"{MAX_FIELDS}"),
        default=100,
        section=LIMITS,
        help="Fields of a request's head.",
    )
    limit_request_field_size: int = setting(
        "--limit-request-field_size", "--limit-request-field-size",
        kind=size(64, 65536, none="no limit of its own"),
        default=8190,
        section=LIMITS,
        help="Bytes of one field of a request's head; 0 leaves it to --limit-head-bytes.",
    )  # fmt: skip
    limit_head_bytes: int = setting(
        "--limit-head-bytes",
        kind=size(1024, 1 << 20),
        default=65536,
        section=LIMITS,
        help="Bytes of a whole request head.",
    )
    max_request_body: int = setting(
        "--max-request-body",
        kind=size(1, 1 << 50, none="no bound"),
        default=0,
        section=LIMITS,
        help="Bytes of a request body; more is answered with 413. See --spool-size for what bounds a body otherwise.",
    )
    stream_request_bodies: bool = setting(
        "--stream-request-bodies",
        kind=flag(),
        default=False,
        section=LIMITS,
        help="Call the app before its request's body has come, unless that is known to be at most 64Ki, and let it read while the rest comes. Then a slow upload occupies an app thread, and a chunked body has no CONTENT_LENGTH.",
    )
    buffer_memory: int = setting(
        "--buffer-memory",
        kind=size(1 * MIB, 1 << 40),
        default=64 * MIB,
        section=LIMITS,
        help="Memory per worker for request bodies that are coming in (up to 1Mi of each) and for responses that clients have not taken yet. What exceeds it goes to the spool.",
    )
    spool_dir: str = setting(
        "--spool-dir",
        kind=text("a directory", "DIR"),
        default="",
        section=LIMITS,
        help="Directory for the spool: files without a name that hold what --buffer-memory should not. Default: $TMPDIR, or /tmp.",
    )
    spool_size: int = setting(
        "--spool-size",
        kind=size(16 * MIB, 1 << 50, none="no spool"),
        default=1 << 30,
        section=LIMITS,
        help="Bytes per worker in the spool for request bodies above 1Mi, and as many again for responses. A body that finds no room waits in its client, up to --body-timeout, then gets 503; one that is larger than all of it gets 413. Without a spool, bodies above 1Mi are streamed to the app.",
    )
    worker_connections: int = setting(
        "--worker-connections",
        kind=integer(1, 100_000),
        default=10_000,
        section=LIMITS,
        help="Connections that one worker holds, less where the limit of open files is lower; "
        "further ones wait in the accept queue, and those that are idle, or have been silent for 2 s, make way for them. With worker class gevent also the requests that run at once.",
    )

    # Behind a proxy
    forwarded_allow_ips: tuple[str, ...] = setting(
        "--forwarded-allow-ips",
        kind=texts(
            "addresses, networks (10.0.0.0/8) or * separated by commas", "IP,…", accept=is_peer
        ),
        default=("127.0.0.1", "::1"),
        section=PROXY,
        help="Peers whose X-Forwarded-* fields are believed; * for all. Of those that are listed, and of clients on a unix socket, SCRIPT_NAME is taken as well.",
        environment=("FORWARDED_ALLOW_IPS",),
    )
    script_name: str = setting(
        "--root-path", "--script-name",
        kind=Kind(read_script_name, "a path that begins with /", "PATH"),
        default="",
        section=PROXY,
        help="SCRIPT_NAME: the path below which the app is published. A proxy may say it instead, see --forwarded-allow-ips.",
        environment=("SCRIPT_NAME",),
    )  # fmt: skip

    # Logs and metrics
    accesslog: str = setting(
        "--access-logfile",
        kind=text("a path, or - for standard output", "FILE"),
        default="",
        section=LOGGING,
        help="Access log: a line for each answered request; - is standard output. Off when empty.",
    )
    access_log_format: str = setting(
        "--access-logformat",
        kind=Kind(access_log.read_format, access_log.ALLOWED, "FORMAT"),
        default="json",
        section=LOGGING,
        help="What a line of the access log is: json, common, combined, or gunicorn's format with its atoms, such as '%(h)s \"%(r)s\" %(s)s'.",
    )
    access_log_fields: tuple[str, ...] = setting(
        "--access-log-fields",
        kind=texts(
            f"names separated by commas: {', '.join(access_log.FIELDS)}, header:NAME",
            "NAME,…",
            accept=access_log.is_field,
        ),
        default=access_log.DEFAULT_FIELDS,
        section=LOGGING,
        help="Fields of a JSON line; also remote (the peer's address), path, query, user, and header:NAME for any request header. A field that a request does not have is left out.",
    )
    hide_query_strings: bool = setting(
        "--hide-query-strings",
        kind=flag(),
        default=False,
        section=LOGGING,
        help="Leave query strings out of all logs, those of Referer too: they may hold secrets.",
    )
    errorlog: str = setting(
        "--log-file", "--error-logfile",
        kind=text("a path, or - for standard error", "FILE"),
        default="-",
        section=LOGGING,
        help="The server's own log; - is standard error.",
    )  # fmt: skip
    loglevel: str = setting(
        "--log-level",
        kind=choice("debug", "info", "warning", "error", "critical", aliases={"warn": "warning"}),
        default="info",
        section=LOGGING,
        help="Minimum level to log.",
    )
    log_format: str = setting(
        "--log-format",
        kind=choice("text", "json"),
        default="text",
        section=LOGGING,
        help="What the server's own log, the app's tracebacks and the loggers gunicorn.error and gunicorn.access write: text, or a JSON object per line; with json also what the app prints or logs to standard output and standard error.",
    )
    metrics: str = setting(
        "--metrics",
        kind=text("HOST:PORT", "HOST:PORT", accept=is_host_port),
        default="",
        section=LOGGING,
        help="Start the agent as a child: /metrics, /livez, /readyz and /status on this address (needs prefork[agent]).",
    )
    duration_buckets: tuple[float, ...] = setting(
        "--duration-buckets",
        kind=bounds(DURATION_BUCKETS_MAX),
        default=DURATION_BUCKETS,
        section=LOGGING,
        help="Upper bounds of the buckets of all histograms of request times.",
    )
    exemplars: bool = setting(
        "--exemplars",
        kind=flag(),
        default=False,
        section=LOGGING,
        help="Keep for each bucket of these histograms the trace id of its newest request whose header traceparent says that it is sampled; the agent shows them as exemplars in the OpenMetrics format.",
    )

    # Operation
    health_path: str = setting(
        "--health-path",
        kind=text("a path that begins with /, such as /healthz", "PATH", accept=is_request_path),
        default="",
        section=OPERATION,
        help="Path that a worker of a new generation must answer with 2xx or 3xx before a reload lets it serve; asked up to 3 times, 10 s each, one second apart. The first start does not ask: there is nothing older to serve, and readiness probes decide. With --metrics it is part of /readyz.",
    )
    health_host: str = setting(
        "--health-host",
        kind=text("a host name, with :PORT if need be", "HOST", accept=is_field_word),
        default="localhost",
        section=OPERATION,
        help="Host of that request, for apps that check it.",
    )
    run_dir: str = setting(
        "--run-dir",
        kind=text("a directory", "DIR"),
        default="",
        section=OPERATION,
        help="Where the stats table and the control socket are. Default: a private directory, prefork-PID-…, in $XDG_RUNTIME_DIR or under /tmp.",
    )
    content: tuple[str, ...] = setting(
        "--content",
        kind=texts("NAME=DIR", "NAME=DIR", accept=is_content),
        default=(),
        section=OPERATION,
        help="Directory whose digest is reported as what a generation loaded; repeatable.",
    )
    pidfile: str = setting(
        "-p", "--pid",
        kind=text("a path", "FILE"),
        default="",
        section=OPERATION,
        help="File to write the arbiter's process id to.",
    )  # fmt: skip

    # Commands
    check_config: bool = setting(
        "--check-config",
        kind=flag(),
        default=False,
        section=COMMANDS,
        help="Check the settings and the files they name, import the app, and exit: 0 when all are good. Makes no file and opens no socket.",
        is_command=True,
    )
    print_config: bool = setting(
        "--print-config",
        kind=flag(),
        default=False,
        section=COMMANDS,
        help="Print the settings as they are understood, and exit.",
        is_command=True,
    )

    def worker_count(self) -> int:
        """`workers` once "auto" has been replaced by a number (see capacity.py)."""
        if isinstance(self.workers, str):
            raise TypeError("workers is still 'auto': resolve it with capacity.resolve_workers")
        return self.workers

    @property
    def env(self) -> dict[str, str]:
        """`raw_env` as gunicorn's hooks read it."""
        return dict(pair.split("=", 1) for pair in self.raw_env)

    @property
    def worker_class_str(self) -> str:
        return self.worker_class

    @property
    def address(self) -> list[tuple[str, int] | str]:
        """`bind` as gunicorn's hooks read it: host and port, or a path."""
        return [to_address(text) for text in self.bind]

    @property
    def settings(self) -> dict[str, HookSetting]:
        """All settings by name, as gunicorn's hooks read them: `cfg.settings["workers"].get()`."""
        names = [*(setting.name for setting in SETTINGS), *(entry.name for entry in UNSUPPORTED)]
        return {name: HookSetting(name, getattr(self, name)) for name in names}

    def set(self, name: str, value: Any) -> None:
        """Set one, for hooks: what reads it later in this process, or in those forked from it, finds the new value.

        Raises AttributeError when gunicorn has no such setting either, ValueError for a value that cannot be.
        """
        getattr(self, name)
        known = next((setting for setting in SETTINGS if setting.name == name), None)
        object.__setattr__(self, name, known.read(value, "cfg.set") if known else value)

    if not TYPE_CHECKING:  # a type checker is to find what does not exist

        def __getattr__(self, name: str) -> Any:
            """Hooks read settings of gunicorn's that prefork does not have: they find gunicorn's default."""
            return find_default(name)


SETTINGS: tuple[Setting, ...] = tuple(to_setting(column) for column in fields(Options))

# What a reload may change; the rest belongs to the arbiter's start (sockets, files, run directory).
FIXED_AT_START = frozenset({
    "config", "chdir", "bind", "backlog", "umask", "accesslog", "errorlog", "log_format", "metrics", "duration_buckets", "exemplars", "run_dir", "content",
    "pidfile", "check_config", "print_config",
})  # fmt: skip
