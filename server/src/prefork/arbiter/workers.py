"""The worker processes: ordering them from their mold, reading what they report, ending them.

Owns their handles. Which worker is to come or to go is decided by `machine`, from the events that
are dispatched here.
"""

import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefork.arbiter.actions import ForkWorker, KillWorker, RetireWorker
from prefork.arbiter.channels import drop_channel, receive_all
from prefork.arbiter.events import (
    Event,
    HealthAnswered,
    RecycleRequested,
    WorkerFailed,
    WorkerGone,
    WorkerLeaving,
    WorkerReady,
    WorkerSpawned,
    WorkerStuck,
)
from prefork.arbiter.generations import Generations
from prefork.arbiter.molds import Molds
from prefork.arbiter.orphans import note_children
from prefork.arbiter.proc import Identity, identify
from prefork.arbiter.resources import Resources
from prefork.base import messages, processes
from prefork.base.channel import Channel, Sent
from prefork.base.messages import Message
from prefork.base.processes import Ended
from prefork.base.stats import ExitReason
from prefork.worker.hooks import HookWorker


@dataclass
class WorkerHandle:
    """A worker's process; `hook` has the settings of its generation."""

    channel: Channel
    hook: HookWorker
    slot: int
    generation: int
    ordered_at: float
    pid: int = 0
    has_booted: bool = False  # or reported that it cannot
    # Since when its slot shows calls over their time.
    overdue_since: float | None = None
    # Its main thread did not report such a call, or nothing of it runs: its stack has to be fetched.
    is_unresponsive: bool = False
    # The last sign of its watchdog thread, when that was looked for, and for how much of the arbiter's own running
    # time it has been the same.
    watchdog_us: int = 0
    looked_at: float = 0.0
    silent_s: float = 0.0
    only_overdue_since: float | None = None
    lost_at: float | None = None  # when its channel ended
    children: tuple[Identity, ...] = ()  # processes that its own import of the app started
    memory_read: float = 0.0

    def is_importing(self) -> bool:
        return self.pid > 0 and not self.has_booted


class Workers:
    """The workers by number."""

    def __init__(
        self,
        own: Resources,
        generations: Generations,
        molds: Molds,
        selector: selectors.BaseSelector,
        dispatch: Callable[[Event], None],
        inherited: Callable[[], list[int]],
    ) -> None:
        self.own = own
        self.log = own.log
        self.inherited = inherited
        self.table = own.table
        self.generations = generations
        self.molds = molds
        self.selector = selector
        self.dispatch = dispatch
        self.handles: dict[int, WorkerHandle] = {}

    def channels(self) -> list[Channel]:
        return [handle.channel for handle in self.handles.values()]

    def importing(self) -> list[WorkerHandle]:
        return [handle for handle in self.handles.values() if handle.is_importing()]

    def fork(self, order: ForkWorker) -> None:
        """Have the mold of its generation fork a worker."""
        options = self.generations.configs[order.generation].options
        try:
            ours, theirs = Channel.pair()
        except OSError as error:  # no descriptors left: counted as a crash and tried again
            self.dispatch(WorkerGone(order.worker, f"no channel to it: {error.strerror}"))
            return
        handle = WorkerHandle(
            ours, HookWorker(options, self.log, age=order.worker), order.slot, order.generation,
            ordered_at=time.monotonic(),
        )  # fmt: skip
        self.handles[order.worker] = handle
        self.own.server.worker_age = order.worker
        message = messages.Fork(order.worker, order.slot, living=list(self.handles))
        sent = self.molds.order_fork(
            order.generation, message, descriptors=[theirs.fileno(), *self.inherited()]
        )
        theirs.close()
        self.selector.register(
            ours, selectors.EVENT_READ, lambda _: self._read(order.worker, handle)
        )
        if sent is Sent.GONE:
            # The mold is just ending; its end is an event of its own. One that does not read its orders has not
            # forked in time either, and is given up for that.
            drop_channel(self.selector, ours)
            self.dispatch(WorkerGone(order.worker, "its mold is gone"))

    def drain(self, number: int, mode: str, *, is_memory_short: bool) -> None:
        self.log.info("draining worker", **self.describe(number), mode=mode)
        self.send(number, messages.Drain(mode, is_memory_short))

    def send(self, number: int, message: Message) -> None:
        """Send a worker an order; one that is gone needs none."""
        if number in self.handles:
            self.handles[number].channel.send(message)

    def kill(self, order: KillWorker) -> None:
        """Kill a worker that is overdue; one that is to show its stacks gets SIGABRT first."""
        handle = self.handles.get(order.worker)
        if handle is None or not handle.pid:
            return
        self.log.warning("killing worker that exceeded its timeout", **self.describe(order.worker))
        note_children([handle] if handle.is_importing() else [])
        # SIGABRT: faulthandler writes all stacks, without the GIL. An app may have caught it.
        shows_stack = (order.with_stack or handle.is_unresponsive) and not order.is_last
        processes.kill(handle.pid, signal.SIGABRT if shows_stack else signal.SIGKILL)

    def retire(self, action: RetireWorker) -> None:
        """Count and forget a worker that is gone."""
        worker = action.worker
        handle = self.handles.pop(worker.id, None)
        served = self.table.count_requests(worker.slot)
        running = self.table.running(worker.slot)
        self.table.add_header(f"exits_{action.reason.value}")
        self.table.free(worker.slot)
        unexpected = action.reason in (ExitReason.CRASH, ExitReason.KILLED, ExitReason.TIMEOUT)
        (self.log.warning if unexpected else self.log.info)(
            "worker exited", pid=worker.pid, slot=worker.slot, generation=worker.generation,
            reason=action.reason.value, how=action.how,
            **({"running": running} if unexpected and running else {}),
        )  # fmt: skip
        if handle is not None:
            drop_channel(self.selector, handle.channel)
            self.molds.orphans.take(handle.children, time.monotonic())
            handle.hook.is_alive = False
            handle.hook.count_requests = lambda: served
            self.own.server.WORKERS.pop(handle.pid, None)
            self.generations.call_hook("child_exit", self.own.server, handle.hook)

    def take_ended(self, ended: Ended) -> bool:
        """Take a child that has ended, after its last messages; False when it was not a worker."""
        found = self._find(ended.pid)
        if found is None:
            return False
        number, handle = found
        self._read(number, handle)
        self.dispatch(WorkerGone(number, ended.how, signalled=ended.is_signalled))
        return True

    def describe(self, number: int) -> dict[str, Any]:
        """Return the keys by which a log line names a worker."""
        handle = self.handles.get(number)
        if handle is None:
            return {"worker": number}
        return {"pid": handle.pid, "slot": handle.slot, "generation": handle.generation}

    def _find(self, pid: int) -> tuple[int, WorkerHandle] | None:
        """Return the worker of a pid; its first message may still be unread."""
        for number, handle in list(self.handles.items()):
            if not handle.pid:
                self._read(number, handle)
        return next(((n, h) for n, h in self.handles.items() if h.pid == pid), None)

    def _read(self, number: int, handle: WorkerHandle) -> None:
        """Read what a worker has sent."""
        for message in receive_all(handle.channel):
            if isinstance(message, messages.Malformed):
                # It sees the end of the channel, finishes what it does, and ends.
                self.log.error(
                    "malformed message from a worker", **self.describe(number), why=message.why
                )
            if message is None or isinstance(message, messages.Malformed):
                drop_channel(self.selector, handle.channel)
                handle.lost_at = time.monotonic()
                # With a pid, waiting for the process shows how it ended; without, this is all there is.
                if not handle.pid:
                    self.dispatch(WorkerGone(number, "it ended before it could report"))
                return
            self._on_message(number, handle, message)

    def _on_message(self, number: int, handle: WorkerHandle, message: Message) -> None:
        match message:
            case messages.WorkerSpawned(pid):
                handle.pid = handle.hook.pid = pid
                self.own.server.WORKERS[pid] = handle.hook
                handle.channel.send(messages.Begin())
                self.dispatch(WorkerSpawned(number, pid))
            case messages.WorkerReady(unsafe, children):
                handle.has_booted, handle.children = True, identify(children)
                if unsafe is not None:
                    self.generations.note_import(handle.generation, unsafe=unsafe)
                self._count_boot(number, handle)
                self.dispatch(WorkerReady(number))
            case messages.HealthChecked(attempt, problem):
                self.dispatch(HealthAnswered(number, attempt, problem))
            case messages.BootFailed(traceback, children):
                handle.has_booted, handle.children = True, identify(children)
                self.dispatch(WorkerFailed(number, traceback))
            case messages.MaxRequestsReached():
                self.dispatch(RecycleRequested(number, ExitReason.MAX_REQUESTS))
            case messages.WorkerStuck():
                self.dispatch(WorkerStuck(number))
            case messages.WorkerLeaving():
                self.dispatch(WorkerLeaving(number))

    def _count_boot(self, number: int, handle: WorkerHandle) -> None:
        boot_us = int((time.monotonic() - handle.ordered_at) * 1e6)
        self.table.set_header("boot_us_last", boot_us)
        self.table.add_header("boot_us_sum", boot_us)
        self.table.add_header("boot_count")
        self.log.info("worker ready", **self.describe(number), boot_s=boot_us / 1e6)
