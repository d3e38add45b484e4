"""Serves an engine's calls in greenlets of the hub of this thread. All of it is called by that thread."""

from collections.abc import Callable
from typing import Any

import gevent
from gevent import socket as gevent_socket
from gevent.event import Event

from prefork._engine import Engine, Hub
from prefork.worker.import_context import ImportContext

READ = 1  # libev's EV_READ


class RequestTimeout(gevent.Timeout):  # type: ignore[misc] # gevent has no types
    """Raised in the greenlet of a request that is over its time, where it waits."""

    def __str__(self) -> str:
        return f"the request took longer than --timeout, {self.seconds:g} s"


class HubServer:
    """Runs an engine until it is drained or stopped; has the face of a thread."""

    def __init__(self, engine: Engine, context: ImportContext) -> None:
        self.engine = engine
        self.context = context
        self.loop = gevent.get_hub().loop
        # By the number of the call, the last one of each number.
        self.greenlets: dict[int, Any] = {}
        self.calls: Hub | None = None
        self.watchers: list[Any] = []
        self.timer: Any = None
        self.due_at = 0.0
        self.over = Event()
        self.failure: BaseException | None = None
        # In a child that the app forked: the greenlet that did it.
        self.forker: Any = None

    def start(self) -> None:
        """Begin to serve."""
        self.calls = self.engine.hub(spawn=self._spawn, wait=wait_for_socket, park=self._park)
        for descriptor in (self.calls.reactor_fd, self.calls.wake_fd):
            watcher = self.loop.io(descriptor, READ)
            watcher.start(self._turn)
            self.watchers.append(watcher)
        self._turn()

    def join(self, timeout: float | None = None) -> None:
        """Let other greenlets run until the engine is done. Raises what made it fail."""
        self.over.wait(timeout)
        if self.failure is not None:
            raise self.failure

    def is_alive(self) -> bool:
        return self.calls is not None

    def cancel(self, number: int, timeout_s: float) -> None:
        """End the wait of a call that is over its time, by an exception."""
        # By now its number may be another call's.
        if self.calls is not None and self.calls.is_overdue(number):
            self.greenlets[number].throw(RequestTimeout(timeout_s))

    def become_child(self) -> None:
        """In a forked child: its hub serves nobody. The greenlets of other requests are copies, and are not to end it."""
        self.forker = gevent.getcurrent()
        if self.calls is not None:
            self._end()

    def _park(self) -> None:
        if self.forker in self.greenlets.values() and gevent.getcurrent() is not self.forker:
            gevent.get_hub().switch()

    def _spawn(self, function: Callable[[int], None], number: int) -> None:
        self.greenlets[number] = greenlet = gevent.Greenlet(function, number)
        greenlet.gr_context = self.context.copy()
        greenlet.start()

    def _turn(self) -> None:
        if self.calls is None:
            return
        try:
            due_s = self.calls.turn()
        except BaseException as error:
            self.failure = error
            due_s = None
        if due_s is None:
            self._end()
            return
        due_at = self.loop.now() + due_s
        if self.timer is None or not self.timer.active or due_at < self.due_at:
            self._stop_timer()
            self.due_at = due_at
            self.timer = self.loop.timer(due_s)
            self.timer.start(self._turn)

    def _stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.stop()
            self.timer.close()

    def _end(self) -> None:
        self.calls = None
        self._stop_timer()
        for watcher in self.watchers:
            watcher.stop()
            watcher.close()
        self.over.set()


def wait_for_socket(descriptor: int, is_write: bool, seconds: float) -> bool:
    """Let other greenlets run until the socket is ready; False when it is not by then."""
    late = TimeoutError()
    wait = gevent_socket.wait_write if is_write else gevent_socket.wait_read
    try:
        wait(descriptor, timeout=seconds, timeout_exc=late)
    except TimeoutError as error:
        if error is late:
            return False
        raise
    return True
