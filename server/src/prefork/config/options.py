"""Every setting of the server, declared once.

The fields of `Options` are the table: command line, environment, config file, `--help`,
`docs/options.md` and validation are all made from it. Names and meaning are gunicorn's where
gunicorn has the setting. Reading the sources is `cli.py`'s work; nothing here does I/O.
"""

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, NamedTuple

MAX_WORKERS = 512
MIB = 1024 * 1024


@dataclass(frozen=True)
class Kind:
    """How a setting's value is read from text or from a config file, and what is allowed."""

    parse: Callable[[Any], Any]
    allowed: str  # completes "NAME is VALUE; use …"
    metavar: str
    repeatable: bool = False
    is_flag: bool = False


@dataclass(frozen=True)
class Setting:
    """One row of the table."""

    name: str  # attribute, and name in a config file
    flags: tuple[str, ...]  # long name last; empty: not on the command line
    kind: Kind
    default: Any
    section: str
    help: str
    also_environment: tuple[str, ...]  # other names that this kind of server is known to read
    is_command: bool  # asks for something else than serving; neither environment nor config file

    @property
    def environment(self) -> tuple[str, ...]:
        """Names of environment variables, the first that is set wins."""
        if self.is_command:
            return ()
        own = self.flags[-1].lstrip("-") if self.flags else self.name
        return ("PREFORK_" + own.replace("-", "_").upper(), *self.also_environment)

    def read(self, value: Any, source: str) -> Any:
        """Return `value` as the setting's type.

        Raises ValueError with a message for a person: what it is, what is allowed, where it stood.
        """
        try:
            return self.kind.parse(value)
        except (ValueError, TypeError):
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                value = ",".join(value)
            shown = value if isinstance(value, str) and value else repr(value)
            raise ValueError(
                f"{self.name} is {shown}; use {self.kind.allowed} (from {source})"
            ) from None


# -- kinds ------------------------------------------------------------------------------------


def whole(value: Any) -> int:
    """Return `value` as an integer; True and 1.5 are none."""
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError
    return int(value)


def integer(low: int, high: int, *, none: str = "", auto: bool = False) -> Kind:
    """A whole number in a range; `none` says what 0 means where 0 is a special value."""

    def parse(value: Any) -> int | str:
        if auto and value == "auto":
            return "auto"
        number = whole(value)
        if not (low <= number <= high or (none and number == 0)):
            raise ValueError
        return number

    allowed = f"{low} to {high}"
    if none:
        allowed += f", or 0 for {none}"
    if auto:
        allowed += ", or auto"
    return Kind(parse, allowed, "N|auto" if auto else "N")


def seconds(low: float, high: float, *, none: str = "") -> Kind:
    """A time in seconds, fractions allowed."""

    def parse(value: Any) -> float:
        if isinstance(value, bool):
            raise ValueError
        number = float(value)
        if math.isnan(number) or not (low <= number <= high or (none and number == 0)):
            raise ValueError
        return number

    allowed = f"{low:g} to {high:g} seconds" + (f", or 0 for {none}" if none else "")
    return Kind(parse, allowed, "SECONDS")


UNITS = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "k": 10**3, "M": 10**6, "G": 10**9}


def size(low: int, high: int, *, none: str = "") -> Kind:
    """A number of bytes; Ki Mi Gi k M G as in Kubernetes quantities."""

    def parse(value: Any) -> int:
        if isinstance(value, str):
            digits = value.rstrip("KMGik")
            value = whole(digits) * (UNITS[value[len(digits) :]] if digits != value else 1)
        number = whole(value)
        if not (low <= number <= high or (none and number == 0)):
            raise ValueError
        return number

    def read(value: Any) -> int:
        try:
            return parse(value)
        except KeyError:
            raise ValueError from None

    allowed = f"{show_size(low)} to {show_size(high)} bytes (units Ki, Mi, Gi)"
    return Kind(read, allowed + (f", or 0 for {none}" if none else ""), "BYTES")


def show_size(number: int) -> str:
    for unit in ("Gi", "Mi", "Ki"):
        if number and number % UNITS[unit] == 0:
            return f"{number // UNITS[unit]}{unit}"
    return str(number)


def choice(*names: str, aliases: Mapping[Any, str] | None = None) -> Kind:
    """One of several words; `aliases` maps other accepted values to them."""

    def parse(value: Any) -> str:
        named: str = (aliases or {}).get(value, value)
        if named not in names:
            raise ValueError
        return named

    return Kind(parse, " or ".join(names), "|".join(names))


def text(allowed: str, metavar: str, *, accept: Callable[[str], bool] | None = None) -> Kind:
    """A text without line breaks and NUL; None (a config file's "not set") is the empty text."""

    def parse(value: Any) -> str:
        if value is None:
            return ""
        if not isinstance(value, str) or any(c in value for c in "\0\r\n"):
            raise ValueError
        if value and accept is not None and not accept(value):
            raise ValueError
        return value

    return Kind(parse, allowed, metavar)


def texts(
    allowed: str, metavar: str, *, separator: str = ",", accept: Callable[[str], bool] | None = None
) -> Kind:
    """A list: repeated on the command line, separated in the environment, a list in a file."""

    def parse(value: Any) -> tuple[str, ...]:
        if value is None:
            return ()
        if isinstance(value, str):
            items = value.split(separator) if separator else [value]
        else:
            items = [
                part for item in value for part in (item.split(separator) if separator else [item])
            ]
        stripped = tuple(item.strip() for item in items if item.strip())
        if any(
            any(c in item for c in "\0\r\n") or (accept and not accept(item)) for item in stripped
        ):
            raise ValueError
        return stripped

    return Kind(parse, allowed, metavar, repeatable=True)


FLAG_WORDS = {
    True: True, False: False, None: False, "1": True, "0": False, "": False,
    "true": True, "false": False, "yes": True, "no": False, "on": True, "off": False,
}  # fmt: skip


def flag() -> Kind:
    """Yes or no; on the command line the option alone."""

    def parse(value: Any) -> bool:
        key = value.lower() if isinstance(value, str) else value
        if not isinstance(key, (bool, str, type(None))) or key not in FLAG_WORDS:
            raise ValueError
        return FLAG_WORDS[key]

    return Kind(parse, "true or false", "", is_flag=True)


def octal(value: Any) -> int:
    number = int(value, 8) if isinstance(value, str) else whole(value)
    if not 0 <= number <= 0o777:
        raise ValueError
    return number


def is_content(value: str) -> bool:
    name, equals, folder = value.partition("=")
    return bool(equals and folder and name.replace("-", "").replace("_", "").isalnum())


def is_variable(value: str) -> bool:
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        return False
    return value.partition("=")[1] == "=" and not value.startswith("=") and "\0" not in value


def is_host_port(value: str) -> bool:
    host, colon, port = value.rpartition(":")
    return bool(colon) and port.isdigit() and 0 < int(port) < 65536 and "/" not in host


def read_script_name(value: Any) -> str:
    """Return SCRIPT_NAME as PEP 3333 wants it: empty, or with a slash at its start and none at its end."""
    if not isinstance(value, str) or not value.isprintable() or (value and value[0] != "/"):
        raise ValueError
    return value.rstrip("/")


# Preloading is what gunicorn's flag `--preload` asks for; here it is the way things are, unless
# the app cannot bear it.
PRELOAD = choice(
    "auto", "always", "never", aliases={True: "always", False: "never", None: "auto", "": "auto"}
)
WORKER_CLASSES = choice(
    "threads", aliases={"sync": "threads", "gthread": "threads", "gunicorn.workers.sync.SyncWorker":
    "threads", "gunicorn.workers.gthread.ThreadWorker": "threads"}
)  # fmt: skip


# -- the table --------------------------------------------------------------------------------


def setting(
    *flags: str,
    kind: Kind,
    default: Any,
    section: str,
    help: str,
    environment: tuple[str, ...] = (),
    is_command: bool = False,
) -> Any:
    """Declare one setting; the field's name is its name in a config file."""
    row = {"flags": flags, "kind": kind, "section": section, "help": help,
           "environment": environment, "is_command": is_command}  # fmt: skip
    return field(default=default, metadata=row)


APP, SOCKET, PROCESSES, TIMES, LIMITS, PROXY, LOGGING, OPERATION, COMMANDS = (
    "App", "Server socket", "Processes", "Times", "Limits", "Behind a proxy", "Logs and metrics",
    "Operation", "Commands",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Options:
    """All settings, checked. Attributes have the names that a gunicorn config file uses."""

    # App
    wsgi_app: str = setting(
        kind=text("MODULE:CALLABLE, as in shop.wsgi:application", "APP"),
        default="",
        section=APP,
        help="The app, MODULE:CALLABLE or MODULE:FACTORY(); the callable's name is 'application' when left out.",
    )
    config: str = setting(
        "-c", "--config",
        kind=text("a path, file:PATH or python:MODULE", "FILE"),
        default="",
        section=APP,
        help="Config file in Python, as gunicorn's. Without it ./prefork.conf.py, then ./gunicorn.conf.py is read if there is one.",
    )  # fmt: skip
    chdir: str = setting(
        "--chdir",
        kind=text("a directory", "DIR"),
        default="",
        section=APP,
        help="Directory to change to before the app is imported; it leads sys.path.",
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
        help="Import the app once per generation, in the mold from which workers are forked. auto: unless the import leaves threads running. --preload alone means always.",
    )

    # Server socket
    bind: tuple[str, ...] = setting(
        "-b", "--bind",
        kind=texts("HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N", "ADDRESS"),
        default=("127.0.0.1:8000",),
        section=SOCKET,
        help="Address to listen on: HOST:PORT, [IPV6]:PORT, unix:PATH or fd://N; repeatable. Sockets passed by systemd replace it; with PORT in the environment the default is 0.0.0.0:$PORT.",
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
        help="How a worker runs the app. gunicorn's sync and gthread mean threads.",
    )  # fmt: skip
    threads: int = setting(
        "--threads",
        kind=integer(1, 256),
        default=1,
        section=PROCESSES,
        help="App threads per worker; slow clients occupy none of them.",
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
        help="Time one request may take in the app: then 504 if nothing was sent, the stack in the log, and a new worker.",
    )  # fmt: skip
    graceful_timeout: float = setting(
        "--graceful-timeout",
        kind=seconds(0.1, 86400),
        default=30.0,
        section=TIMES,
        help="Time running requests get when a worker leaves (stop, reload, recycling).",
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
        help="Longest pause between two pieces of a request body.",
    )
    write_timeout: float = setting(
        "--write-timeout",
        kind=seconds(0.1, 3600),
        default=60.0,
        section=TIMES,
        help="Longest time a client may take none of a response.",
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
        kind=integer(64, 65536),
        default=8190,
        section=LIMITS,
        help="Bytes of a request line.",
    )
    limit_request_fields: int = setting(
        "--limit-request-fields",
        kind=integer(1, 1000),
        default=100,
        section=LIMITS,
        help="Fields of a request's head.",
    )
    limit_request_field_size: int = setting(
        "--limit-request-field_size", "--limit-request-field-size",
        kind=size(64, 65536),
        default=8190,
        section=LIMITS,
        help="Bytes of one field of a request's head.",
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
        help="Bytes of a request body; more is answered with 413.",
    )
    worker_connections: int = setting(
        "--worker-connections",
        kind=integer(1, 100_000),
        default=10_000,
        section=LIMITS,
        help="Connections that one worker holds, less where the limit of open files is lower; "
        "further ones wait in the accept queue.",
    )

    # Behind a proxy
    forwarded_allow_ips: tuple[str, ...] = setting(
        "--forwarded-allow-ips",
        kind=texts("addresses, networks or * separated by commas", "IP,…"),
        default=("127.0.0.1", "::1"),
        section=PROXY,
        help="Peers whose X-Forwarded-* fields are believed; * for all.",
        environment=("FORWARDED_ALLOW_IPS",),
    )
    script_name: str = setting(
        "--root-path", "--script-name",
        kind=Kind(read_script_name, "a path that begins with /", "PATH"),
        default="",
        section=PROXY,
        help="SCRIPT_NAME: the path below which the app is published.",
        environment=("SCRIPT_NAME",),
    )  # fmt: skip

    # Logs and metrics
    accesslog: str = setting(
        "--access-logfile",
        kind=text("a path, or - for standard output", "FILE"),
        default="",
        section=LOGGING,
        help="Access log, a JSON object per line; - is standard output. Off when empty.",
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
        kind=choice("debug", "info", "warning", "error", "critical"),
        default="info",
        section=LOGGING,
        help="Least level that is logged.",
    )
    metrics: str = setting(
        "--metrics",
        kind=text("HOST:PORT", "HOST:PORT", accept=is_host_port),
        default="",
        section=LOGGING,
        help="Start the agent as a child: /metrics, /livez, /readyz and /status on this address (needs prefork[agent]).",
    )

    # Operation
    run_dir: str = setting(
        "--run-dir",
        kind=text("a directory", "DIR"),
        default="",
        section=OPERATION,
        help="Where the stats table and the control socket lie. Default: $XDG_RUNTIME_DIR/prefork-PID, or a private directory under /tmp.",
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
        help="Check the settings, import the app, and exit: 0 when both are good.",
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


def to_setting(column: Field[Any]) -> Setting:
    row = column.metadata
    assert column.default is not MISSING
    return Setting(
        name=column.name,
        flags=row["flags"],
        kind=row["kind"],
        default=column.default,
        section=row["section"],
        help=row["help"],
        also_environment=row["environment"],
        is_command=row["is_command"],
    )


SETTINGS: tuple[Setting, ...] = tuple(to_setting(column) for column in fields(Options))

# What a reload may change; the rest belongs to the arbiter's start (sockets, files, run directory).
FIXED_AT_START = frozenset({
    "config", "chdir", "bind", "backlog", "umask", "accesslog", "errorlog", "metrics", "run_dir", "content",
    "pidfile", "check_config", "print_config",
})  # fmt: skip


# -- what gunicorn has and prefork has not ----------------------------------------------------


class Foreign(NamedTuple):
    """A setting of gunicorn's that is not supported: named in a warning, or refused."""

    name: str
    flags: tuple[str, ...]
    takes_value: bool
    remedy: str
    # Where going on without it would be unsafe (plain text instead of TLS, root instead of www-data).
    is_refused: bool = False


TLS = "prefork speaks plain HTTP; let the proxy in front end TLS"
IDENTITY = "start prefork as the user it is to run as (systemd User=, runAsUser in a pod)"
LOOSE = "prefork reads requests by RFC 9112 only"
HTTP2 = "prefork speaks HTTP/1.1; let the proxy in front speak HTTP/2"
ASGI = "prefork runs WSGI apps only"
LOGS = "the server logs key=value lines; the app's own logging is not touched"
STATSD = "read /metrics of the agent (--metrics)"
DIRTY = "run background work in a process of its own"

FOREIGN: tuple[Foreign, ...] = (
    Foreign("user", ("-u", "--user"), True, IDENTITY, is_refused=True),
    Foreign("group", ("-g", "--group"), True, IDENTITY, is_refused=True),
    Foreign("initgroups", ("--initgroups",), False, IDENTITY, is_refused=True),
    Foreign("certfile", ("--certfile",), True, TLS, is_refused=True),
    Foreign("keyfile", ("--keyfile",), True, TLS, is_refused=True),
    Foreign("ssl_version", ("--ssl-version",), True, TLS),
    Foreign("cert_reqs", ("--cert-reqs",), True, TLS, is_refused=True),
    Foreign("ca_certs", ("--ca-certs",), True, TLS, is_refused=True),
    Foreign("suppress_ragged_eofs", ("--suppress-ragged-eofs",), False, TLS),
    Foreign("do_handshake_on_connect", ("--do-handshake-on-connect",), False, TLS),
    Foreign("ciphers", ("--ciphers",), True, TLS, is_refused=True),
    Foreign("ssl_context", (), True, TLS, is_refused=True),
    Foreign("daemon", ("-D", "--daemon"), False, "leave it to systemd or a container", is_refused=True),
    Foreign("proxy_protocol", ("--proxy-protocol",), False, "let the proxy send X-Forwarded-For", is_refused=True),
    Foreign("proxy_allow_ips", ("--proxy-allow-from",), True, "let the proxy send X-Forwarded-For"),
    Foreign("protocol", ("--protocol",), True, "only http is spoken", is_refused=True),
    Foreign("uwsgi_allow_ips", ("--uwsgi-allow-from",), True, "only http is spoken"),
    Foreign("paste", ("--paste", "--paster"), True, "name the app as MODULE:CALLABLE", is_refused=True),
    Foreign("raw_paste_global_conf", ("--paste-global",), True, "name the app as MODULE:CALLABLE"),
    Foreign("secure_scheme_headers", (), True, "X-Forwarded-Proto of trusted peers sets wsgi.url_scheme"),
    Foreign("forwarder_headers", ("--forwarder-headers",), True, "use --script-name"),
    Foreign("header_map", ("--header-map",), True, "names with an underscore are dropped always"),
    Foreign("permit_obsolete_folding", ("--permit-obsolete-folding",), False, LOOSE),
    Foreign("strip_header_spaces", ("--strip-header-spaces",), False, LOOSE),
    Foreign("permit_unconventional_http_method", ("--permit-unconventional-http-method",), False, LOOSE),
    Foreign("permit_unconventional_http_version", ("--permit-unconventional-http-version",), False, LOOSE),
    Foreign("casefold_http_method", ("--casefold-http-method",), False, LOOSE),
    Foreign("http_parser", ("--http-parser",), True, LOOSE),
    Foreign("reload", ("--reload",), False, "send HUP after a change, or use `wsgiapp run`"),
    Foreign("reload_engine", ("--reload-engine",), True, "send HUP after a change"),
    Foreign("reload_extra_files", ("--reload-extra-file",), True, "send HUP after a change"),
    Foreign("spew", ("--spew",), False, "use a debugger or sys.settrace in the app"),
    Foreign("sendfile", ("--no-sendfile",), False, "wsgi.file_wrapper is used whenever it helps"),
    Foreign("reuse_port", ("--reuse-port",), False, "all workers share one accept queue, which balances better"),
    Foreign("worker_tmp_dir", ("--worker-tmp-dir",), True, "workers write no heartbeat files"),
    Foreign("tmp_upload_dir", (), True, "request bodies are streamed to the app"),
    Foreign("access_log_format", ("--access-logformat",), True, "the access log is JSON"),
    Foreign("disable_redirect_access_to_syslog", ("--disable-redirect-access-to-syslog",), False, LOGS),
    Foreign("capture_output", ("--capture-output",), False, "what the app prints goes where it wrote it"),
    Foreign("enable_stdio_inheritance", ("-R", "--enable-stdio-inheritance"), False, "it is always so"),
    Foreign("logger_class", ("--logger-class",), True, LOGS),
    Foreign("logconfig", ("--log-config",), True, LOGS),
    Foreign("logconfig_dict", (), True, LOGS),
    Foreign("logconfig_json", ("--log-config-json",), True, LOGS),
    Foreign("syslog", ("--log-syslog",), False, "let systemd or the container runtime take the log"),
    Foreign("syslog_addr", ("--log-syslog-to",), True, "let systemd or the container runtime take the log"),
    Foreign("syslog_prefix", ("--log-syslog-prefix",), True, "let systemd or the container runtime take the log"),
    Foreign("syslog_facility", ("--log-syslog-facility",), True, "let systemd or the container runtime take the log"),
    Foreign("statsd_host", ("--statsd-host",), True, STATSD),
    Foreign("dogstatsd_tags", ("--dogstatsd-tags",), True, STATSD),
    Foreign("statsd_prefix", ("--statsd-prefix",), True, STATSD),
    Foreign("enable_backlog_metric", ("--enable-backlog-metric",), False, STATSD),
    Foreign("proc_name", ("-n", "--name"), True, "processes are named prefork-…"),
    Foreign("default_proc_name", (), True, "processes are named prefork-…"),
    Foreign("http_protocols", ("--http-protocols",), True, HTTP2),
    Foreign("http2_cleartext", ("--http2-cleartext",), True, HTTP2),
    Foreign("http2_max_concurrent_streams", ("--http2-max-concurrent-streams",), True, HTTP2),
    Foreign("http2_initial_window_size", ("--http2-initial-window-size",), True, HTTP2),
    Foreign("http2_max_frame_size", ("--http2-max-frame-size",), True, HTTP2),
    Foreign("http2_max_header_list_size", ("--http2-max-header-list-size",), True, HTTP2),
    Foreign("asgi_loop", ("--asgi-loop",), True, ASGI),
    Foreign("asgi_lifespan", ("--asgi-lifespan",), True, ASGI),
    Foreign("asgi_disconnect_grace_period", ("--asgi-disconnect-grace-period",), True, ASGI),
    Foreign("websocket_max_message_size", ("--websocket-max-message-size",), True, ASGI),
    Foreign("dirty_apps", ("--dirty-app",), True, DIRTY),
    Foreign("dirty_workers", ("--dirty-workers",), True, DIRTY),
    Foreign("dirty_timeout", ("--dirty-timeout",), True, DIRTY),
    Foreign("dirty_threads", ("--dirty-threads",), True, DIRTY),
    Foreign("dirty_graceful_timeout", ("--dirty-graceful-timeout",), True, DIRTY),
    Foreign("control_socket", ("--control-socket",), True, "it is control.sock in --run-dir"),
    Foreign("control_socket_mode", ("--control-socket-mode",), True, "it is control.sock in --run-dir"),
    Foreign("control_socket_disable", ("--no-control-socket",), False, "it is control.sock in --run-dir"),
)  # fmt: skip

# Server hooks of a config file that are called, and those that are only named in a warning.
HOOKS = (
    "on_starting", "on_reload", "when_ready", "pre_fork", "post_fork", "post_worker_init", "worker_int",
    "worker_abort", "child_exit", "worker_exit", "nworkers_changed", "on_exit",
)  # fmt: skip
FOREIGN_HOOKS = (
    "pre_exec", "pre_request", "post_request", "on_dirty_starting", "dirty_post_fork",
    "dirty_worker_init", "dirty_worker_exit",
)  # fmt: skip


if __name__ == "__main__":
    import sys

    from prefork.config.reference import render

    sys.stdout.write(render())
