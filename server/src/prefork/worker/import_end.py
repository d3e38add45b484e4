"""The end of a process that has imported the app, whether the import succeeded or not.

What the import registered for that is carried out, and the children that it started end.
"""

import contextlib
import faulthandler
import gc
import os
import signal
import sys
import threading
import time
from typing import NoReturn

from prefork.base import exit_functions, processes
from prefork.base.signals import set_handler
from prefork.errors import Exit
from prefork.worker.holdings import own_children

# Bound before the app is imported: gevent puts a function in its place that needs its hub.
_sleep = time.sleep

# For what the import registered for the end of the process, and for children that it started.
END_S = 5
CHILDREN_END_S = 1.0
# The child that removes shared memory is a Python program that comes to its end: on a busy machine that takes a while.
TRACKER_END_S = 4.0


def end_import(started: tuple[int, ...], stack_fd: int, code: Exit = Exit.OK) -> Exit:
    """End as the process that imported the app; return `code`, with which it is to exit.

    As `run_exit_functions`, and destructors have as long again.
    """
    run_exit_functions(started, stack_fd, code)
    # What is left are destructors, and the interpreter's own end, where handlers do not run any more.
    gc.unfreeze()
    set_handler(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, END_S)
    exit_functions.run_destructors()
    end_tracker()
    return code


def end_check(started: tuple[int, ...], stack_fd: int, code: Exit = Exit.OK) -> NoReturn:
    """As `end_import`, and exit with `code` whatever hangs."""
    run_exit_functions(started, stack_fd, code)
    signal.setitimer(signal.ITIMER_REAL, END_S)
    exit_functions.note_destructors()
    exit_functions.run_destructors()
    end_tracker()
    processes.exit_now(code)


def run_exit_functions(started: tuple[int, ...], stack_fd: int, code: Exit) -> None:
    """Carry out what is registered for the end of the process; then the import's children, `started`, end.

    Functions that hang are left after END_S, and the process exits with `code`; those that hang in C code a
    little later, where no handler of a signal runs, with their stack in `stack_fd`.
    """

    def leave(*_: object) -> NoReturn:
        last_s = 2 * CHILDREN_END_S + TRACKER_END_S + 1  # anew: what follows has its own bounds
        faulthandler.dump_traceback_later(last_s, exit=True, file=stack_fd)
        end_children(started)
        end_tracker()
        processes.exit_now(code)

    faulthandler.dump_traceback_later(END_S + 2 * CHILDREN_END_S + 1, exit=True, file=stack_fd)
    set_handler(signal.SIGALRM, leave)
    signal.setitimer(signal.ITIMER_REAL, END_S)
    exit_functions.run()
    signal.setitimer(signal.ITIMER_REAL, 0)
    others = (t for t in threading.enumerate() if t is not threading.main_thread())
    if any(not thread.daemon for thread in others):  # Python would wait for it
        leave()
    end_children(started)


def tracker_pid() -> int | None:
    """Return the pid of the child in which `multiprocessing` notes shared memory and semaphores, to remove what is left of
    them when this process ends; None without one."""
    known = sys.modules.get("multiprocessing.resource_tracker")
    pid: int | None = getattr(getattr(known, "_resource_tracker", None), "_pid", None)
    return pid


def end_tracker() -> None:
    """Let that child do its work now: a name that is left would be in the way of the next import."""
    pid = tracker_pid()
    if pid is None:
        return
    tracker = sys.modules["multiprocessing.resource_tracker"]._resource_tracker
    with contextlib.suppress(OSError, TypeError):  # the app has stopped it
        os.close(tracker._fd)
        tracker._fd = None
    deadline = time.monotonic() + TRACKER_END_S
    while pid in own_children() and time.monotonic() < deadline:
        _sleep(0.005)


def end_children(pids: tuple[int, ...]) -> None:
    """End these children; one that does not end by SIGTERM in time is killed.

    An exit function may have waited for one, whose pid may be another process' since. The one that removes what the
    others leave ignores SIGTERM, and ends last, with this process.
    """
    pids = tuple(pid for pid in pids if pid != tracker_pid())
    for number, until in ((signal.SIGTERM, CHILDREN_END_S), (signal.SIGKILL, CHILDREN_END_S)):
        for pid in still_running(pids):
            processes.kill(pid, number)
        deadline = time.monotonic() + until
        while still_running(pids) and time.monotonic() < deadline:
            _sleep(0.01)


def still_running(pids: tuple[int, ...]) -> set[int]:
    """Return which of these are children of this process that run."""
    return set(pids).intersection(own_children()) if pids else set()
