"""The mold of a generation: imports the app once, freezes it, forks workers on request.

It never serves, has no threads, and holds nothing of a worker but the copy it forks from. It ends
when its channel does.
"""

import faulthandler
import gc
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from prefork.base import messages, processes
from prefork.base.channel import Channel
from prefork.base.log import Log
from prefork.base.logfiles import LogFiles
from prefork.base.tracebacks import describe_failure
from prefork.config.options import Options
from prefork.errors import Exit
from prefork.worker.app_import import WsgiApp, extend_search_path, import_app, running_threads
from prefork.worker.boot import Inheritance, run_worker
from prefork.worker.hooks import Hooks, HookServer, HookWorker


@dataclass(frozen=True)
class Mold:
    """What the arbiter gives a mold."""

    generation: int
    preload: bool
    channel: Channel
    options: Options
    hooks: Hooks
    server: HookServer
    log: Log
    logfiles: LogFiles
    inheritance: Inheritance
    stack_fd: int  # a file for the stack, should the mold hang or crash


def run_mold(mold: Mold, forget: Callable[[], None]) -> int:
    """Be the mold; `forget` closes what belongs to the arbiter alone."""
    forget()
    processes.name_process("prefork-mold")
    # Ctrl-C in a terminal and `systemctl stop` reach the whole group; when a mold ends is the
    # arbiter's decision. Not SIG_IGN: programs that the app starts would inherit that.
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
    ):
        signal.signal(number, lambda *_: None)
    # On SIGABRT, which the arbiter sends when an import takes too long, and on any crash.
    faulthandler.enable(file=mold.stack_fd, all_threads=False)
    extend_search_path(mold.options.pythonpath)
    app: WsgiApp | None = None
    if mold.preload:
        try:
            app = preload(mold)
        except UnsafePreload as unsafe:
            mold.channel.send(messages.PreloadUnsafe(messages.shorten(str(unsafe))))
            # Threads are running, maybe ones that never end: do not wait for them.
            processes.exit_now(Exit.OK)
        except BaseException as error:
            mold.channel.send(messages.BootFailed(messages.shorten(describe_failure(error))))
            processes.exit_now(Exit.APP)
    mold.channel.send(messages.MoldReady())
    return serve_forks(mold, app)


class UnsafePreload(Exception):  # noqa: N818 - nothing failed
    """The app's import left threads running."""


def preload(mold: Mold) -> WsgiApp:
    """Import the app and move it out of the garbage collector's reach.

    A collection writes into every object it visits, and each written page would be copied in each
    worker; what is frozen stays shared (gc.freeze).
    """
    started = time.monotonic()
    app = import_app(mold.options.wsgi_app)
    threads = running_threads()
    if threads and mold.options.preload_app != "always":
        raise UnsafePreload(", ".join(threads))
    if threads:
        mold.log.warning(
            "the import left threads running, workers will not have them",
            threads=", ".join(threads),
        )
    gc.collect()
    gc.freeze()
    mold.log.info(
        "app imported", generation=mold.generation, pid=os.getpid(), seconds=time.monotonic() - started
    )  # fmt: skip
    return app


def serve_forks(mold: Mold, app: WsgiApp | None) -> int:
    """Fork a worker for each request, until the arbiter closes the channel."""
    while True:
        received = mold.channel.receive()
        if received is None:
            processes.exit_now(Exit.OK)
        message, descriptors = received
        match message:
            case messages.Fork():
                fork_worker(mold, app, message, descriptors[0])
            case messages.ReopenLogs():
                mold.logfiles.reopen()


def fork_worker(mold: Mold, app: WsgiApp | None, order: messages.Fork, descriptor: int) -> None:
    """Fork the worker and give it its end of the channel to the arbiter."""
    channel = Channel.adopt(descriptor)
    worker = HookWorker(mold.options, mold.log, age=order.worker, ppid=mold.server.pid)
    mold.hooks.call("pre_fork", mold.server, worker)

    def role() -> int:
        mold.channel.close()
        return run_worker(
            app, channel, slot=order.slot, generation=mold.generation, options=mold.options,
            hooks=mold.hooks, server=mold.server, worker=worker, log=mold.log,
            logfiles=mold.logfiles, inheritance=mold.inheritance,
        )  # fmt: skip

    try:
        processes.fork_orphan(role)
    except OSError as error:
        # The arbiter sees the channel close; it counts as a crash and is tried again.
        mold.log.error("worker not forked", why=error)
    channel.close()
