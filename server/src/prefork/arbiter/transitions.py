"""What each event changes; pure. One handler per kind of event, listed in `HANDLERS`.

A handler changes single facts; bringing what is wanted and what there is together is the work of
`reconcile`, which runs after it.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from prefork.arbiter.actions import (
    Action,
    CloseListeners,
    Discarded,
    DrainWorker,
    MoldLost,
    Reloaded,
    Retired,
    StartWorker,
    Step,
    StopMold,
    StopWorker,
    Superseded,
    note,
)
from prefork.arbiter.events import (
    Event,
    MoldFailed,
    MoldGone,
    MoldReady,
    MoldUnfit,
    ReloadAsked,
    ScaleAsked,
    StopAsked,
    Tick,
    WorkerBorn,
    WorkerFailed,
    WorkerGone,
    WorkerLeaving,
    WorkerQuiet,
    WorkerReady,
    WorkerStuck,
    WorkerTired,
)
from prefork.arbiter.fleet import Fleet, MoldLife, Policy, drop, is_booting, put, put_mold
from prefork.base.stats import Life, Phase, Reason

# A worker that lived shorter than this crashed early. So many early crashes are replaced at once, and
# after such a time without any the next one counts as the first.
EARLY_S = 10.0
CALM_CRASHES = 5
CALM_S = 30.0
BACKOFF_MAX_S = 30.0
SERVED_BACKOFF_MAX_S = 1.0  # after workers that had become ready
# After a quick stop, before the rest is killed; also what a process that is to write its stack gets for that.
QUICK_STOP_S = 1.0

# What a worker's own events make of its life; a pair that is missing is out of date and changes nothing:
# the message crossed an order on its way.
LIFE: dict[tuple[Life, type[Event]], Life] = {
    (Life.BOOTING, WorkerReady): Life.SERVING,
    (Life.BOOTING, WorkerLeaving): Life.DRAINING,
    (Life.SERVING, WorkerLeaving): Life.DRAINING,
    (Life.DRAINING, WorkerLeaving): Life.DRAINING,
    (Life.SERVING, WorkerStuck): Life.STUCK,
    (Life.DRAINING, WorkerStuck): Life.STUCK,
    (Life.BOOTING, WorkerStuck): Life.STUCK,
}


def on_mold_ready(fleet: Fleet, event: MoldReady, now: float, policy: Policy) -> Step:
    return put_mold(fleet, event.generation, life=MoldLife.READY, failures=0), ()


def on_mold_unfit(fleet: Fleet, event: MoldUnfit, now: float, policy: Policy) -> Step:
    # Its process ends by itself; LOST here, and MoldGone finds nothing left to do.
    return put_mold(fleet, event.generation, life=MoldLife.LOST, preload=False, retry_at=now), ()


def on_mold_failed(fleet: Fleet, event: MoldFailed, now: float, policy: Policy) -> Step:
    return end_mold(fleet, event.generation, event.traceback, now, policy)


def on_mold_gone(fleet: Fleet, event: MoldGone, now: float, policy: Policy) -> Step:
    generation = fleet.booting if is_booting(fleet, event.generation) else fleet.current
    if generation is None or generation.number != event.generation:
        return fleet, ()
    match generation.mold.life:
        case MoldLife.LOST:
            return fleet, ()
        case MoldLife.HUNG:
            why = generation.mold.hang
        case MoldLife.BOOTING | MoldLife.READY:
            why = f"the mold ended ({event.how})"
    return end_mold(fleet, event.generation, f"{event.stack}\n{why}".lstrip(), now, policy)


def end_mold(fleet: Fleet, number: int, why: str, now: float, policy: Policy) -> Step:
    if is_booting(fleet, number):
        return discard(fleet, why, now, policy)
    return lose_mold(fleet, number, now, why)


def lose_mold(fleet: Fleet, number: int, now: float, why: str) -> Step:
    """The mold of the serving generation is gone: its workers go on, a new one is booted."""
    if fleet.current is None or fleet.current.number != number or fleet.phase is Phase.STOPPING:
        return fleet, ()
    failures = fleet.current.mold.failures + 1
    wait = backoff(failures - 1, free=1)
    fleet = put_mold(fleet, number, life=MoldLife.LOST, retry_at=now + wait, failures=failures)
    return fleet, (MoldLost(number, why, retry_in_s=wait),)


def discard(fleet: Fleet, traceback: str, now: float, policy: Policy) -> Step:
    """Throw the booting generation away; whatever serves goes on."""
    assert fleet.booting is not None
    number = fleet.booting.number
    doomed = [worker for worker in fleet.workers.values() if worker.generation == number]
    actions: list[Action] = [Discarded(number, traceback), StopMold(number)]
    actions += [StopWorker(worker.id) for worker in doomed]
    fleet = put(fleet, *(
        replace(worker, life=Life.DRAINING, leaving=Reason.RETIRED, deadline=now + QUICK_STOP_S)
        for worker in doomed
    ))  # fmt: skip
    if fleet.running is not None:
        actions.append(Reloaded(fleet.running, False, traceback))
    fleet = replace(fleet, booting=None, running=None)
    if fleet.current is None and fleet.phase is Phase.BOOTING:
        fleet = replace(fleet, phase=Phase.STOPPING, has_failed=True)
    return fleet, tuple(actions)


# -- workers ----------------------------------------------------------------------------------


def on_worker_born(fleet: Fleet, event: WorkerBorn, now: float, policy: Policy) -> Step:
    worker = fleet.workers.get(event.worker)
    if worker is None:
        return fleet, ()
    return put(fleet, replace(worker, pid=event.pid)), ()


def on_worker_life(fleet: Fleet, event: Event, now: float, policy: Policy) -> Step:
    """Ready, stuck, leaving: by the table `LIFE`."""
    assert isinstance(event, WorkerReady | WorkerStuck | WorkerLeaving)
    worker = fleet.workers.get(event.worker)
    life = LIFE.get((worker.life, type(event))) if worker is not None else None
    if worker is None or life is None:
        return fleet, ()
    deadline = None if life is Life.SERVING else now + policy.graceful_timeout
    if worker.deadline is not None and deadline is not None and worker.life is not Life.BOOTING:
        deadline = min(deadline, worker.deadline)
    leaving, left_at = worker.leaving, worker.left_at
    if isinstance(event, WorkerLeaving):
        left_at = now
    if life is Life.STUCK:
        leaving = Reason.TIMEOUT
    elif life is Life.DRAINING:
        leaving = leaving or Reason.RETIRED
    changes = replace(worker, life=life, deadline=deadline, leaving=leaving, left_at=left_at)
    is_current = fleet.current is not None and worker.generation == fleet.current.number
    # A worker of the booting generation serves nothing until that is known to work as a whole.
    starts = life is Life.SERVING and is_current
    return put(fleet, changes), (StartWorker(worker.id),) if starts else ()


def on_worker_failed(fleet: Fleet, event: WorkerFailed, now: float, policy: Policy) -> Step:
    worker = fleet.workers.get(event.worker)
    if worker is not None and is_booting(fleet, worker.generation):
        return discard(fleet, event.traceback, now, policy)
    # A worker of the serving generation: WorkerGone follows and counts as a crash.
    return fleet, ()


def on_worker_tired(fleet: Fleet, event: WorkerTired, now: float, policy: Policy) -> Step:
    worker = fleet.workers.get(event.worker)
    if worker is None or worker.life is not Life.SERVING or worker.leaving is not None:
        return fleet, ()
    return put(fleet, replace(worker, leaving=event.reason)), ()


def on_worker_quiet(fleet: Fleet, event: WorkerQuiet, now: float, policy: Policy) -> Step:
    worker = fleet.workers.get(event.worker)
    if worker is None or worker.life is not Life.STUCK:
        return fleet, ()
    return put(fleet, replace(worker, deadline=now)), ()


def on_worker_gone(fleet: Fleet, event: WorkerGone, now: float, policy: Policy) -> Step:
    worker = fleet.workers.get(event.worker)
    if worker is None:
        return fleet, ()
    fleet = drop(fleet, worker.id)
    expected = worker.life in (Life.DRAINING, Life.STUCK) and worker.leaving is not None
    if expected and worker.leaving is not None:
        return fleet, (Retired(worker, worker.leaving, event.how),)
    reason = Reason.KILLED if event.signalled else Reason.CRASH
    actions: tuple[Action, ...] = (Retired(worker, reason, event.how),)
    if is_booting(fleet, worker.generation):
        why = f"a worker ended before it was ready ({event.how})"
        fleet, more = discard(fleet, why, now, policy)
        return fleet, (*actions, *more)
    if fleet.phase is Phase.STOPPING:
        return fleet, actions
    if now - worker.started >= EARLY_S:
        # However many of these there are: they come no faster than workers live.
        return fleet, actions
    crashes = 1 if now - fleet.last_crash > CALM_S else fleet.crashes + 1
    wait = backoff(crashes, free=max(CALM_CRASHES, fleet.desired))
    if worker.life is Life.SERVING:
        # It could serve until something killed it: a fork of the mold costs milliseconds, and a long pause would
        # take the app down for what may be one bad request.
        wait = min(wait, SERVED_BACKOFF_MAX_S)
    # A pause that runs already is not prolonged: steady deaths would put the next fork off for ever.
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


# -- wishes -----------------------------------------------------------------------------------


def on_reload_asked(fleet: Fleet, event: ReloadAsked, now: float, policy: Policy) -> Step:
    if fleet.phase is Phase.STOPPING:
        return fleet, (Reloaded(event.wish, False, "the server is stopping"),)
    superseded = (Superseded(fleet.queued),) if fleet.queued is not None else ()
    return replace(fleet, queued=event.wish), superseded


def on_scale_asked(fleet: Fleet, event: ScaleAsked, now: float, policy: Policy) -> Step:
    return replace(fleet, desired=event.desired), ()


def on_stop_asked(fleet: Fleet, event: StopAsked, now: float, policy: Policy) -> Step:
    """Begin to stop, or turn a graceful stop into a quick one."""
    again = fleet.phase is Phase.STOPPING
    if again and not event.quick:
        return fleet, ()
    actions: list[Action] = []
    if not again:
        unmet = [wish for wish in (fleet.running, fleet.queued) if wish is not None]
        actions += [Reloaded(wish, False, "the server is stopping") for wish in unmet]
        if fleet.handing is not None:
            actions.append(Reloaded(fleet.handing, True))
        molds = [g.number for g in (fleet.current, fleet.booting) if g is not None]
        actions += [StopMold(number) for number in molds]
        actions.append(CloseListeners())
    wait = QUICK_STOP_S if event.quick else policy.graceful_timeout
    stopped = []
    for worker in fleet.workers.values():
        if event.quick or worker.life is Life.BOOTING:
            actions.append(StopWorker(worker.id))
        else:
            actions.append(DrainWorker(worker.id, "close"))
        life = worker.life if worker.life is Life.STUCK else Life.DRAINING
        deadline = min(now + wait, worker.deadline or now + wait)
        leaving = worker.leaving or Reason.RETIRED
        stopped.append(replace(worker, life=life, leaving=leaving, deadline=deadline))
    fleet = put(fleet, *stopped)
    fleet = replace(
        fleet, phase=Phase.STOPPING, booting=None, running=None, queued=None, handing=None
    )
    return fleet, tuple(actions)


def on_tick(fleet: Fleet, event: Tick, now: float, policy: Policy) -> Step:
    return fleet, ()


HANDLERS: dict[type[Event], Callable[[Fleet, Any, float, Policy], Step]] = {
    Tick: on_tick,
    MoldReady: on_mold_ready,
    MoldUnfit: on_mold_unfit,
    MoldFailed: on_mold_failed,
    MoldGone: on_mold_gone,
    WorkerBorn: on_worker_born,
    WorkerReady: on_worker_life,
    WorkerStuck: on_worker_life,
    WorkerLeaving: on_worker_life,
    WorkerFailed: on_worker_failed,
    WorkerTired: on_worker_tired,
    WorkerQuiet: on_worker_quiet,
    WorkerGone: on_worker_gone,
    ReloadAsked: on_reload_asked,
    ScaleAsked: on_scale_asked,
    StopAsked: on_stop_asked,
}
