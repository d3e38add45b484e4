"""The mold of a generation: imports the app once, freezes it, forks workers on request.

It never serves, has no threads, and holds nothing of a worker but the copy it forks from. When its
channel ends it waits for its workers, then ends as the process that imported the app does: with
what the import registered for that (`atexit`).
"""

import faulthandler
import gc
import io
import os
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from typing import IO, Any

from prefork.base import (
    children,
    exit_functions,
    fd_limits,
    log_sink,
    messages,
    processes,
    shared_counts,
)
from prefork.base.channel import Channel
from prefork.base.log import Log
from prefork.base.logfiles import LogFiles
from prefork.base.signals import set_handler
from prefork.base.tracebacks import describe_failure
from prefork.config.environment import replace_environment
from prefork.config.options import Options
from prefork.errors import Exit, StartupError
from prefork.worker import gunicorn_loggers
from prefork.worker.app_import import (
    WsgiApp,
    enter_directory,
    enter_versions,
    extend_search_path,
)
from prefork.worker.boot import Inheritance, run_worker
from prefork.worker.fork_safety import summarize
from prefork.worker.holdings import own_children
from prefork.worker.hooks import HookApp, Hooks, HookServer, HookWorker, never_imported
from prefork.worker.import_end import end_import
from prefork.worker.import_limit import ImportLimit
from prefork.worker.inspection import Imported, import_and_inspect
from prefork.worker.loop import SIGNALS
from prefork.worker.spool_report import report_unusable_spool


@dataclass(frozen=True)
class Mold:
    """What the arbiter gives a mold."""

    generation: int
    preload: bool
    channel: Channel
    options: Options
    hooks: Hooks
    environment: Mapping[str, str]
    started_in: Path  # where the arbiter works
    directory: Path  # to work in
    versions: Mapping[Path, Path]  # of each content folder the real path that this generation loads
    server: HookServer
    log: Log
    logfiles: LogFiles
    stats: int  # descriptor of the stats table
    own_addresses: tuple[bool, ...]  # of each listener that comes with an order, see `Inheritance`
    import_limit: ImportLimit | None
    stack_fd: int  # a file for the stack, should the mold hang or crash


def run_mold(mold: Mold, forget: Callable[[], None]) -> int:
    """Be the mold; `forget` closes what belongs to the arbiter alone."""
    forget()
    log_sink.begin_process(log_sink.PATIENCE_S)
    processes.name_process("prefork-mold")
    take_settings(mold)
    gunicorn_loggers.install(mold.log, mold.options, mold.logfiles.access_fd)
    disregard_signals(set(children.NUMBERS) - {signal.SIGCHLD})
    children.undo_in_children(mold.channel.close)
    children.undo_in_children(log_sink.leave_all)
    children.close_in_children(mold.stack_fd)
    # On SIGABRT, which the arbiter sends when an import takes too long, and on any crash.
    faulthandler.enable(file=mold.stack_fd, all_threads=False)
    try:
        enter_directory(mold.directory, mold.started_in)
    except StartupError as error:
        return end_failed(mold, error)
    enter_versions(mold.versions)
    extend_search_path(mold.options.pythonpath, mold.versions)
    # Once per generation.
    report_unusable_spool(mold.options, mold.log, generation=mold.generation)
    app: WsgiApp | None = None
    started: tuple[int, ...] = ()
    if mold.preload:
        try:
            app, started = preload(mold)
        except UnsafePreload as unsafe:
            mold.channel.send(messages.PreloadUnsafe(messages.shorten(str(unsafe))))
            return end_import(unsafe.children, mold.stack_fd)
        except BaseException as error:
            return end_failed(mold, error)
        disregard_signals(
            SIGNALS
        )  # the import may have set handlers of its own; others are its own affair
    mold.channel.send(messages.MoldReady(list(started)))
    return serve_forks(mold, app)


def end_failed(mold: Mold, error: BaseException) -> int:
    """Report why no app is imported here, and end; return the exit code."""
    started = own_children()
    failure = messages.shorten(describe_failure(error))
    mold.channel.send(messages.BootFailed(failure, list(started)))
    return end_import(started, mold.stack_fd, Exit.APP)


def disregard_signals(numbers: Iterable[signal.Signals]) -> None:
    """When a mold ends is the arbiter's decision, though Ctrl-C and `systemctl stop` reach the whole group.

    Not SIG_IGN: programs that the app starts would inherit that.
    """
    for number in numbers:
        set_handler(number, lambda *_: None)


def report_replaced_handlers(mold: Mold) -> None:
    """Log which handlers of the app will never be called."""
    replaced = [number.name for number in SIGNALS if not children.is_handled_here(number)]
    if replaced:
        mold.log.warning(
            "a signal handler of the app is not called, the server ends its workers itself: use atexit or the hook worker_exit",
            generation=mold.generation,
            signals=replaced,
        )


def take_settings(mold: Mold) -> None:
    """Let this process and its workers have what the arbiter has only once the generation serves."""
    replace_environment(mold.environment)
    mold.hooks.imports.adopt()
    mold.log.set_level(mold.options.loglevel)
    mold.server.set_cfg(mold.options)
    mold.server.WORKERS = {}
    fd_limits.allow_open_files(mold.options.worker_connections)


class UnsafePreload(Exception):  # noqa: N818 - nothing failed
    """The app's import left what processes must not share."""

    def __init__(self, imported: Imported) -> None:
        super().__init__(summarize(imported.hazards))
        self.children = imported.children


def preload(mold: Mold) -> tuple[WsgiApp, tuple[int, ...]]:
    """Import the app and move it out of the garbage collector's reach; return it with the children it has started.

    A collection writes into every object it visits, and each written page would be copied in each
    worker; what is frozen stays shared (gc.freeze).
    """
    started = time.monotonic()
    with mold.import_limit.held() if mold.import_limit else nullcontext():
        imported = import_and_inspect(mold.options.wsgi_app, worker_class=mold.options.worker_class)
    report_replaced_handlers(mold)
    if imported.hazards and mold.options.preload_app != "always":
        raise UnsafePreload(imported)
    if imported.hazards:
        mold.log.warning(
            "the import holds what processes must not share, workers share it all the same (--preload)",
            found=summarize(imported.hazards),
        )  # fmt: skip
    processes.flush(*buffered_streams())
    gc.unfreeze()  # what the app has frozen, and what CPython does of what is immortal: both look at all objects
    exit_functions.note_destructors()
    shared_counts.keep_counts()
    gc.freeze()
    mold.log.info(
        "app imported", generation=mold.generation, pid=os.getpid(), seconds=time.monotonic() - started
    )  # fmt: skip
    return imported.app, imported.children


def serve_forks(mold: Mold, app: WsgiApp | None) -> int:
    """Fork a worker for each order, until the arbiter closes the channel; then outlive the workers."""
    # Held open by each worker: its end is when the last of them has ended.
    workers_gone, held_by_workers = os.pipe()
    while True:
        received = mold.channel.receive()
        if received is None:
            break
        message, descriptors = received
        match message:
            case messages.Fork():
                fork_worker(mold, app, message, descriptors, held_by_workers)
            case messages.ReopenLogs():
                mold.logfiles.reopen()
    if app is None:
        processes.exit_now(Exit.OK)
    os.close(held_by_workers)
    os.read(workers_gone, 1)
    return end_import((), mold.stack_fd)


def buffered_streams() -> list[IO[Any]]:
    """Return the streams that may hold what the import has printed, also those that it has replaced since."""
    kinds = (io.TextIOWrapper, io.BufferedWriter)
    return [stream for stream in gc.get_objects() if issubclass(type(stream), kinds)]


def fork_worker(
    mold: Mold,
    app: WsgiApp | None,
    order: messages.Fork,
    descriptors: list[int],
    held: int,
) -> None:
    """Fork the worker and give it what came with the order; here it is closed again."""
    channel_end, send_end, receive_end, *listeners = descriptors
    channel = Channel.adopt(channel_end)
    inheritance = Inheritance(
        tuple(listeners), mold.stats, (send_end, receive_end),
        tuple(compress(listeners, mold.own_addresses)), held,
    )  # fmt: skip
    worker = HookWorker(mold.options, mold.log, age=order.worker, ppid=mold.server.pid)
    server = mold.server
    server.app = worker.app = HookApp(never_imported, app, mold.options)
    server.worker_age = order.worker
    server.WORKERS = {age: known for age, known in server.WORKERS.items() if age in order.living}
    mold.hooks.call("pre_fork", server, worker)
    server.WORKERS[worker.age] = worker

    def role() -> int:
        mold.channel.close()
        return run_worker(
            app, channel, slot=order.slot, generation=mold.generation, options=mold.options,
            hooks=mold.hooks, server=mold.server, worker=worker, log=mold.log,
            logfiles=mold.logfiles, inheritance=inheritance,
        )  # fmt: skip

    try:
        processes.fork_orphan(role)
    except OSError as error:
        # The arbiter sees the channel close; it counts as a crash and is tried again.
        mold.log.error("worker not forked", why=error)
    channel.close()
    children.close_all((send_end, receive_end, *listeners))
