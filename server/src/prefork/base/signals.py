"""Signals as a queue and a socket: handlers record and wake, the loop decides when it looks."""

import _socket
import contextlib
import signal
from collections import deque
from collections.abc import Collection, Iterable

# Bound before an app is imported: some put a function in its place that does nothing, for what works in the main thread only.
set_handler = signal.signal


class SignalSocket:
    """Readable when one of `numbers` has arrived.

    The socket only wakes: it holds some hundred bytes, and what does not fit is lost. What arrived is
    in a queue.

    Handlers in Python, not SIG_IGN: an ignored signal stays ignored in programs that are started
    from here, a handler does not.
    """

    def __init__(self, numbers: Iterable[signal.Signals]) -> None:
        # Not of `socket`, whose class gevent replaces by one that waits in a hub.
        self.receiving, self.sending = _socket.socketpair()
        for end in (self.receiving, self.sending):
            end.setblocking(False)
        self.numbers = tuple(numbers)
        self.arrived: deque[int] = deque()
        self.install()

    def install(self) -> None:
        """Set the handlers; once more where other code may have set its own."""
        for number in self.numbers:
            set_handler(number, lambda number, _: self.arrived.append(number))
        # Whoever started this process, or the app, may have blocked them: no stop would be heard.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.numbers)
        signal.set_wakeup_fd(self.sending.fileno(), warn_on_full_buffer=False)

    def fileno(self) -> int:
        return self.receiving.fileno()

    def take(self) -> list[int]:
        """Return the numbers that have arrived, in order; the same one may be there several times."""
        # The socket first: a signal that arrives after that wakes again.
        with contextlib.suppress(BlockingIOError):
            self.receiving.recv(4096)
        return [self.arrived.popleft() for _ in range(len(self.arrived))]

    def take_kinds(self) -> set[int]:
        """Return which numbers have arrived, also those for which the main thread has yet to run the handler.

        For a loop in another thread: a handler runs when the main thread gets to it, the socket's bytes are there at
        once. A number may be returned a second time for the same signal.
        """
        received = b""
        with contextlib.suppress(BlockingIOError):
            received = self.receiving.recv(4096)
        return {*received, *self.take()}

    def has_arrived(self, numbers: Collection[int]) -> bool:
        """Whether one of these is still to be taken; for code that a signal handler runs."""
        return any(number in numbers for number in self.arrived)

    def close_in_child(self) -> None:
        """In a forked child: be woken no more by what is its parent's."""
        signal.set_wakeup_fd(-1)
        self.receiving.close()
        self.sending.close()
