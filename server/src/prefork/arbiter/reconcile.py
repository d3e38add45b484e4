"""Compares what is wanted with what there is; pure.

Level-based: it may run after any event, or none, and only acts on a difference. Each part acts on
one kind of difference.
"""

from dataclasses import replace

from prefork.arbiter.actions import (
    AbortMold,
    Action,
    BootMold,
    CheckHealth,
    CommitGeneration,
    DrainWorker,
    FinishReload,
    ForkWorker,
    KillWorker,
    Leave,
    LoadGeneration,
    RetireWorker,
    StartWorker,
    Step,
    StopMold,
)
from prefork.arbiter.fleet import (
    Fleet,
    Generation,
    Health,
    Mold,
    MoldState,
    Worker,
    drop,
    of_generation,
    put,
    put_mold,
    rolling,
    surge_of,
    wanted_old,
)
from prefork.arbiter.transitions import STACK_S, count_unhealthy, end_mold
from prefork.base.stats import ExitReason, ServerState, WorkerState

# Old workers are drained at this distance, so that their connections do not arrive all at once.
DRAIN_PACE_S = 0.05
# An answer for the health path may take so long; then the worker has so long to report that it took longer.
HEALTH_ANSWER_S = 10.0
HEALTH_REPORT_S = 1.0
# Orders to fork that a mold has not carried out yet; its channel holds a multiple of that, listeners included.
ORDERS_MAX = 32


def reconcile(fleet: Fleet, now: float) -> Step:
    """Compare wanted and actual; each part acts on one kind of difference."""
    actions: list[Action] = []
    for part in (
        kill_overdue,
        abort_slow_mold,
        replace_mold,
        load_postponed,
        fork_missing,
        check_health,
        roll,
        commit_generation,
        drain_surplus,
        finish_reload,
        begin_generation,
        leave_when_empty,
    ):
        fleet, more = part(fleet, now)
        actions += more
    return fleet, tuple(actions)


def kill_overdue(fleet: Fleet, now: float) -> Step:
    actions: list[Action] = []
    for worker in fleet.workers.values():
        if worker.deadline is None or worker.deadline > now:
            continue
        if not worker.pid:
            fleet, more = give_up_unforked(fleet, worker, now)
            actions += more
        elif worker.is_killed:
            actions.append(KillWorker(worker.id, is_last=True))
            fleet = put(fleet, replace(worker, deadline=None))
        else:
            actions.append(KillWorker(worker.id, with_stack=worker.state is WorkerState.BOOTING))
            fleet = put(fleet, replace(worker, deadline=now + STACK_S, is_killed=True))
    return fleet, tuple(actions)


def give_up_unforked(fleet: Fleet, worker: Worker, now: float) -> Step:
    """A worker that was ordered and never forked: its mold hangs.

    There is no process to kill; if one appears after all, it finds its channel closed and ends.
    """
    fleet = drop(fleet, worker.id)
    actions: list[Action] = [
        RetireWorker(worker, worker.leaving or ExitReason.CRASH, "never forked")
    ]
    for generation in (fleet.current, fleet.booting):
        if generation is None or generation.number != worker.generation:
            continue
        if generation.mold.state is MoldState.READY:
            hang = f"the mold did not fork a worker within {generation.policy.boot_timeout:g} s"
            fleet = hang_mold(fleet, generation.number, hang, now)
            actions.append(AbortMold(generation.number))
    return fleet, tuple(actions)


def hang_mold(fleet: Fleet, number: int, hang: str, now: float) -> Fleet:
    return put_mold(fleet, number, state=MoldState.HUNG, hang=hang, retry_at=now + STACK_S)


def begin_generation(fleet: Fleet, now: float) -> Step:
    """The first boot, or the next reload once the one before is done."""
    if fleet.state is ServerState.STOPPING or fleet.booting is not None:
        return fleet, ()
    if fleet.current is not None and (fleet.queued is None or fleet.finishing is not None):
        return fleet, ()
    number = fleet.last_number + 1
    generation = Generation(number, Mold(MoldState.LOADING, started=now))
    running = fleet.queued if fleet.current is not None else None
    queued = None if running is not None else fleet.queued
    fleet = replace(fleet, booting=generation, last_number=number, running=running, queued=queued)
    return fleet, (LoadGeneration(number),)


def abort_slow_mold(fleet: Fleet, now: float) -> Step:
    """Have a mold that takes too long write its stack; then give it up, whether it did or not."""
    actions: list[Action] = []
    for generation in (fleet.current, fleet.booting):
        if generation is None:
            continue
        number, mold, limit = generation.number, generation.mold, generation.policy.boot_timeout
        if mold.state is MoldState.BOOTING and now >= mold.started + limit:
            hang = f"the app did not import within {limit:g} s; raise --boot-timeout"
            fleet = hang_mold(fleet, number, hang, now)
            actions.append(AbortMold(number))
        elif mold.state is MoldState.HUNG and now >= mold.retry_at:
            fleet, more = end_mold(fleet, number, mold.hang, now)
            actions += [StopMold(number), *more]
    return fleet, tuple(actions)


def replace_mold(fleet: Fleet, now: float) -> Step:
    actions: list[Action] = []
    for generation in (fleet.current, fleet.booting):
        if fleet.state is ServerState.STOPPING or generation is None:
            continue
        mold = generation.mold
        if mold.state is MoldState.LOST and mold.retry_at <= now:
            fleet = put_mold(fleet, generation.number, state=MoldState.BOOTING, started=now)
            actions.append(
                BootMold(generation.number, mold.preload, is_replacement=mold.failures > 0)
            )
    return fleet, tuple(actions)


def load_postponed(fleet: Fleet, now: float) -> Step:
    """See whether there is room by now for a generation that had none."""
    booting = fleet.booting
    if booting is None or booting.mold.state is not MoldState.LOADING:
        return fleet, ()
    if not booting.mold.retry_at or now < booting.mold.retry_at:
        return fleet, ()
    return put_mold(fleet, booting.number, retry_at=0.0), (LoadGeneration(booting.number),)


def fork_missing(fleet: Fleet, now: float) -> Step:
    """Fork what is missing, of the generation that boots and of the one that serves."""
    actions: list[Action] = []
    if fleet.state is ServerState.STOPPING:
        return fleet, ()
    for generation in (fleet.current, fleet.booting):
        if generation is None or generation.mold.state is not MoldState.READY:
            continue
        if generation is fleet.current and now < fleet.fork_at:
            continue
        unforked = count_unforked(fleet, generation)
        for _ in range(min(count_missing(fleet, generation), ORDERS_MAX - unforked)):
            slot = free_slot(fleet)
            if slot is None:
                break
            number = fleet.last_worker + 1
            worker = Worker(
                number, slot, generation.number, WorkerState.BOOTING, started=now,
                graceful_timeout=generation.policy.graceful_timeout, deadline=now + generation.policy.boot_timeout,
            )  # fmt: skip
            fleet = replace(put(fleet, worker), last_worker=number)
            actions.append(ForkWorker(number, slot, generation.number))
    return fleet, tuple(actions)


def count_unforked(fleet: Fleet, generation: Generation) -> int:
    """Return how many workers the generation's mold has been ordered to fork and has not."""
    return sum(1 for w in fleet.workers.values() if w.generation == generation.number and not w.pid)


def count_missing(fleet: Fleet, generation: Generation) -> int:
    """Return how many workers of this generation are to be forked now."""
    booting = rolling(fleet)
    if booting is None:
        there = sum(1 for worker in fleet.workers.values() if counts(worker, generation.number))
        return fleet.desired - there
    there = len(of_generation(fleet, generation.number))
    if generation is not booting:
        return wanted_old(fleet, booting) - there
    # Those that drain hold memory until they are gone, so all there are count.
    room = fleet.desired + surge_of(fleet, booting) - len(fleet.workers)
    return min(room, fleet.desired - there)


def counts(worker: Worker, generation: int) -> bool:
    """Whether a worker counts towards the desired number of its generation."""
    stays = worker.state in (WorkerState.BOOTING, WorkerState.SERVING) and worker.leaving is None
    return stays and worker.generation == generation


def free_slot(fleet: Fleet) -> int | None:
    taken = {worker.slot for worker in fleet.workers.values()}
    return next((slot for slot in range(1, fleet.slots + 1) if slot not in taken), None)


def ready_to_commit(fleet: Fleet) -> list[Worker]:
    """Return the workers of the booting generation when all are ready, else nothing."""
    booting = fleet.booting
    if booting is None or booting.mold.state is not MoldState.READY:
        return []
    ready = ready_workers(fleet, booting)
    return ready if len(ready) >= fleet.desired else []


def ready_workers(fleet: Fleet, booting: Generation) -> list[Worker]:
    """Return the workers of the booting generation that are ready."""
    return [
        w for w in of_generation(fleet, booting.number)
        if w.state is WorkerState.SERVING and (w.leaving is None or rolling(fleet) is booting)
    ]  # fmt: skip


def roll(fleet: Fleet, now: float) -> Step:
    """In a reload worker by worker: let those serve that are ready, and an old one leave for each."""
    booting = rolling(fleet)
    if booting is None or fleet.current is None or booting.mold.state is not MoldState.READY:
        return fleet, ()
    number = fleet.current.number
    actions: list[Action] = []
    if not must_be_healthy(fleet, booting):
        fresh = [w for w in ready_workers(fleet, booting) if not w.serves]
        fleet = put(fleet, *(replace(worker, serves=True) for worker in fresh))
        actions += [StartWorker(worker.id) for worker in fresh]
    old = of_generation(fleet, number)
    if now >= fleet.next_drain_at and len(old) > wanted_old(fleet, booting):
        leaving_first = sorted(old, key=lambda worker: (worker.leaving is None, worker.id))
        fleet, more = drain_worker(fleet, leaving_first[0], now, is_memory_short=True)
        actions += more
    return fleet, tuple(actions)


def check_health(fleet: Fleet, now: float) -> Step:
    """Have one worker of the booting generation answer its health path before it may serve.

    Not on the first boot: nothing else serves then, and whether the app gets traffic is decided by
    who asks for its readiness.
    """
    booting = fleet.booting
    if booting is None or not must_be_healthy(fleet, booting):
        return fleet, ()
    ready = ready_workers(fleet, booting) if rolling(fleet) else ready_to_commit(fleet)
    if not ready:
        return fleet, ()
    health, within_s = booting.health, min(HEALTH_ANSWER_S, booting.policy.boot_timeout)
    if now < health.due:
        return fleet, ()
    if health.asked:
        return count_unhealthy(
            fleet, f"the health path was not answered within {within_s:g} s", now
        )
    worker = ready[health.attempts % len(ready)].id
    asked = Health(health.attempts + 1, worker, due=now + within_s + HEALTH_REPORT_S)
    fleet = replace(fleet, booting=replace(booting, health=asked))
    return fleet, (CheckHealth(worker, asked.attempts, within_s),)


def must_be_healthy(fleet: Fleet, booting: Generation) -> bool:
    """Whether the booting generation has still to show that it is healthy."""
    return fleet.current is not None and booting.policy.checks_health and not booting.health.is_good


def commit_generation(fleet: Fleet, now: float) -> Step:
    """All workers of the booting generation are ready, and it is healthy: it serves, the older ones leave."""
    ready = ready_to_commit(fleet)
    if not ready or fleet.booting is None or must_be_healthy(fleet, fleet.booting):
        return fleet, ()
    number = fleet.booting.number
    old = fleet.current
    actions: list[Action] = [CommitGeneration(number, is_first=old is None)]
    fresh = [worker for worker in ready if not worker.serves]
    actions += [StartWorker(worker.id) for worker in fresh]
    fleet = put(fleet, *(replace(worker, serves=True) for worker in fresh))
    if old is not None:
        actions.append(StopMold(old.number))
    leaving = [
        replace(worker, leaving=worker.leaving or ExitReason.RETIRED)
        for worker in fleet.workers.values()
        if worker.generation != number
    ]
    fleet = put(fleet, *leaving)
    fleet = replace(
        fleet, state=ServerState.SERVING, current=fleet.booting, booting=None, finishing=fleet.running, running=None,
        crashes=0, fork_at=0.0,
    )  # fmt: skip
    return fleet, tuple(actions)


def drain_surplus(fleet: Fleet, now: float) -> Step:
    """Drain one worker if the others are enough; those that are leaving first."""
    if fleet.state is not ServerState.SERVING or fleet.current is None or now < fleet.next_drain_at:
        return fleet, ()
    if rolling(fleet) is not None:  # then `roll` decides
        return fleet, ()
    number = fleet.current.number
    staying = [w for w in fleet.workers.values() if counts(w, number)]
    serving = [w for w in staying if w.state is WorkerState.SERVING]
    leaving = [
        w for w in fleet.workers.values()
        if w.leaving is not None and w.state in (WorkerState.SERVING, WorkerState.BOOTING)
    ]  # fmt: skip
    if leaving and len(serving) + len(leaving) > fleet.desired:
        chosen = leaving[0]
    elif not leaving and len(staying) > fleet.desired:
        chosen = max(staying, key=lambda worker: worker.id)
    else:
        return fleet, ()
    return drain_worker(fleet, chosen, now, is_memory_short=fleet.current.surge is not None)


def drain_worker(fleet: Fleet, worker: Worker, now: float, *, is_memory_short: bool) -> Step:
    """Have a worker hand its connections over and leave."""
    drained = replace(
        worker, state=WorkerState.DRAINING, leaving=worker.leaving or ExitReason.RETIRED,
        deadline=now + worker.graceful_timeout,
    )  # fmt: skip
    fleet = replace(put(fleet, drained), next_drain_at=now + DRAIN_PACE_S)
    return fleet, (DrainWorker(worker.id, "handover", is_memory_short),)


def finish_reload(fleet: Fleet, now: float) -> Step:
    """A reload is done when no worker of an older generation takes requests any more.

    Each has confirmed it, or is gone: one that does neither is killed at its deadline.
    """
    if fleet.finishing is None or fleet.current is None:
        return fleet, ()
    number = fleet.current.number
    if any(w.generation != number and not w.has_left for w in fleet.workers.values()):
        return fleet, ()
    return replace(fleet, finishing=None), (FinishReload(fleet.finishing, True),)


def leave_when_empty(fleet: Fleet, now: float) -> Step:
    if fleet.state is not ServerState.STOPPING or fleet.workers:
        return fleet, ()
    return fleet, (Leave(failed=fleet.has_failed),)
