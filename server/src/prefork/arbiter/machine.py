"""What the arbiter does next: (fleet, event, now) → (fleet, actions). Pure.

Events change single facts; `balance` then compares what is wanted with what there is and adds the
actions that bring them together. It is level-based: it may run after any event, or none, and only
acts on a difference. Times are seconds of the monotonic clock.

A reload in these terms: a new generation is `booting`; when all its workers are ready it becomes
`current`; workers of an older generation are then `leaving`, and a leaving worker is drained as
soon as the serving workers are more than wanted. Recycling is the same with a single worker.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from prefork.arbiter.fleet import (
    Fleet,
    Generation,
    Life,
    Mold,
    MoldLife,
    Phase,
    Reason,
    Wish,
    Worker,
)

# Old workers are drained at this distance, so that their connections do not arrive all at once.
DRAIN_PACE_S = 0.05
# A worker that has not confirmed its order to drain by then is busy, and takes no request for that reason.
LEAVE_MAX_S = 1.0
# A worker that lived shorter than this crashed early. So many early crashes are replaced at once, and
# after such a time without any the next one counts as the first.
EARLY_S = 10.0
CALM_CRASHES = 5
CALM_S = 30.0
BACKOFF_MAX_S = 30.0
SERVED_BACKOFF_MAX_S = 1.0  # after workers that had become ready
# After a quick stop, before the rest is killed; also what a process that is to write its stack gets for that.
QUICK_STOP_S = 1.0


@dataclass(frozen=True)
class Policy:
    """The settings that decide; a reload may change them."""

    graceful_timeout: float
    boot_timeout: float
    preload: bool


# -- events -----------------------------------------------------------------------------------


class Event:
    """Base of all events."""


@dataclass(frozen=True)
class Tick(Event):
    """Time has passed."""


@dataclass(frozen=True)
class MoldReady(Event):
    generation: int


@dataclass(frozen=True)
class MoldUnfit(Event):
    """Its import left threads running: boot it again without the import."""

    generation: int


@dataclass(frozen=True)
class MoldFailed(Event):
    """The app does not import."""

    generation: int
    traceback: str


@dataclass(frozen=True)
class MoldGone(Event):
    """The process has ended; `stack` is where, when it wrote that."""

    generation: int
    how: str
    stack: str = ""


@dataclass(frozen=True)
class WorkerBorn(Event):
    worker: int
    pid: int


@dataclass(frozen=True)
class WorkerReady(Event):
    worker: int


@dataclass(frozen=True)
class WorkerFailed(Event):
    """The app does not import in the worker; its process is about to end."""

    worker: int
    traceback: str


@dataclass(frozen=True)
class WorkerTired(Event):
    """It asks to be relieved, or is found too fat."""

    worker: int
    reason: Reason


@dataclass(frozen=True)
class WorkerStuck(Event):
    worker: int


@dataclass(frozen=True)
class WorkerQuiet(Event):
    """Of a stuck worker, only the stuck calls are left."""

    worker: int


@dataclass(frozen=True)
class WorkerLeaving(Event):
    """It drains: as ordered, or of its own accord (somebody sent it TERM)."""

    worker: int


@dataclass(frozen=True)
class WorkerGone(Event):
    """Its process has ended; `signalled` when a signal ended it."""

    worker: int
    how: str
    signalled: bool = False
    is_clean: bool = False


@dataclass(frozen=True)
class ReloadAsked(Event):
    wish: Wish


@dataclass(frozen=True)
class ScaleAsked(Event):
    desired: int


@dataclass(frozen=True)
class StopAsked(Event):
    quick: bool = False


# -- actions ----------------------------------------------------------------------------------


class Action:
    """Base of all actions."""


@dataclass(frozen=True)
class BootMold(Action):
    generation: int
    preload: bool
    is_replacement: bool = False


@dataclass(frozen=True)
class StopMold(Action):
    generation: int


@dataclass(frozen=True)
class AbortMold(Action):
    """Kill it so that it writes its stack first."""

    generation: int


@dataclass(frozen=True)
class MoldLost(Action):
    """The serving generation has no mold for now; `why` ends in the line that says it."""

    generation: int
    why: str
    retry_in_s: float


@dataclass(frozen=True)
class ForkWorker(Action):
    worker: int
    slot: int
    generation: int


@dataclass(frozen=True)
class StartWorker(Action):
    """Let a worker that is ready accept connections."""

    worker: int


@dataclass(frozen=True)
class DrainWorker(Action):
    worker: int
    mode: str


@dataclass(frozen=True)
class StopWorker(Action):
    worker: int


@dataclass(frozen=True)
class KillWorker(Action):
    """`is_last`: it outlived the first kill, which it could catch if that was to show its stack."""

    worker: int
    with_stack: bool = False
    is_last: bool = False


@dataclass(frozen=True)
class Retired(Action):
    """A worker is gone: fold its counters, count its exit, free its slot."""

    worker: Worker
    reason: Reason
    how: str


@dataclass(frozen=True)
class Committed(Action):
    """A generation's workers serve; the first time, the server is ready."""

    generation: int
    is_first: bool


@dataclass(frozen=True)
class Discarded(Action):
    """A generation never served."""

    generation: int
    traceback: str


@dataclass(frozen=True)
class Reloaded(Action):
    """The end of a reload somebody asked for; `traceback` is empty when it succeeded."""

    wish: Wish
    succeeded: bool
    traceback: str = ""


@dataclass(frozen=True)
class Superseded(Action):
    """A reload that never began, because a newer one was asked for."""

    wish: Wish


@dataclass(frozen=True)
class CloseListeners(Action):
    """Nothing of ours may accept any more, apart from the workers that drain."""


@dataclass(frozen=True)
class Leave(Action):
    """All is over; `failed` when the first generation never served."""

    failed: bool = False


@dataclass(frozen=True)
class Note(Action):
    """A line for the log."""

    level: str
    message: str
    keys: tuple[tuple[str, object], ...] = ()


Step = tuple[Fleet, tuple[Action, ...]]


def note(level: str, message: str, **keys: object) -> Note:
    return Note(level, message, tuple(keys.items()))


# -- the step ---------------------------------------------------------------------------------


def step(fleet: Fleet, event: Event, now: float, policy: Policy) -> Step:
    """Return the fleet after `event`, and what to do about it."""
    fleet, first = HANDLERS[type(event)](fleet, event, now, policy)
    fleet, second = balance(fleet, now, policy)
    return fleet, (*first, *second)


def next_deadline(fleet: Fleet, now: float, policy: Policy) -> float | None:
    """Return when `Tick` is due at the latest, None when only other events matter.

    What was due until `now` has been acted on by the step before; if it could not be (no slot, no
    mold), another event will make it possible, and asking again at once would be a busy loop.
    """
    times = [fleet.fork_at, fleet.next_drain_at]
    times += [worker.deadline for worker in fleet.workers.values() if worker.deadline is not None]
    times += [worker.left_at for worker in fleet.workers.values()]
    for generation in (fleet.current, fleet.booting):
        if generation is not None:
            times += [generation.mold.retry_at, generation.mold.started + policy.boot_timeout]
    return min((time for time in times if time > now), default=None)


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


def put(fleet: Fleet, *workers: Worker) -> Fleet:
    """Return the fleet with these workers added or replaced."""
    changed = {**fleet.workers, **{worker.id: worker for worker in workers}}
    return replace(fleet, workers=MappingProxyType(changed))


def drop(fleet: Fleet, gone: int) -> Fleet:
    rest = {id: worker for id, worker in fleet.workers.items() if id != gone}
    return replace(fleet, workers=MappingProxyType(rest))


# -- molds ------------------------------------------------------------------------------------


def put_mold(fleet: Fleet, number: int, **changes: object) -> Fleet:
    """Return the fleet with the mold of this generation changed, wherever it is."""
    for role in ("current", "booting"):
        generation: Generation | None = getattr(fleet, role)
        if generation is not None and generation.number == number:
            mold = replace(generation.mold, **changes)  # type: ignore[arg-type]
            return replace(fleet, **{role: replace(generation, mold=mold)})  # type: ignore[arg-type]
    return fleet


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


def is_booting(fleet: Fleet, number: int) -> bool:
    return fleet.booting is not None and fleet.booting.number == number


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


# -- balance ----------------------------------------------------------------------------------


def balance(fleet: Fleet, now: float, policy: Policy) -> Step:
    """Compare wanted and actual; each part acts on one kind of difference."""
    actions: list[Action] = []
    for part in (
        kill_overdue,
        abort_slow_mold,
        replace_mold,
        fork_missing,
        commit_generation,
        drain_surplus,
        finish_reload,
        begin_generation,
        leave_when_empty,
    ):
        fleet, more = part(fleet, now, policy)
        actions += more
    return fleet, tuple(actions)


def kill_overdue(fleet: Fleet, now: float, policy: Policy) -> Step:
    actions: list[Action] = []
    for worker in fleet.workers.values():
        if worker.deadline is None or worker.deadline > now:
            continue
        if not worker.pid:
            fleet, more = give_up_unborn(fleet, worker, now, policy)
            actions += more
        elif worker.is_killed:
            actions.append(KillWorker(worker.id, is_last=True))
            fleet = put(fleet, replace(worker, deadline=None))
        else:
            actions.append(KillWorker(worker.id, with_stack=worker.life is Life.BOOTING))
            fleet = put(fleet, replace(worker, deadline=now + QUICK_STOP_S, is_killed=True))
    return fleet, tuple(actions)


def give_up_unborn(fleet: Fleet, worker: Worker, now: float, policy: Policy) -> Step:
    """A worker that was ordered and never came to be: its mold hangs where it should fork.

    There is no process to kill; should there be one after all, it finds its channel closed, and ends.
    """
    fleet = drop(fleet, worker.id)
    actions: list[Action] = [Retired(worker, worker.leaving or Reason.CRASH, "never forked")]
    for generation in (fleet.current, fleet.booting):
        if generation is None or generation.number != worker.generation:
            continue
        if generation.mold.life is MoldLife.READY:
            hang = f"the mold did not fork a worker within {policy.boot_timeout:g} s"
            fleet = hang_mold(fleet, generation.number, hang, now)
            actions.append(AbortMold(generation.number))
    return fleet, tuple(actions)


def hang_mold(fleet: Fleet, number: int, hang: str, now: float) -> Fleet:
    return put_mold(fleet, number, life=MoldLife.HUNG, hang=hang, retry_at=now + QUICK_STOP_S)


def begin_generation(fleet: Fleet, now: float, policy: Policy) -> Step:
    """The first boot, or the next reload once the one before is done."""
    if fleet.phase is Phase.STOPPING or fleet.booting is not None:
        return fleet, ()
    if fleet.current is not None and (fleet.queued is None or fleet.handing is not None):
        return fleet, ()
    number = fleet.last_number + 1
    generation = Generation(number, Mold(MoldLife.BOOTING, started=now, preload=policy.preload))
    running = fleet.queued if fleet.current is not None else None
    queued = None if running is not None else fleet.queued
    fleet = replace(fleet, booting=generation, last_number=number, running=running, queued=queued)
    return fleet, (BootMold(number, policy.preload),)


def abort_slow_mold(fleet: Fleet, now: float, policy: Policy) -> Step:
    """Have a mold that takes too long write its stack; then give it up, whether it did or not."""
    actions: list[Action] = []
    for generation in (fleet.current, fleet.booting):
        if generation is None:
            continue
        number, mold = generation.number, generation.mold
        if mold.life is MoldLife.BOOTING and now >= mold.started + policy.boot_timeout:
            hang = f"the app did not import within {policy.boot_timeout:g} s; raise --boot-timeout"
            fleet = hang_mold(fleet, number, hang, now)
            actions.append(AbortMold(number))
        elif mold.life is MoldLife.HUNG and now >= mold.retry_at:
            fleet, more = end_mold(fleet, number, mold.hang, now, policy)
            actions += [StopMold(number), *more]
    return fleet, tuple(actions)


def replace_mold(fleet: Fleet, now: float, policy: Policy) -> Step:
    actions: list[Action] = []
    for generation in (fleet.current, fleet.booting):
        if fleet.phase is Phase.STOPPING or generation is None:
            continue
        mold = generation.mold
        if mold.life is MoldLife.LOST and mold.retry_at <= now:
            fleet = put_mold(fleet, generation.number, life=MoldLife.BOOTING, started=now)
            actions.append(
                BootMold(generation.number, mold.preload, is_replacement=mold.failures > 0)
            )
    return fleet, tuple(actions)


def fork_missing(fleet: Fleet, now: float, policy: Policy) -> Step:
    """Fork what is missing, of the generation that boots and of the one that serves."""
    actions: list[Action] = []
    if fleet.phase is Phase.STOPPING:
        return fleet, ()
    for generation in (fleet.current, fleet.booting):
        if generation is None or generation.mold.life is not MoldLife.READY:
            continue
        if generation is fleet.current and now < fleet.fork_at:
            continue
        there = sum(1 for worker in fleet.workers.values() if counts(worker, generation.number))
        for _ in range(fleet.desired - there):
            slot = free_slot(fleet)
            if slot is None:
                break
            number = fleet.last_worker + 1
            worker = Worker(
                number, slot, generation.number, Life.BOOTING, started=now, deadline=now + policy.boot_timeout
            )  # fmt: skip
            fleet = replace(put(fleet, worker), last_worker=number)
            actions.append(ForkWorker(number, slot, generation.number))
    return fleet, tuple(actions)


def counts(worker: Worker, generation: int) -> bool:
    """Tell whether a worker is one of those wanted of its generation."""
    stays = worker.life in (Life.BOOTING, Life.SERVING) and worker.leaving is None
    return stays and worker.generation == generation


def free_slot(fleet: Fleet) -> int | None:
    taken = {worker.slot for worker in fleet.workers.values()}
    return next((slot for slot in range(1, fleet.slots + 1) if slot not in taken), None)


def commit_generation(fleet: Fleet, now: float, policy: Policy) -> Step:
    """All workers of the booting generation are ready: it serves, the older ones leave."""
    if fleet.booting is None or fleet.booting.mold.life is not MoldLife.READY:
        return fleet, ()
    number = fleet.booting.number
    ready = [w for w in fleet.workers.values() if counts(w, number) and w.life is Life.SERVING]
    if len(ready) < fleet.desired:
        return fleet, ()
    old = fleet.current
    actions: list[Action] = [Committed(number, is_first=old is None)]
    actions += [StartWorker(worker.id) for worker in ready]
    if old is not None:
        actions.append(StopMold(old.number))
    leaving = [
        replace(worker, leaving=worker.leaving or Reason.RETIRED)
        for worker in fleet.workers.values()
        if worker.generation != number
    ]
    fleet = put(fleet, *leaving)
    fleet = replace(
        fleet, phase=Phase.SERVING, current=fleet.booting, booting=None, handing=fleet.running, running=None,
        crashes=0, fork_at=0.0,
    )  # fmt: skip
    return fleet, tuple(actions)


def drain_surplus(fleet: Fleet, now: float, policy: Policy) -> Step:
    """Drain one worker if the others are enough; those that are leaving first."""
    if fleet.phase is not Phase.SERVING or fleet.current is None or now < fleet.next_drain_at:
        return fleet, ()
    number = fleet.current.number
    staying = [w for w in fleet.workers.values() if counts(w, number)]
    serving = [w for w in staying if w.life is Life.SERVING]
    leaving = [
        w for w in fleet.workers.values()
        if w.leaving is not None and w.life in (Life.SERVING, Life.BOOTING)
    ]  # fmt: skip
    if leaving and len(serving) + len(leaving) > fleet.desired:
        chosen = leaving[0]
    elif not leaving and len(staying) > fleet.desired:
        chosen = max(staying, key=lambda worker: worker.id)
    else:
        return fleet, ()
    drained = replace(
        chosen, life=Life.DRAINING, leaving=chosen.leaving or Reason.RETIRED, left_at=now + LEAVE_MAX_S,
        deadline=now + policy.graceful_timeout,
    )  # fmt: skip
    fleet = replace(put(fleet, drained), next_drain_at=now + DRAIN_PACE_S)
    return fleet, (DrainWorker(chosen.id, "handover"),)


def finish_reload(fleet: Fleet, now: float, policy: Policy) -> Step:
    """A reload is done when no worker of an older generation takes requests any more."""
    if fleet.handing is None or fleet.current is None:
        return fleet, ()
    number = fleet.current.number
    old = [worker for worker in fleet.workers.values() if worker.generation != number]
    if any(worker.life is Life.SERVING or worker.left_at > now for worker in old):
        return fleet, ()
    return replace(fleet, handing=None), (Reloaded(fleet.handing, True),)


def leave_when_empty(fleet: Fleet, now: float, policy: Policy) -> Step:
    if fleet.phase is not Phase.STOPPING or fleet.workers:
        return fleet, ()
    return fleet, (Leave(failed=fleet.has_failed),)
