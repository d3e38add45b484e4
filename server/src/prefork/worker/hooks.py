"""Calls the server hooks of a config file with objects that have what gunicorn's have.

A hook that raises is reported and the server goes on, except where gunicorn's would stop the worker
as well (`post_fork`, `post_worker_init`): there the exception is the boot's failure.
"""

import os
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prefork.base.log import Log
from prefork.config.imports import Imports
from prefork.config.options import Options


@dataclass
class HookServer:
    """The `server` of a hook: gunicorn's arbiter, as far as hooks use it."""

    cfg: Options
    log: Log
    pid: int
    address: tuple[str, ...]
    num_workers: int


@dataclass
class HookWorker:
    """The `worker` of a hook."""

    cfg: Options
    log: Log
    age: int  # serial number, never used twice
    pid: int = 0
    ppid: int = 0
    booted: bool = False
    alive: bool = True

    def set_pids(self) -> None:
        self.pid = os.getpid()
        self.ppid = os.getppid()


class Hooks:
    """The hooks of one config file; a missing one does nothing."""

    def __init__(
        self, functions: Mapping[str, Callable[..., Any]], log: Log, imports: Imports
    ) -> None:
        self.functions = functions
        self.log = log
        self.imports = imports

    def call(self, name: str, *arguments: Any) -> None:
        """Call a hook; what it raises is logged."""
        try:
            self.call_or_raise(name, *arguments)
        except Exception:
            self.log.error("hook failed", hook=name)
            self.log.block(traceback.format_exc())

    def call_or_raise(self, name: str, *arguments: Any) -> None:
        """Call a hook whose failure is its caller's."""
        function = self.functions.get(name)
        if function is not None:
            with self.imports.lent():
                function(*arguments)
