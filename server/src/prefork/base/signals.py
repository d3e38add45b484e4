"""Signals as bytes on a socket: handlers only record and wake, the loop decides when it looks."""

import os
import signal
import socket
import threading
from collections.abc import Iterable


class SignalSocket:
    """Readable when one of `numbers` has arrived.

    Handlers in Python, not SIG_IGN: an ignored signal stays ignored in programs that are started
    from here, a handler does not.
    """

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        self.receiving, self.sending = socket.socketpair()
        for end in (self.receiving, self.sending):
            end.setblocking(False)
        self.numbers = tuple(numbers)
        for number in self.numbers:
            signal.signal(number, lambda *_: None)
        signal.set_wakeup_fd(self.sending.fileno(), warn_on_full_buffer=False)

    def fileno(self) -> int:
        return self.receiving.fileno()

    def take(self) -> bytes:
        """Return the numbers that have arrived, in order; the same one may be there several times."""
        try:
            return self.receiving.recv(4096)
        except BlockingIOError:
            return b""

    def close_in_child(self) -> None:
        """In a forked child: be woken no more by what is its parent's."""
        signal.set_wakeup_fd(-1)
        self.receiving.close()
        self.sending.close()

    def isolate_children(self) -> None:
        """Keep to this process: in children forked by whatever code, signals mean what they usually do.

        Without this, a signal for such a child would be taken for one to this process: they share
        the socket. Blocked around the fork, as one may arrive before the child has come to itself.
        """
        masks = threading.local()

        def hold() -> None:
            masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, self.numbers)

        def release() -> None:
            signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

        def restore() -> None:
            self.close_in_child()
            for number in self.numbers:
                is_int = number == signal.SIGINT
                signal.signal(number, signal.default_int_handler if is_int else signal.SIG_DFL)
            release()

        os.register_at_fork(before=hold, after_in_parent=release, after_in_child=restore)
