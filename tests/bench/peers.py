"""The servers of the benchmark: how each is started for one worker, and what it can do.

Every server runs on the same Python with the same packages, keeps its defaults where they do not
change the comparison, and is told the same: one worker, one application thread, keep-alive, no
access log. Where a server has two ways that fit, each is its own row.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
APPS = Path(__file__).parent / "apps"
BUILD = ROOT / "build" / "bench"
OURS = "prefork"

_CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "wsgiapp"
VENV = Path(os.environ.get("WSGIAPP_CACHE", _CACHE)) / "bench"
PYTHON = VENV / "bin" / "python"


@dataclass(frozen=True, kw_only=True)
class Server:
    """One row of the tables.

    `command`: its words; `{app}` is MODULE:CALLABLE, `{port}` a free port on 127.0.0.1, and a first
    word that is no absolute path lies in the peers' environment. `distribution`: whose version is shown.
    `is_supervised`: another process replaces a worker that dies. `has_reload`: HUP loads new code.
    """

    name: str
    distribution: str
    command: str
    is_supervised: bool = False
    has_reload: bool = False

    def argv(self, *, app: str, port: int) -> list[str]:
        log = BUILD / "logs" / "access.log"
        first, *rest = self.command.format(app=app, port=port, log=log).split()
        return [str(VENV / "bin" / first), *rest]


# No server: what the kernel's TCP costs any of them, see floor.c.
FLOOR = Server(name="C epoll loop", distribution="", command=f"{BUILD / 'floor'} {{port}}")

_GUNICORN = "gunicorn -w 1 -b 127.0.0.1:{port} --keep-alive 75 --log-level warning"
_LAUNCHER = f"python {Path(__file__).parent / 'serve.py'}"

SERVERS = (
    Server(
        name=OURS,
        distribution="prefork",
        command="python -m prefork -w 1 --threads 1 -b 127.0.0.1:{port} {app}",
        is_supervised=True,
        has_reload=True,
    ),
    Server(
        name="bjoern",
        distribution="bjoern",
        command=f"{_LAUNCHER} bjoern {{port}} {{app}}",
    ),
    Server(
        name="fastwsgi",
        distribution="fastwsgi",
        command=f"{_LAUNCHER} fastwsgi {{port}} {{app}}",
    ),
    Server(
        name="fastpysgi",
        distribution="fastpysgi",
        command=f"{_LAUNCHER} fastpysgi {{port}} {{app}}",
    ),
    Server(
        name="granian",
        distribution="granian",
        command=(
            "granian --interface wsgi --http 1 --no-ws --workers 1 --blocking-threads 1"
            " --respawn-failed-workers --log-level warning --host 127.0.0.1 --port {port} {app}"
        ),
        is_supervised=True,
        has_reload=True,
    ),
    Server(
        name="uWSGI",
        distribution="pyuwsgi",
        command=(
            f"uwsgi --binary-path {PYTHON} --http 127.0.0.1:{{port}} --http-keepalive=75 --master"
            " --die-on-term --need-app --processes 1 --disable-logging --module {app}"
        ),
        is_supervised=True,
        has_reload=True,
    ),
    Server(
        name="waitress",
        distribution="waitress",
        command="waitress-serve --threads=1 --listen=127.0.0.1:{port} {app}",
    ),
    Server(
        name="gunicorn gthread",
        distribution="gunicorn",
        command=f"{_GUNICORN} -k gthread --threads 1 {{app}}",
        is_supervised=True,
        has_reload=True,
    ),
    Server(
        name="gunicorn sync",
        distribution="gunicorn",
        command=f"{_GUNICORN} -k sync {{app}}",
        is_supervised=True,
        has_reload=True,
    ),
)

# The same with an access log, each in its server's usual format, to a file: what a line costs.
_LOG_OPTIONS = {
    OURS: ("-w 1", "-w 1 --access-logfile {log}"),
    "granian": ("--respawn", "--access-log --respawn"),
    "uWSGI": ("--disable-logging", "--logto {log}"),
    "gunicorn gthread": ("--log-level", "--access-logfile {log} --log-level"),
}
LOGGING = tuple(
    replace(server, command=server.command.replace(*_LOG_OPTIONS[server.name]))
    for server in SERVERS
    if server.name in _LOG_OPTIONS
)

# Compared with each other only: another kind of worker, for apps that wait.
GREENLET_SERVERS = (
    Server(
        name="prefork gevent",
        distribution="prefork",
        command="python -m prefork -w 1 -k gevent -b 127.0.0.1:{port} {app}",
    ),
    Server(
        name="gunicorn gevent",
        distribution="gunicorn",
        command=f"{_GUNICORN} -k gevent {{app}}",
    ),
)


def environment(server: Server, *, apps: Path) -> dict[str, str]:
    """The environment a server starts with, `apps` importable; the source tree for prefork alone."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith(("PREFORK_", "GRANIAN_"))}
    variables["PYTHONDONTWRITEBYTECODE"] = "1"
    paths = [str(apps)]
    if server.distribution == OURS:
        paths.append(str(ROOT / "server" / "src"))
    variables["PYTHONPATH"] = os.pathsep.join(paths)
    return variables


def versions() -> dict[str, str]:
    """Versions by distribution, of what is installed in the peers' environment, and `prefork`'s."""
    script = (
        "from importlib.metadata import distributions as d\n"
        "for x in d(): print(x.name.lower(), x.version)"
    )
    listed = subprocess.run(
        [PYTHON, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    found = dict(line.split() for line in listed.splitlines())
    head = subprocess.run(
        ["git", "-C", ROOT, "describe", "--always", "--dirty"],
        check=False,
        capture_output=True,
        text=True,
    ).stdout.strip()
    found["prefork"] = f"commit {head}" if head else "this tree"
    return found


def left_out() -> dict[str, str]:
    """Peers that could not be installed, each with its reason (written by install-peers)."""
    lines = (VENV / "left-out").read_text().splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line)
