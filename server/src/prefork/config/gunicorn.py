"""What gunicorn has and prefork does not, and the names of its server hooks."""

import grp
import os
import pwd
from typing import Any, NamedTuple


class UnsupportedSetting(NamedTuple):
    """A setting of gunicorn's that is not supported: named in a warning, or refused."""

    name: str
    flags: tuple[str, ...]
    takes_value: bool
    remedy: str
    # Where going on without it would be unsafe (plain text instead of TLS, root instead of www-data).
    is_unsafe_to_ignore: bool = False


TLS = "prefork serves plain HTTP; terminate TLS at the proxy in front of it"
IDENTITY = "start prefork as the user it should run as (systemd User=, runAsUser in a pod); that user itself may be named"
LOOSE = "prefork reads requests by RFC 9112 only"
HTTP2 = "prefork serves HTTP/1.1; terminate HTTP/2 at the proxy in front of it"
ASGI = "prefork runs WSGI apps only"
LOGS = "see --log-format; the app's own logging is not touched"
STATSD = "read /metrics of the agent (--metrics)"
DIRTY = "run background work in a process of its own"
PASTE = """name the app as 'paste.deploy:loadapp("config:/srv/shop/production.ini")'"""

UNSUPPORTED: tuple[UnsupportedSetting, ...] = (
    UnsupportedSetting("user", ("-u", "--user"), True, IDENTITY, is_unsafe_to_ignore=True),
    UnsupportedSetting("group", ("-g", "--group"), True, IDENTITY, is_unsafe_to_ignore=True),
    UnsupportedSetting("initgroups", ("--initgroups",), False, IDENTITY, is_unsafe_to_ignore=True),
    UnsupportedSetting("certfile", ("--certfile",), True, TLS, is_unsafe_to_ignore=True),
    UnsupportedSetting("keyfile", ("--keyfile",), True, TLS, is_unsafe_to_ignore=True),
    UnsupportedSetting("ssl_version", ("--ssl-version",), True, TLS),
    UnsupportedSetting("cert_reqs", ("--cert-reqs",), True, TLS, is_unsafe_to_ignore=True),
    UnsupportedSetting("ca_certs", ("--ca-certs",), True, TLS, is_unsafe_to_ignore=True),
    UnsupportedSetting("suppress_ragged_eofs", ("--suppress-ragged-eofs",), False, TLS),
    UnsupportedSetting("do_handshake_on_connect", ("--do-handshake-on-connect",), False, TLS),
    UnsupportedSetting("ciphers", ("--ciphers",), True, TLS, is_unsafe_to_ignore=True),
    UnsupportedSetting("ssl_context", (), True, TLS, is_unsafe_to_ignore=True),
    UnsupportedSetting("daemon", ("-D", "--daemon"), False, "leave it to systemd or a container", is_unsafe_to_ignore=True),
    UnsupportedSetting("proxy_protocol", ("--proxy-protocol",), False, "let the proxy send X-Forwarded-For", is_unsafe_to_ignore=True),
    UnsupportedSetting("proxy_allow_ips", ("--proxy-allow-from",), True, "let the proxy send X-Forwarded-For"),
    UnsupportedSetting("protocol", ("--protocol",), True, "only HTTP is supported", is_unsafe_to_ignore=True),
    UnsupportedSetting("uwsgi_allow_ips", ("--uwsgi-allow-from",), True, "only HTTP is supported"),
    UnsupportedSetting("paste", ("--paste", "--paster"), True, PASTE, is_unsafe_to_ignore=True),
    UnsupportedSetting("raw_paste_global_conf", ("--paste-global",), True, "name the app as 'paste.deploy:loadapp(…, global_conf={…})'"),
    UnsupportedSetting("secure_scheme_headers", (), True, "X-Forwarded-Proto of trusted peers sets wsgi.url_scheme"),
    UnsupportedSetting("forwarder_headers", ("--forwarder-headers",), True, "SCRIPT_NAME of the proxies that --forwarded-allow-ips lists is taken"),
    UnsupportedSetting("header_map", ("--header-map",), True, "names with an underscore are dropped, but for SCRIPT_NAME of a proxy that --forwarded-allow-ips lists"),
    UnsupportedSetting("permit_obsolete_folding", ("--permit-obsolete-folding",), False, LOOSE),
    UnsupportedSetting("strip_header_spaces", ("--strip-header-spaces",), False, LOOSE),
    UnsupportedSetting("permit_unconventional_http_method", ("--permit-unconventional-http-method",), False, LOOSE),
    UnsupportedSetting("permit_unconventional_http_version", ("--permit-unconventional-http-version",), False, LOOSE),
    UnsupportedSetting("casefold_http_method", ("--casefold-http-method",), False, LOOSE),
    UnsupportedSetting("http_parser", ("--http-parser",), True, LOOSE),
    UnsupportedSetting("reload", ("--reload",), False, "send HUP after a change, or use `wsgiapp run`"),
    UnsupportedSetting("reload_engine", ("--reload-engine",), True, "send HUP after a change"),
    UnsupportedSetting("reload_extra_files", ("--reload-extra-file",), True, "send HUP after a change"),
    UnsupportedSetting("spew", ("--spew",), False, "use a debugger or sys.settrace in the app"),
    UnsupportedSetting("sendfile", ("--no-sendfile",), False, "wsgi.file_wrapper is used whenever it helps"),
    UnsupportedSetting("reuse_port", ("--reuse-port",), False, "all workers share one accept queue, which balances better"),
    UnsupportedSetting("worker_tmp_dir", ("--worker-tmp-dir",), True, "workers write no heartbeat files"),
    UnsupportedSetting("tmp_upload_dir", (), True, "use --spool-dir"),
    UnsupportedSetting("disable_redirect_access_to_syslog", ("--disable-redirect-access-to-syslog",), False, LOGS),
    UnsupportedSetting("capture_output", ("--capture-output",), False, "what the app prints goes where it wrote it"),
    UnsupportedSetting("enable_stdio_inheritance", ("-R", "--enable-stdio-inheritance"), False, "it is always on"),
    UnsupportedSetting("logger_class", ("--logger-class",), True, LOGS),
    UnsupportedSetting("logconfig", ("--log-config",), True, LOGS),
    UnsupportedSetting("logconfig_dict", (), True, LOGS),
    UnsupportedSetting("logconfig_json", ("--log-config-json",), True, LOGS),
    UnsupportedSetting("syslog", ("--log-syslog",), False, "let systemd or the container runtime collect the log"),
    UnsupportedSetting("syslog_addr", ("--log-syslog-to",), True, "let systemd or the container runtime collect the log"),
    UnsupportedSetting("syslog_prefix", ("--log-syslog-prefix",), True, "let systemd or the container runtime collect the log"),
    UnsupportedSetting("syslog_facility", ("--log-syslog-facility",), True, "let systemd or the container runtime collect the log"),
    UnsupportedSetting("statsd_host", ("--statsd-host",), True, STATSD),
    UnsupportedSetting("dogstatsd_tags", ("--dogstatsd-tags",), True, STATSD),
    UnsupportedSetting("statsd_prefix", ("--statsd-prefix",), True, STATSD),
    UnsupportedSetting("enable_backlog_metric", ("--enable-backlog-metric",), False, STATSD),
    UnsupportedSetting("proc_name", ("-n", "--name"), True, "processes are named prefork-…"),
    UnsupportedSetting("default_proc_name", (), True, "processes are named prefork-…"),
    UnsupportedSetting("http_protocols", ("--http-protocols",), True, HTTP2),
    UnsupportedSetting("http2_cleartext", ("--http2-cleartext",), True, HTTP2),
    UnsupportedSetting("http2_max_concurrent_streams", ("--http2-max-concurrent-streams",), True, HTTP2),
    UnsupportedSetting("http2_initial_window_size", ("--http2-initial-window-size",), True, HTTP2),
    UnsupportedSetting("http2_max_frame_size", ("--http2-max-frame-size",), True, HTTP2),
    UnsupportedSetting("http2_max_header_list_size", ("--http2-max-header-list-size",), True, HTTP2),
    UnsupportedSetting("asgi_loop", ("--asgi-loop",), True, ASGI),
    UnsupportedSetting("asgi_lifespan", ("--asgi-lifespan",), True, ASGI),
    UnsupportedSetting("asgi_disconnect_grace_period", ("--asgi-disconnect-grace-period",), True, ASGI),
    UnsupportedSetting("websocket_max_message_size", ("--websocket-max-message-size",), True, ASGI),
    UnsupportedSetting("dirty_apps", ("--dirty-app",), True, DIRTY),
    UnsupportedSetting("dirty_workers", ("--dirty-workers",), True, DIRTY),
    UnsupportedSetting("dirty_timeout", ("--dirty-timeout",), True, DIRTY),
    UnsupportedSetting("dirty_threads", ("--dirty-threads",), True, DIRTY),
    UnsupportedSetting("dirty_graceful_timeout", ("--dirty-graceful-timeout",), True, DIRTY),
    UnsupportedSetting("control_socket", ("--control-socket",), True, "it is control.sock in --run-dir"),
    UnsupportedSetting("control_socket_mode", ("--control-socket-mode",), True, "it is control.sock in --run-dir"),
    UnsupportedSetting("control_socket_disable", ("--no-control-socket",), False, "it is control.sock in --run-dir"),
)  # fmt: skip

# What hooks find in gunicorn's `cfg` where nothing sets it, as far as that is neither None nor False.
DEFAULTS: dict[str, Any] = {
    "suppress_ragged_eofs": True,
    "cert_reqs": 0,
    "ssl_options": {},
    "proxy_allow_ips": ["127.0.0.1", "::1"],
    "protocol": "http",
    "uwsgi_allow_ips": ["127.0.0.1", "::1"],
    "raw_paste_global_conf": [],
    "paste_global_conf": {},
    "secure_scheme_headers": {"X-FORWARDED-PROTOCOL": "ssl", "X-FORWARDED-PROTO": "https", "X-FORWARDED-SSL": "on"},
    "forwarder_headers": ["SCRIPT_NAME", "PATH_INFO"],
    "header_map": "drop",
    "http_parser": "auto",
    "reload_engine": "auto",
    "reload_extra_files": [],
    "sendfile": True,
    "access_log_format": '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
    "logconfig_dict": {},
    "syslog_addr": "udp://localhost:514",
    "syslog_facility": "user",
    "dogstatsd_tags": "",
    "statsd_prefix": "",
    "proc_name": "gunicorn",
    "default_proc_name": "gunicorn",
    "is_ssl": False,
}  # fmt: skip


def is_so_already(name: str, value: Any) -> bool:
    """Whether this process is the user, or has the group, that gunicorn would change to: there is nothing to do then."""
    if type(value) not in (str, int):
        return False
    text = str(value)
    number = int(text) if text.isascii() and text.isdigit() else None
    try:
        if name == "user":
            return os.geteuid() == (pwd.getpwnam(text).pw_uid if number is None else number)
        if name == "group":
            return os.getegid() == (grp.getgrnam(text).gr_gid if number is None else number)
    except (KeyError, ValueError):  # no such user; a NUL in it
        return False
    return False


class HookSetting(NamedTuple):
    """A setting as gunicorn's `cfg.settings` has them."""

    name: str
    value: Any

    def get(self) -> Any:
        return self.value


def to_address(bind: str) -> tuple[str, int] | str:
    """Return one of `bind` as gunicorn's `cfg.address` has it: host and port, or a path; pure."""
    if bind.startswith("unix:"):
        return bind.removeprefix("unix:").removeprefix("//")
    host, _, port = bind.removeprefix("tcp://").rpartition(":")
    return (host.strip("[]") or "0.0.0.0", int(port)) if port.isdigit() else bind


def find_default(name: str) -> Any:
    """Return what gunicorn's `cfg` has for a setting that is not supported; AttributeError for no such setting."""
    if name in ("user", "uid"):
        return os.geteuid()
    if name in ("group", "gid"):
        return os.getegid()
    if name in DEFAULTS:
        return DEFAULTS[name]
    for entry in UNSUPPORTED:
        if entry.name == name:
            return None if entry.takes_value else False
    raise AttributeError(f"cfg has no setting {name}; docs/options.md lists those there are")


# Server hooks of a config file that are called, and those that are only named in a warning.
HOOKS = (
    "on_starting", "on_reload", "when_ready", "pre_fork", "post_fork", "post_worker_init", "worker_int",
    "worker_abort", "child_exit", "worker_exit", "nworkers_changed", "on_exit",
)  # fmt: skip
UNSUPPORTED_HOOKS = (
    "pre_exec", "pre_request", "post_request", "on_dirty_starting", "dirty_post_fork",
    "dirty_worker_init", "dirty_worker_exit",
)  # fmt: skip
