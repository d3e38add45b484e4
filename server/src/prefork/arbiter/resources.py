"""What the arbiter owns from its start to its end."""

from dataclasses import dataclass

from prefork.arbiter.listeners import Listener
from prefork.base.log import Log
from prefork.base.logfiles import LogFiles
from prefork.base.run_dir import RunDir
from prefork.base.stats import Table
from prefork.base.systemd import Notifier
from prefork.worker.hooks import HookServer


@dataclass(frozen=True)
class Resources:
    """Opened by `start`, used by all parts of the arbiter."""

    log: Log
    logfiles: LogFiles
    listeners: list[Listener]
    run_dir: RunDir
    table: Table
    stats_fd: int
    server: HookServer
    notifier: Notifier
    workers_max: int
