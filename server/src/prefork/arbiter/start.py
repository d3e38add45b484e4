"""Starts the server: opens what the arbiter owns, runs it, cleans up."""

import os
import traceback
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from re import fullmatch

from prefork import __version__
from prefork._engine import set_child_subreaper
from prefork.arbiter.leftovers import open_after_leftovers
from prefork.arbiter.listeners import open_listeners, remove_files
from prefork.arbiter.loop import Arbiter
from prefork.arbiter.resources import Resources
from prefork.base import fd_limits, processes, shared_counts, streams
from prefork.base.log import Log
from prefork.base.logfiles import LogFiles
from prefork.base.run_dir import open_run_dir
from prefork.base.stats import create_table
from prefork.base.systemd import Notifier, own_variables, passed_descriptors
from prefork.config.config_file import Move
from prefork.config.environment import replace_environment
from prefork.config.options import MAX_WORKERS
from prefork.config.sources import Configuration
from prefork.errors import Exit, StartupError
from prefork.worker import gunicorn_loggers
from prefork.worker.hooks import HookServer

# Longer than workers outlive a killed arbiter: a call that never ends is given up after their graceful timeout.
LEFTOVERS_S = 5.0
# At the end, for the reader of the log.
LAST_LINES_S = 0.5


def run(configuration: Configuration, log: Log, *, reread: Callable[[Move], Configuration]) -> int:
    """Serve until stopped; return the exit code."""
    options = configuration.options
    logfiles = LogFiles(errorlog=options.errorlog, accesslog=options.accesslog)
    # Nobody else waits for the arbiter's lines, but all workers depend on the arbiter.
    log = Log(logfiles.errors_fd, options.loglevel, options.log_format, patience_s=0.0)
    if log.style == "json":
        streams.install(log.sink, patience_s=0.0)
    log.set_up_loggers = lambda: gunicorn_loggers.install(log, options, logfiles.access_fd)
    environment = dict(os.environ)
    passed = passed_descriptors(environment, os.getpid())
    replace_environment(own_variables(environment))
    with ExitStack() as leftovers:  # of a start that fails
        listeners = open_after_leftovers(
            lambda: open_listeners(
                options.bind, passed=passed, backlog=options.backlog, umask=options.umask
            ),
            log,
            within_s=options.graceful_timeout + LEFTOVERS_S,
        )
        leftovers.callback(remove_files, listeners)
        run_dir = open_run_dir(options.run_dir, environment)
        leftovers.callback(run_dir.remove)
        pidfile = write_pidfile(options.pidfile)
        leftovers.callback(remove_pidfile, pidfile)
        workers_max = most_workers(options.worker_count())
        table, stats_fd = create_table(
            run_dir.stats,
            worker_slots=2 * workers_max + 4,
            bounds_us=[round(bound * 1e6) for bound in options.duration_buckets],
            keeps_exemplars=options.exemplars,
            previous=run_dir.stats_of_last_run,
        )
        set_child_subreaper()
        fd_limits.allow_open_files(options.worker_connections)
        processes.name_process("prefork-arbiter")
        server = HookServer(
            options, log, os.getpid(), tuple(listener.name for listener in listeners), options.worker_count(),
            [listener.sock for listener in listeners],
        )  # fmt: skip
        log.info(
            "prefork starting", version=__version__, pid=os.getpid(), app=options.wsgi_app,
            listening=",".join(listener.name for listener in listeners), workers=options.worker_count(),
            threads=options.threads, run_dir=run_dir.path,
        )  # fmt: skip
        arbiter = Arbiter(
            replace(configuration, options=options),
            Resources(
                log,
                logfiles,
                listeners,
                run_dir,
                table,
                stats_fd,
                server,
                Notifier(environment),
                workers_max,
            ),
            reread,
        )
        leftovers.pop_all()

    def role() -> int:
        try:
            code = arbiter.run()
        except Exception:
            # Workers see the end of their channels, finish what they do, and end.
            log.critical("arbiter failed", traceback=traceback.format_exc())
            code = Exit.BUG
        log.sink.finish(LAST_LINES_S)
        run_dir.remove(keeps_counters=True)
        remove_pidfile(pidfile)
        return code

    shared_counts.keep_counts()
    return processes.run_role(role)


def most_workers(workers: int) -> int:
    """Return how far TTIN and a reload can raise the number of workers without a restart."""
    return min(MAX_WORKERS, max(2 * workers, workers + 8))


def write_pidfile(named: str) -> Path | None:
    """Write our pid; refuse when the file names a process that is alive."""
    if not named:
        return None
    path = Path(named).absolute()
    try:
        old = path.read_text(errors="replace").strip() if path.exists() else ""
        if (
            fullmatch("[0-9]{1,9}", old)
            and int(old) != os.getpid()
            and Path(f"/proc/{old}").exists()
        ):
            message = (
                f"pidfile is {named}; process {old} in it is alive: stop it or remove the file"
            )
            raise StartupError(message, Exit.ENVIRONMENT)
        try:
            path.write_text(f"{os.getpid()}\n")
        except OSError:
            remove_empty(path)
            raise
    except OSError as error:
        message = f"pidfile is {named}; it cannot be written: {error.strerror}"
        raise StartupError(message, Exit.ENVIRONMENT) from None
    return path


def remove_empty(path: Path) -> None:
    """Remove a file that had no room for its text."""
    with suppress(OSError):
        if path.is_file() and not path.stat().st_size:
            path.unlink()


def remove_pidfile(path: Path | None) -> None:
    """Remove our pidfile; one that another server has written meanwhile is its own."""
    if path is None:
        return
    with suppress(OSError):
        if path.read_text(errors="replace").strip() == str(os.getpid()):
            path.unlink()
