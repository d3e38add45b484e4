"""Calls the server hooks of a config file with objects that have what gunicorn's have.

A hook that raises is reported and the server goes on, except where gunicorn would not: a failed `on_starting` ends the start
(`Arbiter.call_on_starting`), what `post_fork` or `post_worker_init` raise is the failure of the worker's boot.
"""

import contextlib
import functools
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import IO, Any, NoReturn

from prefork.base.children import NUMBERS
from prefork.base.log import Log
from prefork.config.imports import Imports
from prefork.config.options import Options
from prefork.worker.app_import import WsgiApp


class HookApp:
    """The `app` of hooks: `wsgi()` returns the app's callable, imported once, where this process may have it."""

    def __init__(
        self,
        load: Callable[[], WsgiApp],
        callable: WsgiApp | None = None,
        cfg: Options | None = None,
    ) -> None:
        self.load = load
        self.callable = callable
        self.cfg = cfg

    def wsgi(self) -> WsgiApp:
        if self.callable is None:
            self.callable = self.load()
        return self.callable


def never_imported() -> NoReturn:
    raise RuntimeError(
        "the app is not imported in this process; use the hook post_fork or post_worker_init"
    )


class HookTmp:
    """The `tmp` of a hook's worker. Its own file is how gunicorn's worker shows that it is alive; the engine does it here."""

    def notify(self) -> None:
        return

    def last_update(self) -> float:
        return time.monotonic()

    def fileno(self) -> int:
        return self.file.fileno()

    def close(self) -> None:
        return

    @functools.cached_property
    def file(self) -> IO[bytes]:
        import tempfile  # brings shutil in

        return tempfile.TemporaryFile()


def start_context() -> dict[Any, Any]:
    """Return what gunicorn keeps of its start."""
    return {"args": sys.argv[:], "cwd": os.environ.get("PWD", ""), 0: sys.executable}


@dataclass
class HookServer:
    """The `server` of a hook: gunicorn's arbiter, as far as hooks use it."""

    cfg: Options
    log: Log
    pid: int
    address: tuple[str, ...]
    num_workers: int
    LISTENERS: list[Any] = field(default_factory=list)  # the sockets of the addresses
    app: HookApp = field(default_factory=lambda: HookApp(never_imported))
    # By pid; in a mold, which knows no pids, the living ones that it has forked, by `age`.
    WORKERS: dict[int, "HookWorker"] = field(default_factory=dict)
    worker_age: int = 0  # of the newest worker
    master_pid: int = 0
    proc_name: str = "prefork"
    master_name: str = "Master"
    reexec_pid: int = 0
    dirty_arbiter_pid: int = 0
    systemd: bool = False
    pidfile: None = None
    START_CTX: dict[Any, Any] = field(default_factory=start_context)
    SIGNALS: tuple[signal.Signals, ...] = NUMBERS

    def __post_init__(self) -> None:
        self.set_cfg(self.cfg)

    def set_cfg(self, cfg: Options) -> None:
        """Have the settings of another generation."""
        self.cfg = self.app.cfg = cfg

    @property
    def timeout(self) -> float:
        return self.cfg.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self.cfg.set("timeout", seconds)

    @property
    def worker_class(self) -> type["HookWorker"]:
        return HookWorker

    def reload(self) -> None:
        """As HUP: what it leads to follows once the hook has returned."""
        os.kill(self.pid, signal.SIGHUP)

    def stop(self, graceful: bool = True) -> None:
        """As TERM, or QUIT: what it leads to follows once the hook has returned."""
        os.kill(self.pid, signal.SIGTERM if graceful else signal.SIGQUIT)

    def kill_worker(self, pid: int, sig: int) -> None:
        """Send a worker a signal; a number that is no worker's pid, or not known here as one, is ignored."""
        if pid and any(worker.pid == pid for worker in self.WORKERS.values()):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sig)

    def kill_workers(self, sig: int) -> None:
        for worker in tuple(self.WORKERS.values()):
            self.kill_worker(worker.pid, sig)


@dataclass
class HookWorker:
    """The `worker` of a hook."""

    cfg: Options
    log: Log
    age: int  # serial number, never used twice
    pid: int = 0
    ppid: int = 0
    booted: bool = False
    is_alive: bool = field(default=True, repr=False)
    aborted: bool = False
    reloader: None = None
    app: HookApp = field(default_factory=lambda: HookApp(never_imported))
    tmp: HookTmp = field(default_factory=HookTmp, repr=False)
    sockets: list[Any] = field(default_factory=list, repr=False)  # empty: the engine accepts
    count_requests: Callable[[], int] = field(default=lambda: 0, repr=False)
    own_max_requests: int | None = field(default=None, repr=False)  # that a hook has set
    nr_before: int = field(default=0, repr=False)
    PIPE: list[int] = field(default_factory=list, repr=False)
    SIGNALS: tuple[signal.Signals, ...] = field(default=NUMBERS, repr=False)

    def __post_init__(self) -> None:
        self.app.cfg = self.cfg

    @property
    def alive(self) -> bool:
        return self.is_alive

    @alive.setter
    def alive(self, alive: bool) -> None:
        """False, set in the worker itself, lets it finish its requests and leave; it is replaced, as after a TERM."""
        if self.is_alive and not alive and self.pid == os.getpid():
            os.kill(self.pid, signal.SIGTERM)
        self.is_alive = alive

    @property
    def max_requests(self) -> int:
        """How many requests it may answer; sys.maxsize for any number. What the jitter adds is not known here."""
        if self.own_max_requests is not None:
            return self.own_max_requests
        return self.cfg.max_requests or sys.maxsize

    @max_requests.setter
    def max_requests(self, most: int) -> None:
        self.own_max_requests = most

    def init_signals(self) -> None:
        """Nothing to do: the server sets its handlers after the hooks of the boot."""

    def notify(self) -> None:
        """Nothing to do: a worker that boots is given --boot-timeout, whatever it says."""

    @property
    def nr(self) -> int:
        """Requests that it has answered."""
        return self.count_requests() - self.nr_before

    @nr.setter
    def nr(self, count: int) -> None:
        self.nr_before = self.count_requests() - count

    @property
    def wsgi(self) -> WsgiApp:
        return self.app.wsgi()

    @property
    def timeout(self) -> float:
        return self.cfg.timeout

    @timeout.setter
    def timeout(self, seconds: float) -> None:
        self.cfg.set("timeout", seconds)

    def __str__(self) -> str:
        return f"<Worker {self.pid}>"

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
            self.log.error("hook failed", hook=name, traceback=traceback.format_exc())

    def call_or_raise(self, name: str, *arguments: Any) -> None:
        """Call a hook whose failure is its caller's."""
        function = self.functions.get(name)
        if function is not None:
            with self.imports.lent():
                function(*arguments)
