"""Random walks: whatever happens in whatever order, the fleet comes back to what is wanted.

The world answers each action as real processes do, at once, late, or by dying; then it calms down.
"""

import random

import pytest
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
    StartWorker,
    StopWorker,
    SupersedeReload,
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
    WorkerGone,
    WorkerLeaving,
    WorkerReady,
    WorkerSpawned,
    WorkerStuck,
)
from prefork.arbiter.fleet import (
    Fleet,
    Policy,
    ReloadRequest,
    Worker,
    rolling,
    surge_of,
)
from prefork.arbiter.machine import next_deadline, step
from prefork.base.stats import ExitReason, ServerState, WorkerState

STEPS = 150
CALM_S = 150.0


class World:
    """Processes that obey, with delays, and sometimes do not."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.fleet = Fleet(desired=self.random.randint(1, 4), slots=20)
        self.now = 100.0
        self.is_calm = False
        self.due: list[tuple[float, int, Event]] = []
        self.serial = 0
        self.accepting: set[int] = set()
        self.gated: set[int] = set()  # generations that must be healthy, and those that were
        self.healthy: set[int] = set()
        self.reloads: dict[str, int] = {}
        self.has_left = False
        self.exit_failed = False
        self.left_at = 0.0
        self.dispatch(Tick())

    def draw_policy(self) -> Policy:
        """Return the settings of a generation: each has its own."""
        return Policy(
            graceful_timeout=self.random.choice((2.0, 5.0, 12.0)),
            boot_timeout=self.random.choice((3.0, 10.0)),
            preload=self.random.random() < 0.7,
            checks_health=self.random.random() < 0.5,
        )

    def later(self, event: Event, least: float = 0.0, most: float = 0.5) -> None:
        self.serial += 1
        self.due.append((self.now + self.random.uniform(least, most), self.serial, event))

    def dispatch(self, event: Event) -> None:
        match event:
            case WorkerGone(worker):
                self.accepting.discard(worker)
                # The dead are silent.
                self.due = [d for d in self.due if getattr(d[2], "worker", None) != worker]
            case ReloadRequested(request):
                self.reloads[request.id] = 0
            case GenerationLoaded(number, policy, _) if policy.checks_health:
                self.gated.add(number)
            case HealthAnswered(worker, _, "") if worker in self.fleet.workers:
                self.healthy.add(self.fleet.workers[worker].generation)
        before = self.fleet
        self.fleet, actions = step(self.fleet, event, self.now)
        check_step(before, self.fleet, event, actions, self.now)
        for action in actions:
            self.obey(action)
        self.check()

    def obey(self, action: Action) -> None:
        goes_wrong = not self.is_calm and self.random.random() < 0.15
        match action:
            case LoadGeneration(number) if goes_wrong:
                self.later(MoldFailed(number, "bad settings"), 0, 0)
            case LoadGeneration(number) if number > 1 and self.random.random() < 0.2:
                self.later(GenerationPostponed(number), 0, 0)
            case LoadGeneration(number):
                surge = self.random.choice((None, None, 0, 1))
                self.later(GenerationLoaded(number, self.draw_policy(), surge), 0, 0)
            case BootMold(number) if goes_wrong:
                failures = (
                    MoldFailed(number, "no"),
                    MoldGone(number, "killed"),
                    PreloadUnsafe(number),
                )
                self.later(self.random.choice(failures))
            case BootMold(number):
                self.later(MoldReady(number))
            case AbortMold(number):
                self.later(MoldGone(number, "SIGABRT"), 0, 2)
            case ForkWorker() if goes_wrong and self.random.random() < 0.3:
                pass  # the mold hangs
            case ForkWorker(worker) if goes_wrong:
                self.later(WorkerGone(worker, "killed", signalled=True))
            case ForkWorker(worker):
                self.later(WorkerSpawned(worker, 1000 + worker), 0, 0.1)
                self.later(WorkerReady(worker), 0.1, 0.5)
            case CheckHealth() if goes_wrong and self.random.random() < 0.5:
                pass  # no answer
            case CheckHealth(worker, attempt):
                problem = "503" if goes_wrong else ""
                self.later(HealthAnswered(worker, attempt, problem), 0, 12 if goes_wrong else 1)
            case CommitGeneration(number, is_first):
                assert is_first or number not in self.gated or number in self.healthy
            case StartWorker(worker):
                assert worker not in self.accepting, "started twice"
                self.accepting.add(worker)
            case DrainWorker(worker):
                self.accepting.discard(worker)
                self.later(WorkerLeaving(worker), 0, 0.1)
                if not goes_wrong:
                    self.later(WorkerGone(worker, "exit code 0"), 0.1, 3)
            case StopWorker(worker) | KillWorker(worker):
                self.accepting.discard(worker)
                self.later(WorkerGone(worker, "exit code 0"), 0, 0.3)
            case FinishReload(request) | SupersedeReload(request):
                self.reloads[request.id] += 1
            case Leave(failed):
                self.has_left, self.exit_failed, self.left_at = True, failed, self.now

    def check(self) -> None:
        slots = [worker.slot for worker in self.fleet.workers.values()]
        assert len(slots) == len(set(slots))
        assert all(count <= 1 for count in self.reloads.values()), "a reload was answered twice"

    def disturb(self) -> None:
        """Let something happen that nobody ordered."""
        workers = [id for id, w in self.fleet.workers.items() if w.pid] or [99]
        current = self.fleet.current.number if self.fleet.current else 99
        self.dispatch(
            self.random.choice(
                [
                    Tick(),
                    WorkerGone(self.random.choice(workers), "killed", signalled=True),
                    WorkerStuck(self.random.choice(workers)),
                    RecycleRequested(self.random.choice(workers), ExitReason.MAX_REQUESTS),
                    WorkerLeaving(self.random.choice(workers)),
                    OnlyOverdueLeft(self.random.choice(workers)),
                    MoldGone(current, "killed"),
                    ReloadRequested(ReloadRequest(f"w{len(self.reloads)}")),
                    ScaleRequested(self.random.randint(1, 4)),
                ]
            )
        )

    def run(self, seconds: float) -> None:
        """Let time pass, and what is due happen."""
        until = self.now + seconds
        self.dispatch(
            Tick()
        )  # as the arbiter does in each turn, before it looks for the next deadline
        while not self.has_left:
            deadline = next_deadline(self.fleet, self.now)
            times = [until, *(time for time, _, _ in self.due)]
            if deadline is not None:
                times.append(deadline)
            self.now = max(self.now, min(times))
            if self.now >= until:
                return
            ready = sorted(entry for entry in self.due if entry[0] <= self.now)
            self.due = [entry for entry in self.due if entry[0] > self.now]
            for entry in ready:
                # An event of a worker that died in this very moment is dropped by the machine.
                self.dispatch(entry[2])
            self.dispatch(Tick())


def check_step(
    before: Fleet, after: Fleet, event: Event, actions: tuple[Action, ...], now: float
) -> None:
    """What holds for each step, whatever the history."""
    check_pause(before, after, actions, now)
    killed = {action.worker for action in actions if isinstance(action, KillWorker)}
    for id, worker in before.workers.items():
        if id in after.workers:
            check_worker(worker, after.workers[id], event, is_killed=id in killed)
    booting = rolling(after)
    if booting is not None and any(
        isinstance(action, ForkWorker) and action.generation == booting.number for action in actions
    ):
        assert len(after.workers) <= after.desired + surge_of(after, booting), "no room for it"
    for action in actions:
        if isinstance(action, CommitGeneration):
            assert (after.crashes, after.fork_at) == (0, 0.0), "a new generation starts afresh"


def check_pause(before: Fleet, after: Fleet, actions: tuple[Action, ...], now: float) -> None:
    """A pause after crashes is kept by the generation that crashed, and is never prolonged."""
    for action in actions:
        if isinstance(action, ForkWorker) and action.generation == after.serving_number():
            assert now >= after.fork_at, "forked before its time"
    if now < before.fork_at:
        assert after.fork_at in (before.fork_at, 0.0), "the pause was prolonged"
    if now < after.fork_at:
        due = next_deadline(after, now)
        assert due is not None
        assert due <= after.fork_at, "the arbiter would oversleep the end of the pause"


def check_worker(before: Worker, after: Worker, event: Event, *, is_killed: bool) -> None:
    """What a step may make of a worker."""
    if before.state is WorkerState.STUCK:
        assert after.state is WorkerState.STUCK, "a worker that is stuck stays it to its end"
    if before.state is not WorkerState.BOOTING and before.deadline is not None and not is_killed:
        assert after.deadline is not None, "a worker that had to be gone in time no longer has to"
        assert after.deadline <= before.deadline, "a deadline has grown"
    if event == RecycleRequested(after.id, ExitReason.MAX_REQUESTS):
        may_be = before.state is WorkerState.SERVING and before.leaving is None
        assert (
            may_be
            or after.leaving is not ExitReason.MAX_REQUESTS
            or before.leaving is after.leaving
        )
    if event == OnlyOverdueLeft(after.id) and before.state is not WorkerState.STUCK:
        kept = after.deadline == before.deadline
        assert kept or is_killed or after.state is not before.state, "not stuck, and yet hurried"


@pytest.mark.parametrize("seed", range(150))
def test_fleet_comes_back_to_what_is_wanted(seed: int):
    world = World(seed)
    for _ in range(STEPS):
        world.disturb()
        world.run(world.random.choice((0.0, 0.05, 0.5, 3.0)))
        if world.has_left:
            # Only a first boot that failed ends a server nobody stopped.
            assert world.exit_failed
            assert world.fleet.current is None
            return
    world.is_calm = True
    world.run(CALM_S)
    fleet = world.fleet
    assert fleet.state is ServerState.SERVING
    assert fleet.current is not None
    serving = [w for w in fleet.workers.values() if w.state is WorkerState.SERVING]
    assert len(serving) == len(fleet.workers) == fleet.desired
    assert {w.generation for w in serving} == {fleet.current.number}
    assert {w.id for w in serving} == world.accepting
    assert fleet.booting is fleet.queued is fleet.running is fleet.finishing is None
    assert set(world.reloads.values()) <= {1}, "a reload was never answered"
    world.dispatch(StopRequested())
    world.run(CALM_S)
    assert world.has_left
    assert not world.exit_failed


@pytest.mark.parametrize("seed", range(300))
def test_stop_at_any_moment_ends_everything_and_answers_every_reload(seed: int):
    world = World(seed)
    for _ in range(world.random.randint(0, 60)):
        world.disturb()
        world.run(world.random.choice((0.0, 0.01, 0.05, 0.5)))
        if world.has_left:
            assert set(world.reloads.values()) <= {1}, "a reload was not answered"
            return
    left = max((w.graceful_timeout for w in world.fleet.workers.values()), default=0.0)
    asked = world.now
    world.dispatch(StopRequested(quick=world.random.random() < 0.3))
    assert set(world.reloads.values()) <= {1}, "a reload was not answered"
    if world.random.random() < 0.3:
        world.dispatch(StopRequested(quick=True))
    world.is_calm = True
    world.run(CALM_S)
    assert world.has_left
    assert world.left_at <= asked + left + 5.0
