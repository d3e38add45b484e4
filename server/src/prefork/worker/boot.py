"""Boots a worker: imports the app if the mold did not, builds the engine, starts the app threads, runs the loop."""

import contextlib
import faulthandler
import os
import random
import sys
import threading
import traceback
from dataclasses import dataclass
from functools import partial
from typing import Any

from prefork import __version__
from prefork._engine import Engine, end_with
from prefork.base import (
    children,
    exit_functions,
    fd_limits,
    log_sink,
    messages,
    processes,
    spool_dir,
)
from prefork.base.channel import Channel
from prefork.base.log import Log
from prefork.base.logfiles import LogFiles
from prefork.base.signals import SignalSocket
from prefork.base.stats import count_requests
from prefork.base.tracebacks import describe_failure, last_line
from prefork.config.access_log import Compiled, compile_format
from prefork.config.options import MAX_FIELDS, Options
from prefork.errors import Exit
from prefork.worker.app_import import WsgiApp
from prefork.worker.error_report import ErrorReport
from prefork.worker.fork_safety import summarize
from prefork.worker.health import ask_health
from prefork.worker.holdings import own_children
from prefork.worker.hooks import HookApp, Hooks, HookServer, HookWorker
from prefork.worker.import_context import ImportContext
from prefork.worker.import_end import run_exit_functions
from prefork.worker.inspection import import_and_inspect
from prefork.worker.loop import SIGNALS, LoopParts, WorkerLoop

# After a graceful timeout without an arbiter, for a worker that is just about to end by itself.
LAST_WAY_OUT_S = 1.0


@dataclass(frozen=True)
class Inheritance:
    """Descriptors that a worker begins with."""

    listeners: tuple[int, ...]
    stats: int
    handover: tuple[int, int]  # send end, receive end
    own_addresses: tuple[
        int, ...
    ]  # those of the listeners that no other program may go on to serve
    held: int  # open as long as the worker lives: by this its mold sees the end of it


def run_worker(
    app: WsgiApp | None,
    channel: Channel,
    *,
    slot: int,
    generation: int,
    options: Options,
    hooks: Hooks,
    server: HookServer,
    worker: HookWorker,
    log: Log,
    logfiles: LogFiles,
    inheritance: Inheritance,
) -> int:
    """Be a worker until drained or stopped; `app` is None where each worker imports for itself."""
    signals = SignalSocket(SIGNALS)  # what arrives during the boot is done after it
    log_sink.begin_process(log_sink.PATIENCE_S)
    children.undo_in_children(signals.close_in_child)
    children.undo_in_children(log_sink.leave_all)
    channel.send(messages.WorkerSpawned(os.getpid()))
    processes.name_process("prefork-worker")
    await_begin(channel, logfiles)
    faulthandler.enable(file=log.fd)
    worker.set_pids()
    children.undo_in_children(channel.close)
    children.close_in_children(*inheritance.listeners, *inheritance.handover, inheritance.held)
    seed_numpy()
    ready = messages.WorkerReady()

    def load() -> WsgiApp:
        nonlocal ready
        loaded, ready = import_here(options)
        return loaded

    server.app = worker.app = HookApp(load, app, options)
    worker.count_requests = partial(count_requests, inheritance.stats, slot)
    try:
        hooks.call_or_raise("post_fork", server, worker)
        app = worker.app.wsgi()
        hooks.call_or_raise("post_worker_init", worker)
        settings = engine_settings(options, slot=slot, generation=generation)
        if worker.own_max_requests is not None:
            settings["max_requests"] = own_limit(worker.own_max_requests)
        if logfiles.access_fd >= 0:
            settings["access_log_lock_fd"] = log.sink.lock_for(logfiles.access_fd)
        engine = Engine(
            app,
            listeners=inheritance.listeners,
            settings=settings,
            stats_fd=inheritance.stats,
            slot=slot,
            report_error=ErrorReport(log, options),
            access_log_fd=logfiles.access_fd,
            handover=inheritance.handover,
        )
        end_with(
            channel=channel.fileno(),
            listeners=inheritance.own_addresses,
            within_s=options.graceful_timeout + LAST_WAY_OUT_S,
        )
    except BaseException as error:
        failure = describe_failure(error)
        log.error(
            "worker did not boot", pid=os.getpid(), generation=generation, error=last_line(failure)
        )
        started = own_children()
        channel.send(messages.BootFailed(messages.shorten(failure), list(started)))
        run_exit_functions(started, log.fd, Exit.APP)
        exit_functions.spare_inherited()
        return Exit.APP
    signals.install()  # the import may have set handlers of its own
    exit_functions.end_record()
    worker.booted = True
    channel.send(ready)
    parts = LoopParts(
        engine=engine, channel=channel, signals=signals, options=options, hooks=hooks, worker=worker, log=log,
        logfiles=logfiles, listeners=inheritance.listeners, handover=inheritance.handover,
    )  # fmt: skip

    def leave(loop: WorkerLoop) -> int:
        worker.is_alive = False
        with contextlib.suppress(SystemExit):  # it ends now anyway, in the order below
            hooks.call("worker_exit", server, worker)
        if loop.skip_cleanup:
            processes.exit_now(Exit.OK)
        if loop.is_memory_short:
            # Without the interpreter's own end, which visits every object to free it: each page that the worker shares
            # with its mold would be copied for that. Python does not promise destructors at exit.
            exit_functions.run_all()
            processes.exit_now(Exit.OK)
        exit_functions.spare_inherited()
        return Exit.OK

    context = ImportContext()
    if options.worker_class == "gevent":
        # Imported here: only this worker class needs gevent.
        from prefork.worker.gevent_loop import run_with_hub

        health = partial(ask_health, app, log, options, settings)
        return leave(run_with_hub(parts, context, health, leave))
    # Not daemons: a thread that the app starts in a request would be one too, and end in the middle of its work.
    threads = [
        threading.Thread(
            target=context.copy().run, args=(serve, engine, log), name=f"app-{number}", daemon=False
        )
        for number in range(1, options.threads + 1)
    ]
    loop = WorkerLoop(
        threads=threads,
        ask_health=partial(
            ask_health, app, log, options, settings, partial(serve_in_thread, context)
        ),
        **parts,
    )
    loop.run()
    return leave(loop)


def await_begin(channel: Channel, logfiles: LogFiles) -> None:
    """Wait for the word to begin; exit if it does not come.

    A worker that its mold forks very late has been given up by then: its slot may be another's.
    """
    while True:
        received = channel.receive()
        match received and received[0]:
            case messages.Begin():
                return
            case messages.ReopenLogs():
                logfiles.reopen()
            case _:  # the end, or an order to leave: there is nothing to finish
                processes.exit_now(Exit.OK)


def import_here(options: Options) -> tuple[WsgiApp, messages.WorkerReady]:
    """Import the app in this worker; return it with what the arbiter has to know of the import.

    What of it could not be shared, "" for nothing, decides whether the next generation is preloaded, so that no import
    is made only to find out.
    """
    imported = import_and_inspect(options.wsgi_app, worker_class=options.worker_class)
    unsafe = None
    if options.preload_app != "never":
        unsafe = messages.shorten(summarize(imported.hazards))
    return imported.app, messages.WorkerReady(unsafe, list(imported.children))


def own_limit(most: int) -> int:
    """Return what a hook has set for `max_requests` as the engine takes it: 0 for any number."""
    return most if 0 < most < sys.maxsize else 0


def seed_numpy() -> None:
    """Seed numpy's own generator anew, as CPython does `random`'s after a fork: workers would draw the same numbers."""
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        numpy.seed()


def engine_settings(options: Options, *, slot: int, generation: int) -> dict[str, Any]:
    """Return the settings of one engine; the jitter is drawn here, once per worker."""
    max_requests = options.max_requests
    if max_requests:
        max_requests += random.randint(0, options.max_requests_jitter)
    has_hub = options.worker_class == "gevent"
    most_connections = fd_limits.most_connections(options.worker_connections)
    return {
        # A connection has one request at a time: so many greenlets are enough, and are made as they are needed.
        "threads": most_connections if has_hub else options.threads,
        "greenlets": has_hub,
        "keep_alive_s": options.keepalive,
        "request_timeout_s": options.timeout,
        "header_timeout_s": options.header_timeout,
        "body_timeout_s": options.body_timeout,
        "min_body_rate": options.min_body_rate,
        "write_timeout_s": options.write_timeout,
        "min_response_rate": options.min_response_rate,
        # 0: no limit but that of the whole head.
        "limit_request_line": options.limit_request_line or options.limit_head_bytes,
        "limit_request_fields": options.limit_request_fields or MAX_FIELDS,
        "limit_request_field_size": options.limit_request_field_size or options.limit_head_bytes,
        "limit_head_bytes": options.limit_head_bytes,
        "max_request_body": options.max_request_body,
        "stream_request_bodies": options.stream_request_bodies,
        "buffer_memory": options.buffer_memory,
        "spool_dir": spool_dir.resolve(options.spool_dir),
        "spool_size": options.spool_size,
        "max_requests": max_requests,
        "max_connections": most_connections,
        "forwarded_allow_ips": list(options.forwarded_allow_ips),
        "script_name": options.script_name,
        "server_software": f"prefork/{__version__}",
        "multiprocess": options.worker_count() > 1,
        "access_log": access_format(options, slot, generation) if options.accesslog else None,
        "access_log_lock_fd": -1,
        "hide_query_strings": options.hide_query_strings,
    }


def access_format(options: Options, slot: int, generation: int) -> Compiled:
    """Return the format of this worker's lines."""
    constants = {"pid": os.getpid(), "worker": slot, "generation": generation}
    return compile_format(options.access_log_format, options.access_log_fields, constants)


def serve_in_thread(context: ImportContext, engine: Engine) -> threading.Thread:
    """Return the app thread of an engine of one."""
    return threading.Thread(
        target=context.copy().run, args=(engine.serve,), name="health", daemon=True
    )


def serve(engine: Engine, log: Log) -> None:
    """Be one app thread."""
    try:
        engine.serve()
    except BaseException:
        # The engine answers the app's errors itself: this is a bug, and half a worker is worse than none.
        log.critical(
            "app thread ended", pid=os.getpid(), thread=threading.current_thread().name,
            traceback=traceback.format_exc(),
        )  # fmt: skip
        processes.exit_now(Exit.BUG)
