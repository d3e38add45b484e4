"""Worker class gevent: calls in greenlets of the main thread's hub, the worker's loop in a native thread next to it.

The hub has the main thread, as apps expect it (signals, child processes). A greenlet that computes or waits in C code
blocks the hub, never the loop: so a worker with a blocked hub still answers its arbiter and says where it is blocked.
"""

import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn

import gevent
from gevent.event import Event
from gevent.exceptions import LoopExit

from prefork._engine import Engine
from prefork.base import children, messages, processes
from prefork.base.log import Log
from prefork.base.threads import ORIGINALS
from prefork.errors import Exit
from prefork.worker.gevent_hub import HubServer
from prefork.worker.import_context import ImportContext
from prefork.worker.loop import LoopParts, WorkerLoop


class HubThread:
    """The main thread and its hub, for the loop in its own thread; made by the main thread."""

    def __init__(self, engine: Engine, log: Log, context: ImportContext) -> None:
        self.log = log
        self.ident: int = ORIGINALS["get_ident"]()
        self.hub = gevent.get_hub()
        self.server = HubServer(engine, context)
        # Not of `threading`, whose locks are the hub's by now. Held until the engine is done.
        self.serving = ORIGINALS["allocate_lock"]()
        self.serving.acquire()
        self.loop_is_over = Event()
        # From the start: gevent takes a hub on which nothing is watched for one that waits in vain.
        self.loop_ended = self.hub.loop.async_()
        self.loop_ended.start(self.loop_is_over.set)

    def run_beside(self, run_loop: Callable[[], None]) -> None:
        """In the main thread: run `run_loop` in a native thread, and the hub until that has returned."""

        def run() -> None:
            run_loop()
            self.loop_ended.send()

        ORIGINALS["start_new_thread"](run, ())
        self.wait_unmoved(
            self.loop_is_over,
            "a greenlet or a callback of the app's raised this; the worker goes on",
        )

    def wait_unmoved(self, event: Event, message: str) -> None:
        """Wait for an event, whatever is thrown into the greenlet that waits.

        The hub throws what is to end a program (SystemExit, KeyboardInterrupt, SystemError) and errors without a
        greenlet into the main one, wherever in the app they come from. The requests that wait are not to end by it.
        """
        while not event.is_set():
            try:
                event.wait()
            except LoopExit:
                raise  # nothing is watched any more: the hub has been destroyed
            except BaseException:
                self.log.error(message, pid=os.getpid(), traceback=traceback.format_exc())

    def call(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Have the hub call `function`; returns at once."""
        self.hub.loop.run_callback_threadsafe(function, *arguments)

    def start(self) -> None:
        """Begin to serve; returns at once."""
        self.call(gevent.spawn, self._serve)

    def _serve(self) -> None:
        try:
            self.server.start()
            self.wait_unmoved(
                self.server.over,
                "the app raised this in a greenlet of the server's; the worker goes on",
            )
            self.server.join()
        except BaseException:
            self.fail("hub ended")
        self.serving.release()

    def fail(self, what: str) -> NoReturn:
        """End the process: this is a bug, and half a worker is worse than none."""
        self.log.critical(what, pid=os.getpid(), traceback=traceback.format_exc())
        processes.exit_now(Exit.BUG)

    def join(self, timeout: float | None = None) -> None:
        """Wait until the engine is done."""
        if self.serving.acquire(timeout=-1 if timeout is None else timeout):
            self.serving.release()

    def is_running(self, number: int) -> bool:
        """Whether the call has the thread; else it waits, or has ended."""
        greenlet = self.server.greenlets.get(number)
        return greenlet is not None and not greenlet.dead and greenlet.gr_frame is None

    def call_frame(self, number: int) -> FrameType | None:
        """Return where a call waits."""
        greenlet = self.server.greenlets.get(number)
        return None if greenlet is None else greenlet.gr_frame

    def frame(self) -> FrameType | None:
        """Return where the thread is."""
        return sys._current_frames().get(self.ident)


def show_stack(frame: FrameType | None) -> str:
    return "(it has just ended)" if frame is None else "".join(traceback.format_stack(frame))


@dataclass(kw_only=True)
class GeventLoop(WorkerLoop):
    """The loop of a worker whose calls run in greenlets."""

    thread: HubThread
    is_stuck: bool = False

    def start_health_check(self, order: messages.CheckHealth) -> None:
        self.thread.call(gevent.spawn, self.check_health, order)

    def report_timeout(self, ident: int, method: str, target: str, elapsed_s: float) -> None:
        """Log where the call hangs. One that waits is ended and the others go on; one that blocks the hub blocks all."""
        is_blocking = self.thread.is_running(ident)
        frame = self.thread.frame() if is_blocking else self.thread.call_frame(ident)
        self.log.error(
            "request timed out", pid=os.getpid(), method=method, target=target, elapsed_s=elapsed_s,
            timeout_s=self.options.timeout, traceback=show_stack(frame),
        )  # fmt: skip
        if is_blocking:
            self.report_stuck()
        else:
            self.thread.call(self.thread.server.cancel, ident, self.options.timeout)

    def report_blocked_hub(self, elapsed_s: float) -> None:
        """Log what blocks the hub, and report it to the arbiter, which starts a replacement."""
        frame = self.thread.frame()
        self.log.error(
            "hub is blocked: a greenlet does not let others run", pid=os.getpid(), elapsed_s=elapsed_s,
            timeout_s=self.options.timeout, traceback=show_stack(frame),
        )  # fmt: skip
        self.report_stuck()

    def report_stuck(self) -> None:
        if self.is_stuck:
            return
        self.is_stuck = True
        self.engine.drain(mode="handover")
        self.channel.send(messages.WorkerStuck())
        self.hooks.call("worker_abort", self.worker)


def run_with_hub(
    parts: LoopParts,
    context: ImportContext,
    ask_health: Callable[[Callable[[Engine], HubServer], float], str],
    leave: Callable[[WorkerLoop], int],
) -> WorkerLoop:
    """Return the loop when it is over; `leave` ends the process where its hub is not to be waited for."""
    thread = HubThread(parts["engine"], parts["log"], context)
    children.undo_in_children(thread.server.become_child)
    loop = GeventLoop(
        thread=thread,
        threads=(thread,),
        ask_health=lambda within_s: ask_health(lambda engine: HubServer(engine, context), within_s),
        **parts,
    )

    def run_loop() -> None:
        try:
            loop.run()
            if loop.skip_cleanup:
                leave(loop)
        except BaseException:
            thread.fail("worker loop ended")

    thread.run_beside(run_loop)
    return loop
