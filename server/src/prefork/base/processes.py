"""The only fork, kill and wait.

A forked child does not go on in the middle of its parent's call stack: `Become` unwinds it to
`run_role` at the bottom of the program, where the child begins its own role. So no frame, handler
or `finally` of the arbiter is left in a worker, and a worker ends as any Python program does
(`atexit` functions of the app included).
"""

import contextlib
import fcntl
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, NamedTuple, NoReturn

from prefork.base import children, exit_functions

# Bound before an app is imported: gevent puts functions in their place in `os` that need its hub, and make one.
_fork, _waitpid = os.fork, os.waitpid

STANDARD = (0, 1, 2)

Role = Callable[[], int]


class Become(BaseException):
    """Raised in a forked child: leave the parent's stack and take up this role."""

    def __init__(self, role: Role) -> None:
        self.role = role


def run_role(role: Role) -> int:
    """Run a role and whatever roles its forked children become; return the exit code."""
    while True:
        try:
            return role()
        except Become as change:
            role = change.role


def fork(role: Role) -> int:
    """Fork a child in `role`; return its pid. The parent has to reap it."""
    flush()
    with children.own_fork():
        pid = _fork()
    if pid == 0:
        begin()
        raise Become(role)
    return pid


def fork_orphan(role: Role) -> None:
    """Fork a child that becomes a child of the nearest subreaper (the arbiter), not of the caller.

    The child in between ends at once; its end hands the grandchild over (PR_SET_CHILD_SUBREAPER
    in prctl(2)). The grandchild itself says who it is.
    """
    # Imported here: the agent needs no engine.
    from prefork._engine import fork_twice

    flush()
    with children.own_fork():
        between = fork_twice()
    if between == 0:
        begin()
        raise Become(role)
    try:
        _, status = _waitpid(between, 0)
    except ChildProcessError:
        # The app ignores SIGCHLD, or waits for all children: no news of the child in between.
        return
    if status:
        raise OSError("fork failed: the limit of processes or of memory is reached")


def open_standard_descriptors() -> None:
    """Open those of 0, 1 and 2 that are closed, on /dev/null: a socket in their place would be taken for them."""
    for number in STANDARD:
        if not is_open(number):
            os.set_inheritable(
                os.open(os.devnull, os.O_RDWR), True
            )  # the lowest free number: this one


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def keep_standard_descriptors() -> Iterator[list[int]]:
    """Have 0, 1 and 2 open again afterwards; what is yielded then holds those that were closed meanwhile."""
    copies = {number: fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 3) for number in STANDARD}
    closed: list[int] = []
    try:
        yield closed
    finally:
        for number, copy in copies.items():
            # Whoever closed all there are has closed the copy too.
            with contextlib.suppress(OSError):
                if not is_open(number):
                    closed.append(number)
                    os.dup2(copy, number)
                os.close(copy)
        open_standard_descriptors()


def begin() -> None:
    """In a forked process of the server: nothing of its parent's is done at its end, or undone in its children."""
    children.own()
    exit_functions.forget_inherited()


def flush(*more: IO[Any]) -> None:
    """Write buffered output now, or both parent and child would."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__, *more):
        # Closed by the app, or a pipe whose reader is gone, or of a class of the app: nothing to do about it.
        with contextlib.suppress(Exception):
            if stream is not None:
                stream.flush()


class Ended(NamedTuple):
    """A child that is gone."""

    pid: int
    how: str
    is_signalled: bool
    exit_code: int


def reap() -> list[Ended]:
    """Return the children that have ended since, without waiting."""
    ended: list[Ended] = []
    while True:
        try:
            pid, status = _waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return ended
        if pid == 0:
            return ended
        code = os.waitstatus_to_exitcode(status)
        how = f"signal {signal_name(-code)}" if code < 0 else f"exit code {code}"
        ended.append(Ended(pid, how, code < 0, code))


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def kill(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that is already gone is ignored.

    So is pid 0, which stands for none: kill(2) would take it for the whole process group.
    """
    if not pid:
        return
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def spawn(command: list[str], environment: Mapping[str, str]) -> int:
    """Start another program; return its pid."""
    return os.posix_spawn(
        command[0], command, environment, setsigdef=[signal.SIGPIPE, signal.SIGINT, signal.SIGTERM]
    )


def name_process(name: str) -> None:
    """Set what ps and top show for this process (at most 15 bytes)."""
    try:
        with open("/proc/self/comm", "w") as comm:
            comm.write(name[:15])
    except OSError:
        return


def exit_now(code: int) -> NoReturn:
    """End this process without `atexit` functions and without waiting for threads."""
    flush()
    os._exit(code)
