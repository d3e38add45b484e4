"""What the arbiter observes by itself: queues, memory, unresponsive workers. Reads /proc and the table.

Writes the figures into the stats table and returns events; what follows from them, `machine` decides.
"""

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from prefork._engine import listen_queue
from prefork.arbiter.events import Event, OnlyOverdueLeft, RecycleRequested, WorkerStuck
from prefork.arbiter.fleet import Fleet, Worker, rolling, serving_of, wanted_old
from prefork.arbiter.listeners import Listener
from prefork.arbiter.proc import read_listen_failures, read_memory
from prefork.arbiter.workers import WorkerHandle
from prefork.base.log import Log
from prefork.base.stats import ExitReason, Table, WorkerState
from prefork.config.capacity import observe_memory

# The heartbeat is due once a second (docs/contracts.md, section 3).
TICK_S = 0.5
# A worker whose channel has ended is ending, which is over by then.
LOST_S = 2.0
# A stuck worker is looked at more often: the sooner only its stuck calls are left, the sooner it can be ended.
STUCK_TICK_S = 0.1
# Time for the answers of a stuck worker's other calls to leave its buffers.
ONLY_OVERDUE_S = 0.5
# A stuck call that the engine has counted and the worker has not reported by then is taken from the table.
UNREPORTED_S = 1.5
# A worker's watchdog thread writes at least once a second, whatever its app does. Silence counts against
# --timeout, but never less than this: a machine may be that busy.
SILENCE_MIN_S = 5.0
# The most of one pause between two looks that counts as silence: in a longer one the arbiter did not run
# either (the machine, or the container, was paused).
LOOK_MAX_S = 1.0
# Each worker's memory is read once in this time, as it walks its page tables; that of the cgroup too, as the kernel
# adds it up for whoever asks.
MEMORY_PERIOD_S = 5.0


RUNNING = (WorkerState.SERVING, WorkerState.DRAINING)


class Watched(NamedTuple):
    """A worker as a value, and the process."""

    worker: Worker
    handle: WorkerHandle


def pair_up(fleet: Fleet, handles: Mapping[int, WorkerHandle]) -> list[Watched]:
    return [Watched(worker, handles[id]) for id, worker in fleet.workers.items() if id in handles]


def tick_period(fleet: Fleet) -> float:
    """Return seconds until the figures are due again; pure."""
    is_stuck = any(worker.state is WorkerState.STUCK for worker in fleet.workers.values())
    return STUCK_TICK_S if is_stuck else TICK_S


def publish(fleet: Fleet, table: Table, now: float) -> None:
    """Write the fleet into the stats table."""
    table.set_header("state", fleet.state.value)
    table.set_header("generation", fleet.serving_number())
    table.set_header("workers_desired", wanted_now(fleet))
    table.set_header("crash_loop_backoff_us", int(max(0.0, fleet.fork_at - now) * 1e6))
    for worker in fleet.workers.values():
        table.set_slot(worker.slot, "pid", worker.pid)
        table.set_slot(worker.slot, "slot_generation", worker.generation)
        table.set_slot(worker.slot, "worker_state", shown_state(worker).value)
        table.set_slot(worker.slot, "started_us", int(worker.started * 1e6))


def publish_content(content: Mapping[str, str], table: Table) -> None:
    """Write the digests of what is served into the stats table, when they have changed."""
    if content != table.content():
        table.set_content(content)


def shown_state(worker: Worker) -> WorkerState:
    """Return the state for all others: a worker that may not serve yet is still booting."""
    waits = worker.state is WorkerState.SERVING and not worker.serves
    return WorkerState.BOOTING if waits else worker.state


def wanted_now(fleet: Fleet) -> int:
    """Return how many workers are to serve: one fewer while a rolling reload makes room."""
    booting = rolling(fleet)
    if booting is None:
        return fleet.desired
    return min(fleet.desired, wanted_old(fleet, booting) + len(serving_of(fleet, booting.number)))


def find_unreported(watched: Iterable[Watched], table: Table, log: Log, now: float) -> list[Event]:
    """A worker whose call holds the GIL cannot report that it is stuck; the engine has counted it in the table.

    How long a call has run is the engine's to judge: it alone knows how much of that was the client's time.
    """
    events: list[Event] = []
    for worker, handle in watched:
        if not table.slot(worker.slot, "overdue") or worker.state not in RUNNING:
            handle.overdue_since = None
        elif handle.overdue_since is None:
            handle.overdue_since = now
        elif now - handle.overdue_since >= UNREPORTED_S:
            log.error(
                "worker is hung and cannot report its request", pid=worker.pid, running=table.running(worker.slot)
            )  # fmt: skip
            handle.is_unresponsive = True
            events.append(WorkerStuck(worker.id))
    return events


def find_lost(watched: Iterable[Watched], log: Log, now: float) -> list[Event]:
    """A worker that runs and hears no orders any more: its app has closed descriptors that are not the app's."""
    events: list[Event] = []
    for worker, handle in watched:
        lost_at, is_serving = handle.lost_at, worker.state is WorkerState.SERVING
        if lost_at is not None and is_serving and now - lost_at >= LOST_S:
            log.error(
                "worker has closed its channel to the arbiter, it is replaced", pid=worker.pid
            )
            handle.is_unresponsive = True
            events.append(WorkerStuck(worker.id))
    return events


def find_silent(watched: Iterable[Watched], table: Table, log: Log, now: float) -> list[Event]:
    """A worker that does not run at all: stopped, frozen in the kernel, or without its watchdog thread."""
    events: list[Event] = []
    for worker, handle in watched:
        limit = handle.hook.cfg.timeout
        watchdog_us = table.slot(worker.slot, "watchdog_us")
        passed, handle.looked_at = now - handle.looked_at, now
        # 0 until it serves.
        if not limit or not watchdog_us or watchdog_us != handle.watchdog_us:
            handle.watchdog_us, handle.silent_s = watchdog_us, 0.0
            continue
        handle.silent_s += min(passed, LOOK_MAX_S)
        if handle.silent_s > max(limit, SILENCE_MIN_S) and worker.state in RUNNING:
            log.error(
                "worker does not run",
                pid=worker.pid,
                silent_s=round(handle.silent_s, 1),
                running=table.running(worker.slot),
            )
            handle.is_unresponsive = True
            events.append(WorkerStuck(worker.id))
    return events


def find_only_overdue_left(watched: Iterable[Watched], table: Table, now: float) -> list[Event]:
    """A stuck worker whose other calls are done has nothing left to wait for."""
    events: list[Event] = []
    for worker, handle in watched:
        others = table.slot(worker.slot, "in_flight") - table.slot(worker.slot, "overdue")
        if worker.state is not WorkerState.STUCK or others > 0:
            handle.only_overdue_since = None
        elif handle.only_overdue_since is None:
            handle.only_overdue_since = now
        elif now - handle.only_overdue_since >= ONLY_OVERDUE_S:
            handle.only_overdue_since = math.inf  # reported once
            events.append(OnlyOverdueLeft(worker.id))
    return events


def measure_queue(listeners: Iterable[Listener], table: Table) -> None:
    """Write depth and limit of all accept queues, and the kernel's counts of what found no room."""
    queues = [listen_queue(listener.sock.fileno()) for listener in listeners]
    overflows, drops = read_listen_failures()
    table.set_header("listen_depth", sum(depth for depth, _ in queues))
    table.set_header("listen_limit", sum(limit for _, limit in queues))
    table.set_header("listen_overflows", overflows)
    table.set_header("listen_drops", drops)


def measure_limit(table: Table) -> None:
    """Write the memory limit of this server and what is used of it; twice 0 where there is no limit."""
    memory = observe_memory()
    table.set_header("memory_limit", memory.limit if memory else 0)
    table.set_header("memory_used", memory.used if memory else 0)


def measure_memory(watched: list[Watched], table: Table, log: Log, now: float) -> list[Event]:
    """Read the memory of the workers whose figures are oldest; request the recycling of those over max_worker_memory."""
    events: list[Event] = []
    due = [(w, h) for w, h in watched if w.pid and now - h.memory_read >= MEMORY_PERIOD_S]
    share = 1 + int(len(watched) * TICK_S / MEMORY_PERIOD_S)
    for worker, handle in sorted(due, key=lambda pair: pair[1].memory_read)[:share]:
        handle.memory_read = now
        resident, proportional = read_memory(worker.pid)
        table.set_slot(worker.slot, "rss_bytes", resident)
        table.set_slot(worker.slot, "pss_bytes", proportional)
        limit = handle.hook.cfg.max_worker_memory
        if (
            limit
            and resident > limit
            and worker.state is WorkerState.SERVING
            and worker.leaving is None
        ):
            log.warning(
                "worker is over max_worker_memory", pid=worker.pid, bytes=resident, limit=limit
            )
            events.append(RecycleRequested(worker.id, ExitReason.MEMORY))
    return events
