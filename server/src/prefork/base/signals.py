"""Signals as bytes on a socket: handlers only record and wake, the loop decides when it looks."""

import signal
import socket
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
        self.install()

    def install(self) -> None:
        """Set the handlers; once more where other code may have set its own."""
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
