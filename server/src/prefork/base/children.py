"""What a process of the server undoes in the children that the app forks.

Such a child (a `multiprocessing` process, a daemon, a helper that the import starts) must be as it
would be without the server: it holds none of the server's sockets, by which it could keep an
address or look alive, and signals mean to it what they mean to any Python program.

Only a child that was forked directly from a process of the server is touched, once. Its own
children are not: the descriptor numbers may be the app's by then, the handlers too. Forks of our
own say so by `own_fork` and call `own` in the child.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator

from prefork.base.signals import set_handler

# The signals to which a process of the server gives a meaning of its own.
NUMBERS = (
    signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN,
    signal.SIGTTOU, signal.SIGCHLD,
)  # fmt: skip

_masks = threading.local()
_undo: list[Callable[[], None]] = []
_is_ours = False  # this process is one of the server's
_own_forker = (
    0  # the thread that forks a process of the server right now; others may fork meanwhile
)
_is_registered = False


def own() -> None:
    """This process is one of the server's from now on; what its parent would undo is not its own."""
    global _is_ours, _is_registered
    _is_ours = True
    _undo.clear()
    if not _is_registered:
        _is_registered = True
        os.register_at_fork(before=_hold, after_in_parent=_release, after_in_child=_become)


def is_handled_here(number: signal.Signals) -> bool:
    """Whether the handler of a signal is one of the server's, not the app's."""
    module = getattr(signal.getsignal(number), "__module__", None)
    return isinstance(module, str) and module.partition(".")[0] == __name__.partition(".")[0]


def undo_in_children(function: Callable[[], None]) -> None:
    """Have `function` called in each child that the app forks; it must not raise."""
    _undo.append(function)


def close_in_children(*descriptors: int) -> None:
    """Close these in each child that the app forks."""
    undo_in_children(lambda: close_all(descriptors))


def close_all(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(OSError):
            os.close(descriptor)


@contextlib.contextmanager
def own_fork() -> Iterator[None]:
    """Around a fork whose child is one of the server's processes. Called from the main thread only."""
    global _own_forker
    _own_forker = threading.get_ident()
    try:
        yield
    finally:
        _own_forker = 0


def _is_own_fork() -> bool:
    return _own_forker == threading.get_ident()


def _hold() -> None:
    # A signal may arrive before the child has come to itself, and would be taken for one to this process.
    if _is_ours and not _is_own_fork():
        _masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, NUMBERS)


def _release() -> None:
    if _is_ours and not _is_own_fork():
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)


def _become() -> None:
    global _is_ours
    if not _is_ours or _is_own_fork():
        return
    _is_ours = False
    signal.set_wakeup_fd(-1)
    for function in _undo:
        function()
    for number in NUMBERS:
        if is_handled_here(number):
            is_int = number == signal.SIGINT
            set_handler(number, signal.default_int_handler if is_int else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.before)
