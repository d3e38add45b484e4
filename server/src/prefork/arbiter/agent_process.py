"""The agent as the arbiter's child, for `--metrics` (in a pod it is a sidecar of its own)."""

import os
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path

from prefork.base import processes
from prefork.base.log import Log
from prefork.base.processes import Ended
from prefork.config.options import Options
from prefork.errors import Exit

# Reasons that will be the same the next time.
PERMANENT = (Exit.USAGE, Exit.LISTEN, Exit.ENVIRONMENT)
RETRY_S = 2.0


class AgentProcess:
    """Starts the agent, starts it again when it crashes, stops it at the end."""

    def __init__(
        self, options: Options, run_dir: Path, log: Log, sockets: Iterable[socket.socket]
    ) -> None:
        address = find_tcp_address(sockets)
        self.command = agent_command(options, run_dir, address) if options.metrics else []
        self.log = log
        self.pid = 0
        self.start_at: float | None = None

    def start(self, now: float) -> None:
        if not self.command:
            return
        self.start_at = None
        try:
            self.pid = processes.spawn(self.command, os.environ)
        except OSError as error:
            self.log.error("agent not started", why=error.strerror)
            self.start_at = now + RETRY_S

    def ended(self, ended: Ended, now: float) -> None:
        self.pid = 0
        if ended.exit_code in PERMANENT:
            self.log.error("agent ended, not started again", how=ended.how)
            return
        self.log.warning("agent ended, started again", how=ended.how, in_s=RETRY_S)
        self.start_at = now + RETRY_S

    def restart_if_due(self, now: float) -> None:
        if self.start_at is not None and now >= self.start_at:
            self.start(now)

    def stop(self) -> None:
        if self.pid:
            processes.kill(self.pid, signal.SIGTERM)


def find_tcp_address(sockets: Iterable[socket.socket]) -> str:
    """Return HOST:PORT of the first TCP listener, "" when there is none."""
    for sock in sockets:
        if sock.family == socket.AF_INET:
            return "{}:{}".format(*sock.getsockname())
        if sock.family == socket.AF_INET6:
            return "[{}]:{}".format(*sock.getsockname())
    return ""


def agent_command(options: Options, run_dir: Path, address: str) -> list[str]:
    """Return the agent's argv; `address` is where the app can be asked for its health.

    The package may be outside the import path of a new process.
    """
    root = str(Path(__file__).absolute().parent.parent.parent)
    program = (
        f"import sys; sys.path.insert(0, {root!r}); from prefork.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-P", "-c", program, "agent", "--listen", options.metrics]
    command += ["--run-dir", str(run_dir), "--parent", str(os.getpid())]
    command += ["--log-format", options.log_format]
    if options.health_path and address:
        command += ["--probe", f"http://{address}{options.health_path}"]
        command += ["--probe-host", options.health_host]
    for pair in options.content:
        command += ["--content", pair]
    return command
