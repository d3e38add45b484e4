"""What each event changes; pure. One handler per kind of event, listed in `HANDLERS`.

A handler changes single facts; bringing what is wanted and what there is together is the work of
`reconcile`, which runs after it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from prefork.arbiter.actions import (
    Action,
    BootMold,
    CloseListeners,
    DiscardGeneration,
    DrainWorker,
    FinishReload,
    ReportMoldLoss,
    RetireWorker,
    StartWorker,
    Step,
    StopMold,
    StopWorker,
    SupersedeReload,
    note,
)
from prefork.arbiter.events import (
    Event,
    GenerationLoaded,
    GenerationPostponed,
    HealthAnswered,
    MoldFailed,
    MoldGone,
    MoldReady,
    OnlyOverdueLeft,
    PreloadUnsafe,
    RecycleRequested,
    ReloadRequested,
    ScaleRequested,
    StopRequested,
    Tick,
    WorkerFailed,
    WorkerGone,
    WorkerLeaving,
    WorkerReady,
    WorkerSpawned,
    WorkerStuck,
)
from prefork.arbiter.fleet import (
    Fleet,
    Generation,
    Mold,
    MoldState,
    Worker,
    drop,
    is_booting,
    put,
    put_mold,
)
from prefork.base.messages import STOPPING
from prefork.base.stats import ExitReason, ServerState, WorkerState

# A worker that lived shorter than this crashed early. So many early crashes are replaced at once, and
# after such a time without any the next one counts as the first.
EARLY_S = 10.0
CALM_CRASHES = 5
CALM_S = 30.0
BACKOFF_MAX_S = 30.0
SERVED_BACKOFF_MAX_S = 1.0  # after workers that had become ready
# After a quick stop, before the rest is killed: time for the hook worker_int, on a busy machine too.
QUICK_STOP_S = 3.0
# What a process that is to write its stack gets for that: where it hangs, the machine may be busy.
STACK_S = 5.0
# The health path is asked so often before a generation is given up, with such a pause: a connection pool that is
# just filling is not a broken app.
HEALTH_ATTEMPTS = 3
HEALTH_PAUSE_S = 1.0
# A generation that waits for the memory of one that is ending looks again after this time.
ROOM_PAUSE_S = 0.25

# What a worker's own events make of its state; a pair that is missing is out of date and changes nothing:
# the message crossed an order on its way.
WORKER_STATES: dict[tuple[WorkerState, type[Event]], WorkerState] = {
    (WorkerState.BOOTING, WorkerReady): WorkerState.SERVING,
    (WorkerState.BOOTING, WorkerLeaving): WorkerState.DRAINING,
    (WorkerState.SERVING, WorkerLeaving): WorkerState.DRAINING,
    (WorkerState.DRAINING, WorkerLeaving): WorkerState.DRAINING,
    (WorkerState.SERVING, WorkerStuck): WorkerState.STUCK,
    (WorkerState.DRAINING, WorkerStuck): WorkerState.STUCK,
    (WorkerState.BOOTING, WorkerStuck): WorkerState.STUCK,
    (WorkerState.STUCK, WorkerLeaving): WorkerState.STUCK,
}

KILLED = "signal SIGKILL"
OUT_OF_MEMORY = (
    "; the kernel ends it so when memory runs out: raise the limit, or let the import need less"
)


def on_generation_loaded(fleet: Fleet, event: GenerationLoaded, now: float) -> Step:
    if not is_booting(fleet, event.generation):
        return fleet, ()
    mold = Mold(MoldState.BOOTING, started=now, preload=event.policy.preload)
    loaded = Generation(event.generation, mold, event.policy, surge=event.surge)
    return replace(fleet, booting=loaded), (BootMold(loaded.number, mold.preload),)


def on_generation_postponed(fleet: Fleet, event: GenerationPostponed, now: float) -> Step:
    if not is_booting(fleet, event.generation):
        return fleet, ()
    return put_mold(fleet, event.generation, retry_at=now + ROOM_PAUSE_S), ()


def on_mold_ready(fleet: Fleet, event: MoldReady, now: float) -> Step:
    return put_mold(fleet, event.generation, state=MoldState.READY, failures=0), ()


def on_preload_unsafe(fleet: Fleet, event: PreloadUnsafe, now: float) -> Step:
    # Its process ends by itself; LOST here, and MoldGone finds nothing left to do.
    return put_mold(fleet, event.generation, state=MoldState.LOST, preload=False, retry_at=now), ()


def on_mold_failed(fleet: Fleet, event: MoldFailed, now: float) -> Step:
    return end_mold(fleet, event.generation, event.traceback, now)


def on_mold_gone(fleet: Fleet, event: MoldGone, now: float) -> Step:
    generation = fleet.booting if is_booting(fleet, event.generation) else fleet.current
    if generation is None or generation.number != event.generation:
        return fleet, ()
    match generation.mold.state:
        case MoldState.LOADING | MoldState.LOST:
            return fleet, ()
        case MoldState.HUNG:
            why = generation.mold.hang
        case MoldState.BOOTING | MoldState.READY:
            why = f"the mold ended ({event.how}){OUT_OF_MEMORY if event.how == KILLED else ''}"
    return end_mold(fleet, event.generation, f"{event.stack}\n{why}".lstrip(), now)


def end_mold(fleet: Fleet, number: int, why: str, now: float) -> Step:
    if is_booting(fleet, number):
        return discard(fleet, why, now)
    return lose_mold(fleet, number, now, why)


def lose_mold(fleet: Fleet, number: int, now: float, why: str) -> Step:
    """The mold of the serving generation is gone: its workers go on, a new one is booted."""
    if (
        fleet.current is None
        or fleet.current.number != number
        or fleet.state is ServerState.STOPPING
    ):
        return fleet, ()
    failures = fleet.current.mold.failures + 1
    wait = backoff(failures - 1, free=1)
    fleet = put_mold(fleet, number, state=MoldState.LOST, retry_at=now + wait, failures=failures)
    return fleet, (ReportMoldLoss(number, why, retry_in_s=wait),)


def discard(fleet: Fleet, traceback: str, now: float) -> Step:
    """Throw the booting generation away; whatever serves goes on."""
    assert fleet.booting is not None
    number = fleet.booting.number
    discarded = [worker for worker in fleet.workers.values() if worker.generation == number]
    actions: list[Action] = [DiscardGeneration(number, traceback), StopMold(number)]
    for worker in discarded:
        # In a rolling reload some serve already: their requests are finished.
        is_serving = worker.serves and worker.state is WorkerState.SERVING
        actions.append(
            DrainWorker(worker.id, "handover", is_memory_short=True)
            if is_serving
            else StopWorker(worker.id)
        )
        wait = worker.graceful_timeout if worker.serves else QUICK_STOP_S
        fleet = put(fleet, end_by(worker, now + wait))
    if fleet.running is not None:
        actions.append(FinishReload(fleet.running, False, traceback))
    fleet = replace(fleet, booting=None, running=None)
    if fleet.current is None and fleet.state is ServerState.BOOTING:
        if fleet.queued is not None:
            actions.append(FinishReload(fleet.queued, False, STOPPING))
        fleet = replace(fleet, state=ServerState.STOPPING, has_failed=True, queued=None)
    return fleet, tuple(actions)


def end_by(worker: Worker, deadline: float) -> Worker:
    """Return a worker that was ordered to end: what it has to be done by gets no later, a stuck one stays it."""
    state = worker.state if worker.state is WorkerState.STUCK else WorkerState.DRAINING
    earlier = deadline if worker.deadline is None else min(deadline, worker.deadline)
    leaving = worker.leaving or ExitReason.RETIRED
    return replace(worker, state=state, leaving=leaving, deadline=earlier)


# -- workers ----------------------------------------------------------------------------------


def on_worker_spawned(fleet: Fleet, event: WorkerSpawned, now: float) -> Step:
    worker = fleet.workers.get(event.worker)
    if worker is None:
        return fleet, ()
    return put(fleet, replace(worker, pid=event.pid)), ()


def on_worker_state(fleet: Fleet, event: Event, now: float) -> Step:
    """Ready, stuck, leaving: by the table `WORKER_STATES`."""
    assert isinstance(event, WorkerReady | WorkerStuck | WorkerLeaving)
    worker = fleet.workers.get(event.worker)
    state = WORKER_STATES.get((worker.state, type(event))) if worker is not None else None
    if worker is None or state is None:
        return fleet, ()
    deadline = None if state is WorkerState.SERVING else now + worker.graceful_timeout
    if (
        worker.deadline is not None
        and deadline is not None
        and worker.state is not WorkerState.BOOTING
    ):
        deadline = min(deadline, worker.deadline)
    leaving, has_left = worker.leaving, worker.has_left or isinstance(event, WorkerLeaving)
    if state is WorkerState.STUCK:
        leaving = ExitReason.TIMEOUT
    elif state is WorkerState.DRAINING:
        leaving = leaving or ExitReason.RETIRED
    changes = replace(worker, state=state, deadline=deadline, leaving=leaving, has_left=has_left)
    is_current = fleet.current is not None and worker.generation == fleet.current.number
    if isinstance(event, WorkerStuck):
        # Whoever noticed it: a worker that is about to be replaced takes no more requests. One that has been ordered
        # to close does not go back to handing over.
        return put(fleet, changes), (DrainWorker(worker.id, "handover"),)
    # A worker of the booting generation serves nothing until that is known to work as a whole.
    if state is WorkerState.SERVING and is_current:
        return put(fleet, replace(changes, serves=True)), (StartWorker(worker.id),)
    return put(fleet, changes), ()


def on_health_answered(fleet: Fleet, event: HealthAnswered, now: float) -> Step:
    if fleet.booting is None:
        return fleet, ()
    health = fleet.booting.health
    if (health.asked, health.attempts) != (event.worker, event.attempt):
        return fleet, ()  # too late
    if event.problem:
        return count_unhealthy(fleet, event.problem, now)
    healthy = replace(fleet.booting, health=replace(health, asked=0, is_good=True))
    return replace(fleet, booting=healthy), ()


def count_unhealthy(fleet: Fleet, problem: str, now: float) -> Step:
    """An answer that is not good: another worker is asked in a while, or the generation given up."""
    assert fleet.booting is not None
    health = fleet.booting.health
    if health.attempts >= HEALTH_ATTEMPTS:
        return discard(
            fleet, f"the new generation is not healthy: {problem} ({health.attempts} attempts)", now
        )
    waiting = replace(health, asked=0, due=now + HEALTH_PAUSE_S)
    line = note("warning", "new generation is not healthy yet", problem=problem, attempt=health.attempts)  # fmt: skip
    return replace(fleet, booting=replace(fleet.booting, health=waiting)), (line,)


def on_worker_failed(fleet: Fleet, event: WorkerFailed, now: float) -> Step:
    worker = fleet.workers.get(event.worker)
    if worker is not None and is_booting(fleet, worker.generation):
        return discard(fleet, event.traceback, now)
    # A worker of the serving generation: WorkerGone follows and counts as a crash.
    return fleet, ()


def on_recycle_requested(fleet: Fleet, event: RecycleRequested, now: float) -> Step:
    worker = fleet.workers.get(event.worker)
    if worker is None or worker.state is not WorkerState.SERVING or worker.leaving is not None:
        return fleet, ()
    return put(fleet, replace(worker, leaving=event.reason)), ()


def on_only_overdue_left(fleet: Fleet, event: OnlyOverdueLeft, now: float) -> Step:
    worker = fleet.workers.get(event.worker)
    if worker is None or worker.state is not WorkerState.STUCK:
        return fleet, ()
    return put(fleet, replace(worker, deadline=now)), ()


def on_worker_gone(fleet: Fleet, event: WorkerGone, now: float) -> Step:
    worker = fleet.workers.get(event.worker)
    if worker is None:
        return fleet, ()
    fleet = drop(fleet, worker.id)
    expected = (
        worker.state in (WorkerState.DRAINING, WorkerState.STUCK) and worker.leaving is not None
    )
    if expected and worker.leaving is not None:
        return fleet, (RetireWorker(worker, worker.leaving, event.how),)
    reason = ExitReason.KILLED if event.signalled else ExitReason.CRASH
    actions: tuple[Action, ...] = (RetireWorker(worker, reason, event.how),)
    if is_booting(fleet, worker.generation):
        moment = "in the middle of the reload" if worker.serves else "before it was ready"
        why = f"a worker ended {moment} ({event.how})"
        fleet, more = discard(fleet, why, now)
        return fleet, (*actions, *more)
    if fleet.state is ServerState.STOPPING:
        return fleet, actions
    if now - worker.started >= EARLY_S:
        # However many of these there are: they come no faster than workers live.
        return fleet, actions
    crashes = 1 if now - fleet.last_crash > CALM_S else fleet.crashes + 1
    wait = backoff(crashes, free=max(CALM_CRASHES, fleet.desired))
    if worker.state is WorkerState.SERVING:
        # It could serve until something killed it: a fork of the mold costs milliseconds, and a long pause would
        # take the app down for what may be one bad request.
        wait = min(wait, SERVED_BACKOFF_MAX_S)
    # A pause that runs already is not prolonged: steady crashes would postpone the next fork forever.
    is_pausing = now < fleet.fork_at
    fork_at = fleet.fork_at if is_pausing else now + wait if wait else 0.0
    fleet = replace(fleet, crashes=crashes, last_crash=now, fork_at=fork_at)
    if wait and not is_pausing:
        actions += (
            note(
                "error",
                "workers crash in a row, waiting before the next",
                crashes=crashes,
                wait_s=wait,
            ),
        )
    return fleet, actions


def backoff(failures: int, *, free: int) -> float:
    """Return seconds to wait after so many failures in a row; the first `free` ones cost nothing."""
    if failures <= free:
        return 0.0
    return min(BACKOFF_MAX_S, 0.1 * 2.0 ** min(failures - free, 20))


# -- requests -----------------------------------------------------------------------------------


def on_reload_requested(fleet: Fleet, event: ReloadRequested, now: float) -> Step:
    if fleet.state is ServerState.STOPPING:
        return fleet, (FinishReload(event.request, False, STOPPING),)
    superseded = (SupersedeReload(fleet.queued),) if fleet.queued is not None else ()
    return replace(fleet, queued=event.request), superseded


def on_scale_requested(fleet: Fleet, event: ScaleRequested, now: float) -> Step:
    return replace(fleet, desired=event.desired), ()


def on_stop_requested(fleet: Fleet, event: StopRequested, now: float) -> Step:
    """Begin to stop, or turn a graceful stop into a quick one."""
    again = fleet.state is ServerState.STOPPING
    if again and not event.quick:
        return fleet, ()
    actions: list[Action] = []
    if not again:
        unmet = [request for request in (fleet.running, fleet.queued) if request is not None]
        actions += [FinishReload(request, False, STOPPING) for request in unmet]
        if fleet.finishing is not None:
            actions.append(FinishReload(fleet.finishing, True))
        molds = [g.number for g in (fleet.current, fleet.booting) if g is not None]
        actions += [StopMold(number) for number in molds]
        actions.append(CloseListeners())
    stopped = []
    for worker in fleet.workers.values():
        if event.quick or worker.state is WorkerState.BOOTING:
            actions.append(StopWorker(worker.id))
        else:
            actions.append(DrainWorker(worker.id, "close"))
        wait = QUICK_STOP_S if event.quick else worker.graceful_timeout
        stopped.append(end_by(worker, now + wait))
    fleet = put(fleet, *stopped)
    fleet = replace(
        fleet, state=ServerState.STOPPING, booting=None, running=None, queued=None, finishing=None
    )
    return fleet, tuple(actions)


def on_tick(fleet: Fleet, event: Tick, now: float) -> Step:
    return fleet, ()


HANDLERS: dict[type[Event], Callable[[Fleet, Any, float], Step]] = {
    Tick: on_tick,
    GenerationLoaded: on_generation_loaded,
    GenerationPostponed: on_generation_postponed,
    MoldReady: on_mold_ready,
    PreloadUnsafe: on_preload_unsafe,
    MoldFailed: on_mold_failed,
    MoldGone: on_mold_gone,
    WorkerSpawned: on_worker_spawned,
    WorkerReady: on_worker_state,
    WorkerStuck: on_worker_state,
    WorkerLeaving: on_worker_state,
    HealthAnswered: on_health_answered,
    WorkerFailed: on_worker_failed,
    RecycleRequested: on_recycle_requested,
    OnlyOverdueLeft: on_only_overdue_left,
    WorkerGone: on_worker_gone,
    ReloadRequested: on_reload_requested,
    ScaleRequested: on_scale_requested,
    StopRequested: on_stop_requested,
}
