"""The arbiter's decisions, step by step, without a process."""

import itertools
from dataclasses import replace

import pytest
from prefork.arbiter.actions import (
    AbortMold,
    Action,
    BootMold,
    CheckHealth,
    CloseListeners,
    CommitGeneration,
    DiscardGeneration,
    DrainWorker,
    FinishReload,
    ForkWorker,
    KillWorker,
    Leave,
    LoadGeneration,
    RetireWorker,
    StartWorker,
    StopMold,
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
    WorkerFailed,
    WorkerGone,
    WorkerLeaving,
    WorkerReady,
    WorkerSpawned,
    WorkerStuck,
)
from prefork.arbiter.fleet import Fleet, MoldState, Policy, ReloadRequest, put
from prefork.arbiter.machine import next_deadline, step
from prefork.arbiter.reconcile import DRAIN_PACE_S, HEALTH_ANSWER_S, HEALTH_REPORT_S, ORDERS_MAX
from prefork.arbiter.transitions import (
    BACKOFF_MAX_S,
    CALM_S,
    EARLY_S,
    HEALTH_ATTEMPTS,
    HEALTH_PAUSE_S,
    QUICK_STOP_S,
    SERVED_BACKOFF_MAX_S,
    STACK_S,
)
from prefork.base.stats import ExitReason, ServerState, WorkerState

POLICY = Policy(graceful_timeout=30.0, boot_timeout=60.0, preload=True)


class Simulation:
    """A fleet whose processes do what they are told, when the test says so."""

    def __init__(self, workers: int = 2, *, slots: int = 16) -> None:
        self.fleet = Fleet(desired=workers, slots=slots)
        self.now = 1000.0
        self.policy = POLICY
        self.surge: int | None = None
        self.actions: list[Action] = []

    def dispatch(self, event: Event) -> list[Action]:
        """Let an event happen; the settings of a new generation are read at once."""
        self.fleet, stepped = step(self.fleet, event, self.now)
        actions = list(stepped)
        for action in stepped:
            if isinstance(action, LoadGeneration):
                actions.remove(action)
                self.fleet, more = step(
                    self.fleet,
                    GenerationLoaded(action.generation, self.policy, self.surge),
                    self.now,
                )
                actions += more
        self.actions += actions
        return actions

    def wait(self, seconds: float) -> list[Action]:
        """Let time pass as the arbiter would: a tick at each deadline."""
        until, seen = self.now + seconds, []
        while True:
            due = next_deadline(self.fleet, self.now)
            self.now = min(until, due if due is not None else until)
            seen += self.dispatch(Tick())
            if self.now >= until:
                return seen

    def boot(self) -> None:
        """Bring the booting generation's mold and workers to ready."""
        if not self.fleet.booting and not self.fleet.current:
            self.dispatch(Tick())
        assert self.fleet.booting is not None
        self.dispatch(MoldReady(self.fleet.booting.number))
        self.ready_all()

    def ready_all(self) -> list[Action]:
        seen = []
        for id in sorted(self.fleet.workers):
            if self.fleet.workers[id].state is WorkerState.BOOTING:
                seen += self.dispatch(WorkerSpawned(id, pid=10_000 + id))
                seen += self.dispatch(WorkerReady(id))
        return seen

    def leave(self, *workers: int) -> None:
        """Have workers confirm that they take no more requests."""
        for id in workers:
            self.dispatch(WorkerLeaving(id))

    def serving(self, generation: int | None = None) -> list[int]:
        return [
            w.id
            for w in self.fleet.workers.values()
            if w.state is WorkerState.SERVING and generation in (None, w.generation)
        ]

    def of(self, *kinds: type[Action]) -> list[Action]:
        return [action for action in self.actions if isinstance(action, kinds)]

    def forget(self) -> None:
        self.actions.clear()


def started(workers: int = 2) -> Simulation:
    simulation = Simulation(workers)
    simulation.boot()
    simulation.forget()
    return simulation


def test_first_boot_imports_once_and_forks_the_wanted_workers():
    simulation = Simulation(workers=3)
    assert simulation.dispatch(Tick()) == [BootMold(1, True)]
    forks = simulation.dispatch(MoldReady(1))
    assert forks == [ForkWorker(id, slot=id, generation=1) for id in (1, 2, 3)]
    assert simulation.fleet.state is ServerState.BOOTING
    simulation.ready_all()
    assert simulation.fleet.state is ServerState.SERVING
    assert simulation.of(CommitGeneration) == [CommitGeneration(1, is_first=True)]


def test_first_boot_that_does_not_import_ends_the_server_as_failed():
    simulation = Simulation()
    simulation.dispatch(Tick())
    actions = simulation.dispatch(MoldFailed(1, "ImportError: no"))
    assert DiscardGeneration(1, "ImportError: no") in actions
    assert Leave(failed=True) in actions


def test_first_boot_whose_worker_dies_ends_the_server_once_the_others_are_gone():
    simulation = Simulation(workers=2)
    simulation.dispatch(Tick())
    simulation.dispatch(MoldReady(1))
    actions = simulation.dispatch(WorkerGone(1, "exit code 1"))
    assert StopWorker(2) in actions
    assert not any(isinstance(action, Leave) for action in actions)
    assert Leave(failed=True) in simulation.dispatch(WorkerGone(2, "exit code 0"))


def test_stop_during_the_first_boot_is_no_failure():
    simulation = Simulation()
    simulation.dispatch(Tick())
    simulation.dispatch(MoldReady(1))
    simulation.dispatch(StopRequested())
    simulation.dispatch(WorkerGone(1, "exit code 0"))
    assert Leave(failed=False) in simulation.dispatch(WorkerGone(2, "exit code 0"))


def test_reload_drains_old_workers_only_when_all_new_ones_are_ready():
    simulation = started(workers=2)
    assert simulation.dispatch(ReloadRequested(ReloadRequest("r"))) == [BootMold(2, True)]
    simulation.dispatch(MoldReady(2))
    simulation.dispatch(WorkerReady(3))
    assert simulation.of(DrainWorker, StartWorker) == []
    assert len(simulation.serving(1)) == 2
    simulation.dispatch(WorkerReady(4))
    assert simulation.of(StartWorker) == [StartWorker(3), StartWorker(4)]
    assert simulation.of(DrainWorker) == [DrainWorker(1, "handover")]
    assert simulation.of(FinishReload) == []
    simulation.wait(DRAIN_PACE_S)
    assert simulation.of(DrainWorker) == [
        DrainWorker(1, "handover"),
        DrainWorker(2, "handover"),
    ]
    assert simulation.of(FinishReload) == []
    simulation.dispatch(WorkerLeaving(1))
    assert simulation.of(FinishReload) == []
    simulation.dispatch(WorkerLeaving(2))
    assert simulation.of(FinishReload) == [FinishReload(ReloadRequest("r"), True)]
    assert StopMold(1) in simulation.actions


def test_reload_waits_for_an_old_worker_that_does_not_confirm_until_that_is_killed():
    simulation = started(workers=1)
    simulation.dispatch(ReloadRequested(ReloadRequest("r")))
    simulation.boot()
    simulation.wait(POLICY.graceful_timeout - 0.01)
    assert simulation.of(FinishReload, KillWorker) == []
    simulation.wait(0.02)
    assert simulation.of(KillWorker) == [KillWorker(1)]
    assert simulation.of(FinishReload) == []
    simulation.dispatch(WorkerGone(1, "killed"))
    assert simulation.of(FinishReload) == [FinishReload(ReloadRequest("r"), True)]


@pytest.mark.parametrize("confirms_first", [True, False])
def test_reload_counts_the_word_of_an_old_worker_that_is_stuck(confirms_first: bool):
    simulation = started(workers=1)
    simulation.dispatch(ReloadRequested(ReloadRequest("r")))
    simulation.boot()
    first, second = WorkerStuck(1), WorkerLeaving(1)
    if confirms_first:
        first, second = second, first
    simulation.dispatch(first)
    assert bool(simulation.of(FinishReload)) is confirms_first
    simulation.dispatch(second)
    assert simulation.of(FinishReload) == [FinishReload(ReloadRequest("r"), True)]
    assert simulation.fleet.workers[1].state is WorkerState.STUCK


def test_reload_that_does_not_import_leaves_the_old_generation_serving():
    simulation = started(workers=2)
    simulation.dispatch(ReloadRequested(ReloadRequest("r")))
    simulation.dispatch(MoldFailed(2, "SyntaxError: x"))
    assert simulation.of(FinishReload) == [
        FinishReload(ReloadRequest("r"), False, "SyntaxError: x")
    ]
    assert simulation.serving() == [1, 2]
    assert simulation.fleet.current is not None
    assert simulation.fleet.current.number == 1
    assert simulation.of(DrainWorker, StopWorker) == []


def test_reload_whose_worker_dies_before_it_is_ready_fails_and_takes_the_new_workers_down():
    simulation = started(workers=2)
    simulation.dispatch(ReloadRequested(ReloadRequest("r")))
    simulation.dispatch(MoldReady(2))
    simulation.dispatch(WorkerReady(3))
    simulation.dispatch(WorkerGone(4, "exit code 3"))
    assert StopWorker(3) in simulation.actions
    assert simulation.of(StartWorker) == []
    assert simulation.of(FinishReload) == [
        FinishReload(ReloadRequest("r"), False, "a worker ended before it was ready (exit code 3)")
    ]
    assert simulation.serving() == [1, 2]


def test_reload_after_a_failed_one_takes_a_new_number():
    simulation = started()
    simulation.dispatch(ReloadRequested(ReloadRequest("a")))
    simulation.dispatch(MoldFailed(2, "no"))
    assert BootMold(3, True) in simulation.dispatch(ReloadRequested(ReloadRequest("b")))


def test_second_reload_waits_and_the_newest_wins():
    simulation = started()
    simulation.dispatch(ReloadRequested(ReloadRequest("a")))
    simulation.dispatch(ReloadRequested(ReloadRequest("b")))
    simulation.dispatch(ReloadRequested(ReloadRequest("c")))
    assert simulation.of(SupersedeReload) == [SupersedeReload(ReloadRequest("b"))]
    assert simulation.of(FinishReload) == []
    simulation.boot()
    simulation.wait(2)
    simulation.leave(1, 2)
    assert FinishReload(ReloadRequest("a"), True) in simulation.actions
    assert simulation.fleet.running == ReloadRequest("c")
    simulation.boot()
    simulation.wait(2)
    simulation.leave(3, 4)
    assert simulation.of(FinishReload)[-1] == FinishReload(ReloadRequest("c"), True)


def test_reload_asked_during_the_first_boot_follows_it():
    simulation = Simulation()
    simulation.dispatch(Tick())
    simulation.dispatch(ReloadRequested(ReloadRequest("r")))
    simulation.boot()
    assert simulation.fleet.running == ReloadRequest("r")
    assert BootMold(2, True) in simulation.actions


def test_import_that_hangs_is_given_up_with_its_stack():
    simulation = started()
    simulation.dispatch(ReloadRequested(ReloadRequest("r")))
    simulation.wait(POLICY.boot_timeout)
    assert AbortMold(2) in simulation.actions
    simulation.wait(3)  # a busy machine
    assert simulation.of(FinishReload) == []
    simulation.dispatch(MoldGone(2, "signal SIGABRT", stack="File app.py, line 2"))
    why = "File app.py, line 2\nthe app did not import within 60 s; raise --boot-timeout"
    assert simulation.of(FinishReload) == [FinishReload(ReloadRequest("r"), False, why)]
    assert simulation.serving() == [1, 2]


def test_import_that_hangs_beyond_being_told_to_end_is_given_up_all_the_same():
    simulation = started()
    simulation.dispatch(ReloadRequested(ReloadRequest("r")))
    simulation.wait(POLICY.boot_timeout + STACK_S)
    assert StopMold(2) in simulation.actions
    assert len(simulation.of(FinishReload)) == 1
    assert simulation.serving() == [1, 2]


def test_mold_that_does_not_fork_fails_its_reload_with_its_stack():
    simulation = started()
    simulation.dispatch(ReloadRequested(ReloadRequest("r")))
    simulation.dispatch(MoldReady(2))
    simulation.dispatch(WorkerReady(3))
    simulation.wait(POLICY.boot_timeout - 1)
    assert simulation.of(AbortMold, FinishReload) == []
    simulation.wait(1)
    assert simulation.of(AbortMold) == [AbortMold(2)]
    simulation.dispatch(MoldGone(2, "signal SIGABRT", stack="File gunicorn.conf.py, line 2"))
    why = "File gunicorn.conf.py, line 2\nthe mold did not fork a worker within 60 s"
    assert simulation.of(FinishReload) == [FinishReload(ReloadRequest("r"), False, why)]
    assert simulation.serving() == [1, 2]


def test_mold_that_is_frozen_is_replaced_and_so_are_the_workers_it_did_not_fork():
    simulation = started()
    simulation.dispatch(WorkerGone(1, "signal SIGKILL", signalled=True))
    assert simulation.of(ForkWorker) == [ForkWorker(3, slot=1, generation=1)]
    simulation.wait(POLICY.boot_timeout + STACK_S)
    assert simulation.of(AbortMold, StopMold) == [AbortMold(1), StopMold(1)]
    assert simulation.of(BootMold) == [BootMold(1, True, is_replacement=True)]
    simulation.dispatch(MoldReady(1))
    simulation.wait(1)
    assert ForkWorker(4, slot=1, generation=1) in simulation.actions
    simulation.ready_all()
    assert simulation.serving() == [2, 4]


def test_worker_that_was_never_forked_does_not_hold_up_a_stop():
    simulation = started()
    simulation.dispatch(WorkerGone(1, "signal SIGKILL", signalled=True))
    simulation.dispatch(StopRequested(quick=True))
    simulation.dispatch(WorkerGone(2, "exit code 0"))
    assert Leave(failed=False) in simulation.wait(QUICK_STOP_S)


def test_replacement_of_a_mold_that_hangs_is_tried_again():
    simulation = started()
    simulation.dispatch(MoldGone(1, "signal SIGKILL"))
    simulation.wait(POLICY.boot_timeout)
    assert AbortMold(1) in simulation.actions
    simulation.dispatch(MoldGone(1, "signal SIGABRT"))
    simulation.wait(1)
    assert len(simulation.of(BootMold)) == 2
    assert simulation.serving() == [1, 2]


def test_threads_left_by_the_import_make_each_worker_import_for_itself():
    simulation = Simulation()
    simulation.dispatch(Tick())
    assert simulation.dispatch(PreloadUnsafe(1)) == [BootMold(1, False)]
    simulation.boot()
    assert simulation.fleet.state is ServerState.SERVING


def test_steady_deaths_of_workers_that_served_never_stop_the_app_for_long():
    simulation = started(workers=4)
    down_s, longest_s = 0.0, 0.0
    for _ in range(100):
        for worker in simulation.serving()[:1]:
            simulation.dispatch(WorkerGone(worker, "signal SIGKILL", signalled=True))
        simulation.wait(0.4)
        down_s = 0.0 if simulation.fleet.workers else down_s + 0.4
        longest_s = max(longest_s, down_s)
        simulation.ready_all()
    assert longest_s <= SERVED_BACKOFF_MAX_S


def test_killed_worker_is_replaced_at_once():
    simulation = started()
    actions = simulation.dispatch(WorkerGone(1, "signal SIGKILL", signalled=True))
    assert isinstance(actions[0], RetireWorker)
    assert actions[0].reason is ExitReason.KILLED
    assert actions[1] == ForkWorker(3, slot=1, generation=1)


def test_all_workers_killed_at_once_are_all_replaced_at_once():
    simulation = started(workers=8)
    for id in range(1, 9):
        simulation.dispatch(WorkerGone(id, "signal SIGKILL", signalled=True))
    assert len(simulation.of(ForkWorker)) == 8


def test_crash_loop_backs_off_and_calms_down_again():
    simulation = started(workers=1)
    delays = []
    for _ in range(20):
        (id,) = simulation.fleet.workers or (None,)
        if id is None:
            before = simulation.now
            simulation.wait(BACKOFF_MAX_S + 1)
            delays.append(round(simulation.now - before))
            (id,) = simulation.fleet.workers
        simulation.dispatch(WorkerGone(id, "exit code 1"))
        if simulation.fleet.fork_at:
            delays.append(simulation.fleet.fork_at - simulation.now)
            simulation.now = simulation.fleet.fork_at
            simulation.dispatch(Tick())
    assert delays[:3] == pytest.approx([0.2, 0.4, 0.8])
    assert max(delays) == BACKOFF_MAX_S
    simulation.dispatch(WorkerReady(max(simulation.fleet.workers)))
    simulation.wait(CALM_S)
    simulation.dispatch(WorkerGone(max(simulation.fleet.workers), "exit code 1"))
    assert len(simulation.fleet.workers) == 1
    simulation.dispatch(WorkerGone(max(simulation.fleet.workers), "exit code 1"))
    assert simulation.fleet.crashes == 1
    assert len(simulation.fleet.workers) == 1


def test_workers_that_are_killed_again_and_again_after_having_served_are_replaced_at_once():
    simulation = started(workers=2)
    for _ in range(30):
        simulation.wait(EARLY_S)
        simulation.dispatch(
            WorkerGone(min(simulation.fleet.workers), "signal SIGKILL", signalled=True)
        )
        simulation.ready_all()
        assert len(simulation.serving()) == 2


def test_lost_mold_is_booted_again_and_its_workers_go_on():
    simulation = started()
    actions = simulation.dispatch(MoldGone(1, "signal SIGKILL"))
    assert BootMold(1, True, is_replacement=True) in actions
    assert simulation.serving() == [1, 2]
    simulation.dispatch(WorkerGone(1, "exit code 1"))
    assert simulation.of(ForkWorker) == []
    assert ForkWorker(3, slot=1, generation=1) in simulation.dispatch(MoldReady(1))


def test_mold_that_keeps_failing_is_retried_with_growing_pauses():
    simulation = started()
    simulation.dispatch(MoldGone(1, "signal SIGKILL"))
    pauses = []
    for _ in range(12):
        simulation.dispatch(MoldFailed(1, "no"))
        assert simulation.fleet.current is not None
        pauses.append(simulation.fleet.current.mold.retry_at - simulation.now)
        simulation.wait(pauses[-1])
    assert pauses == sorted(pauses)
    assert pauses[-1] == BACKOFF_MAX_S
    assert simulation.serving() == [1, 2]


def test_reload_works_while_the_serving_generation_has_no_mold():
    simulation = started()
    simulation.dispatch(MoldGone(1, "signal SIGKILL"))
    simulation.dispatch(MoldFailed(1, "no"))
    simulation.dispatch(ReloadRequested(ReloadRequest("r")))
    simulation.boot()
    simulation.wait(2)
    simulation.leave(1, 2)
    assert FinishReload(ReloadRequest("r"), True) in simulation.actions


def test_full_worker_is_drained_when_its_replacement_is_ready():
    simulation = started()
    actions = simulation.dispatch(RecycleRequested(1, ExitReason.MAX_REQUESTS))
    assert actions == [ForkWorker(3, slot=3, generation=1)]
    assert simulation.dispatch(WorkerReady(3)) == [StartWorker(3), DrainWorker(1, "handover")]
    (retired,) = simulation.dispatch(WorkerGone(1, "exit code 0"))
    assert isinstance(retired, RetireWorker)
    assert retired.reason is ExitReason.MAX_REQUESTS


def test_stuck_worker_is_replaced_at_once_and_killed_when_only_its_stuck_call_is_left():
    simulation = started()
    simulation.dispatch(WorkerSpawned(1, 77))
    assert simulation.dispatch(WorkerStuck(1)) == [
        DrainWorker(1, "handover"),
        ForkWorker(3, slot=3, generation=1),
    ]
    assert simulation.dispatch(OnlyOverdueLeft(1)) == [KillWorker(1)]
    (retired,) = simulation.dispatch(WorkerGone(1, "signal SIGKILL", signalled=True))
    assert isinstance(retired, RetireWorker)
    assert retired.reason is ExitReason.TIMEOUT


def test_worker_that_gets_stuck_while_it_drains_is_ordered_again():
    """The arbiter may have found it stuck by itself: then the worker does not know."""
    simulation = started()
    simulation.dispatch(ScaleRequested(1))
    assert DrainWorker(2, "handover") in simulation.dispatch(WorkerStuck(2))


def test_stuck_worker_with_other_calls_gets_the_graceful_timeout():
    simulation = started()
    simulation.dispatch(WorkerStuck(1))
    assert KillWorker(1) not in simulation.wait(POLICY.graceful_timeout - 1)
    assert KillWorker(1) in simulation.wait(2)


def test_draining_worker_is_killed_after_the_graceful_timeout():
    simulation = started()
    simulation.dispatch(ScaleRequested(1))
    assert simulation.of(DrainWorker) == [DrainWorker(2, "handover")]
    assert KillWorker(2) in simulation.wait(POLICY.graceful_timeout + 1)


def test_worker_that_never_gets_ready_is_killed_with_its_stack():
    simulation = started()
    simulation.dispatch(WorkerGone(1, "signal SIGKILL", signalled=True))
    simulation.dispatch(WorkerSpawned(3, 88))
    assert KillWorker(3, with_stack=True) in simulation.wait(POLICY.boot_timeout + 1)


def test_worker_that_outlives_its_kill_is_killed_for_good():
    simulation = started()
    simulation.dispatch(WorkerGone(1, "signal SIGKILL", signalled=True))
    simulation.dispatch(WorkerSpawned(3, 88))
    simulation.wait(POLICY.boot_timeout + 60)
    assert simulation.of(KillWorker) == [
        KillWorker(3, with_stack=True),
        KillWorker(3, is_last=True),
    ]


def test_scaling_up_and_down():
    simulation = started(workers=2)
    assert simulation.dispatch(ScaleRequested(3)) == [ForkWorker(3, slot=3, generation=1)]
    simulation.ready_all()
    simulation.dispatch(ScaleRequested(1))
    simulation.wait(1)
    assert simulation.of(DrainWorker) == [
        DrainWorker(3, "handover"),
        DrainWorker(2, "handover"),
    ]
    assert simulation.serving() == [1]


def test_scaling_during_a_reload_ends_with_the_wanted_number():
    simulation = started(workers=2)
    simulation.dispatch(ReloadRequested(ReloadRequest("r")))
    simulation.dispatch(MoldReady(2))
    simulation.dispatch(ScaleRequested(3))
    simulation.ready_all()
    simulation.wait(1)
    assert len(simulation.serving(2)) == 3
    assert simulation.serving(1) == []


def test_without_free_slots_workers_wait_for_one():
    simulation = Simulation(workers=2, slots=3)
    simulation.boot()
    simulation.dispatch(ReloadRequested(ReloadRequest("r")))
    simulation.dispatch(MoldReady(2))
    assert len(simulation.fleet.workers) == 3


def test_graceful_stop_drains_and_leaves_when_all_are_gone():
    simulation = started()
    actions = simulation.dispatch(StopRequested())
    assert actions == [
        StopMold(1),
        CloseListeners(),
        DrainWorker(1, "close"),
        DrainWorker(2, "close"),
    ]
    simulation.dispatch(WorkerGone(1, "exit code 0"))
    assert simulation.dispatch(WorkerGone(2, "exit code 0"))[-1] == Leave(failed=False)
    assert simulation.of(ForkWorker) == []


def test_graceful_stop_kills_what_is_left_after_the_graceful_timeout():
    simulation = started()
    simulation.dispatch(StopRequested())
    killed = simulation.wait(POLICY.graceful_timeout + 1)
    assert KillWorker(1) in killed
    assert KillWorker(2) in killed


def test_quick_stop_after_a_graceful_one_does_not_wait():
    simulation = started()
    simulation.dispatch(StopRequested())
    assert StopWorker(1) in simulation.dispatch(StopRequested(quick=True))
    assert KillWorker(1) in simulation.wait(QUICK_STOP_S + 0.1)


def test_stop_answers_every_reload_that_is_waiting():
    simulation = started()
    simulation.dispatch(ReloadRequested(ReloadRequest("a")))
    simulation.dispatch(ReloadRequested(ReloadRequest("b")))
    simulation.dispatch(StopRequested())
    assert simulation.of(FinishReload) == [
        FinishReload(ReloadRequest("a"), False, "the server is stopping"),
        FinishReload(ReloadRequest("b"), False, "the server is stopping"),
    ]
    simulation.dispatch(ReloadRequested(ReloadRequest("c")))
    assert simulation.of(FinishReload)[-1] == FinishReload(
        ReloadRequest("c"), False, "the server is stopping"
    )


def every_event() -> list[Event]:
    workers, molds = (1, 3, 99), (1, 2, 99)
    return [
        Tick(),
        *(GenerationLoaded(n, POLICY) for n in molds),
        *(GenerationPostponed(n) for n in molds),
        *(MoldReady(n) for n in molds),
        *(PreloadUnsafe(n) for n in molds),
        *(MoldFailed(n, "no") for n in molds),
        *(MoldGone(n, "gone") for n in molds),
        *(WorkerSpawned(n, 5) for n in workers),
        *(WorkerReady(n) for n in workers),
        *(HealthAnswered(n, 1) for n in workers),
        *(HealthAnswered(n, 1, "503") for n in workers),
        *(WorkerFailed(n, "no") for n in workers),
        *(RecycleRequested(n, ExitReason.MEMORY) for n in workers),
        *(WorkerStuck(n) for n in workers),
        *(OnlyOverdueLeft(n) for n in workers),
        *(WorkerLeaving(n) for n in workers),
        *(WorkerGone(n, "gone") for n in workers),
        ReloadRequested(ReloadRequest("x")),
        ScaleRequested(1),
        ScaleRequested(3),
        StopRequested(),
        StopRequested(quick=True),
    ]


def fleets() -> dict[str, Fleet]:
    fresh = Simulation()
    fresh.dispatch(Tick())
    serving = started()
    reloading = started()
    reloading.dispatch(ReloadRequested(ReloadRequest("r")))
    reloading.dispatch(MoldReady(2))
    stopping = started()
    stopping.dispatch(StopRequested())
    found = {
        "new": Fleet(desired=2, slots=16),
        "booting": fresh.fleet,
        "serving": serving.fleet,
        "reloading": reloading.fleet,
        "stopping": stopping.fleet,
    }
    for state in WorkerState:
        worker = replace(serving.fleet.workers[1], state=state, leaving=ExitReason.RETIRED)
        found[f"worker {state.name}"] = put(serving.fleet, worker)
    return found


@pytest.mark.parametrize("name", fleets())
def test_every_event_has_an_answer_in_every_state(name: str):
    """Also pairs of events: none raises, none leaves the fleet in contradiction with itself."""
    begin = fleets()[name]
    for first, second in itertools.product(every_event(), repeat=2):
        fleet = begin
        for event in (first, second):
            fleet, actions = step(fleet, event, 2000.0)
            check_consistent(fleet, actions)


def check_consistent(fleet: Fleet, actions: tuple[Action, ...]) -> None:
    slots = [worker.slot for worker in fleet.workers.values()]
    assert len(slots) == len(set(slots)), "two workers in one slot"
    assert all(1 <= slot <= fleet.slots for slot in slots)
    forked = [action.worker for action in actions if isinstance(action, ForkWorker)]
    assert len(forked) == len(set(forked))
    assert fleet.booting is None or fleet.state is not ServerState.STOPPING
    if fleet.state is ServerState.SERVING:
        assert fleet.current is not None
    if fleet.booting is not None and fleet.current is not None:
        assert fleet.booting.number > fleet.current.number
        assert fleet.booting.mold.state in MoldState
    drained = {action.worker for action in actions if isinstance(action, DrainWorker)}
    for id in drained & set(fleet.workers):
        assert fleet.workers[id].state in (WorkerState.DRAINING, WorkerState.STUCK)


# -- health ---------------------------------------------------------------------------------------


def asking(workers: int = 2) -> Simulation:
    """Return a reload whose new workers are ready and one of them was asked for its health."""
    simulation = started(workers)
    simulation.policy = replace(POLICY, checks_health=True)
    simulation.dispatch(ReloadRequested(ReloadRequest("a")))
    simulation.dispatch(MoldReady(2))
    assert not simulation.of(CheckHealth)
    simulation.ready_all()
    return simulation


def asked(simulation: Simulation) -> CheckHealth:
    (*_, last) = simulation.of(CheckHealth)
    assert isinstance(last, CheckHealth)
    return last


def test_generation_that_must_be_healthy_is_asked_once_all_its_workers_are_ready_and_then_serves():
    simulation = asking()
    assert simulation.of(CheckHealth) == [CheckHealth(3, 1, HEALTH_ANSWER_S)]
    assert not simulation.of(CommitGeneration, StartWorker, DrainWorker)
    simulation.wait(HEALTH_ANSWER_S / 2)
    assert len(simulation.of(CheckHealth)) == 1
    actions = simulation.dispatch(HealthAnswered(3, 1))
    assert CommitGeneration(2, is_first=False) in actions
    simulation.wait(60)
    assert len(simulation.of(CheckHealth)) == 1


def test_first_generation_serves_without_being_asked():
    simulation = Simulation()
    simulation.policy = replace(POLICY, checks_health=True)
    simulation.boot()
    assert simulation.fleet.state is ServerState.SERVING
    assert not simulation.of(CheckHealth)


def test_generation_that_is_never_healthy_is_given_up_after_three_workers_were_asked_in_turn():
    simulation = asking(workers=2)
    for attempt, worker in ((1, 3), (2, 4), (3, 3)):
        assert asked(simulation) == CheckHealth(worker, attempt, HEALTH_ANSWER_S)
        simulation.dispatch(HealthAnswered(worker, attempt, "GET /h answered 503"))
        simulation.wait(HEALTH_PAUSE_S - 0.01)
        assert len(simulation.of(CheckHealth)) == attempt
        simulation.wait(0.02)
    (finished,) = simulation.of(FinishReload)
    assert isinstance(finished, FinishReload)
    assert not finished.succeeded
    assert finished.traceback == (
        f"the new generation is not healthy: GET /h answered 503 ({HEALTH_ATTEMPTS} attempts)"
    )
    assert simulation.serving() == [1, 2]
    assert not simulation.of(CommitGeneration, DrainWorker)


def test_answer_that_does_not_come_counts_as_bad_and_a_late_one_not_at_all():
    simulation = asking()
    simulation.wait(HEALTH_ANSWER_S + HEALTH_REPORT_S - 0.01)
    assert len(simulation.of(CheckHealth)) == 1
    simulation.wait(0.02 + HEALTH_PAUSE_S)
    assert asked(simulation) == CheckHealth(4, 2, HEALTH_ANSWER_S)
    simulation.dispatch(HealthAnswered(3, 1))
    simulation.dispatch(HealthAnswered(3, 2))
    assert not simulation.of(CommitGeneration)
    simulation.dispatch(HealthAnswered(4, 2))
    assert simulation.of(CommitGeneration)


def test_question_takes_no_longer_than_a_boot_may():
    simulation = started()
    simulation.policy = replace(POLICY, checks_health=True, boot_timeout=2.0)
    simulation.dispatch(ReloadRequested(ReloadRequest("a")))
    simulation.boot()
    assert asked(simulation).within_s == 2.0


# -- pauses and deadlines --------------------------------------------------------------------------


def test_fork_after_crashes_waits_for_its_pause_and_no_longer():
    """Nothing else happens meanwhile: the pause alone must wake the arbiter."""
    simulation = started(workers=1)
    while simulation.fleet.fork_at <= simulation.now:
        simulation.dispatch(WorkerGone(max(simulation.fleet.workers), "exit code 7"))
        simulation.ready_all()
    fork_at = simulation.fleet.fork_at
    simulation.forget()
    assert next_deadline(simulation.fleet, simulation.now) == fork_at
    simulation.wait(fork_at - simulation.now - 0.001)
    assert simulation.of(ForkWorker) == []
    simulation.wait(0.001)
    assert len(simulation.of(ForkWorker)) == 1


def test_reload_that_is_being_finished_is_answered_when_the_server_stops():
    simulation = started(workers=1)
    simulation.dispatch(ReloadRequested(ReloadRequest("a")))
    simulation.boot()
    simulation.dispatch(ReloadRequested(ReloadRequest("b")))
    assert simulation.of(FinishReload) == []
    simulation.dispatch(StopRequested())
    assert simulation.of(FinishReload) == [
        FinishReload(ReloadRequest("b"), False, "the server is stopping"),
        FinishReload(ReloadRequest("a"), True),
    ]


def test_lost_mold_is_booted_again_when_its_pause_ends_and_nothing_else_happens():
    simulation = started(workers=1)
    for _ in range(2):
        simulation.dispatch(MoldGone(1, "signal SIGKILL"))
        simulation.dispatch(MoldFailed(1, "no"))
    assert simulation.fleet.current is not None
    retry_at = simulation.fleet.current.mold.retry_at
    assert retry_at > simulation.now
    assert next_deadline(simulation.fleet, simulation.now) == retry_at
    simulation.forget()
    simulation.wait(retry_at - simulation.now)
    assert simulation.of(BootMold) == [BootMold(1, True, is_replacement=True)]


def test_old_worker_has_the_graceful_timeout_of_its_own_generation():
    simulation = started(workers=1)
    simulation.policy = replace(POLICY, graceful_timeout=POLICY.graceful_timeout / 10)
    simulation.dispatch(ReloadRequested(ReloadRequest("r")))
    simulation.boot()
    simulation.wait(POLICY.graceful_timeout - 0.01)
    assert simulation.of(KillWorker) == []
    simulation.wait(0.02)
    assert simulation.of(KillWorker) == [KillWorker(1)]


def test_orders_to_fork_wait_until_the_mold_has_carried_out_earlier_ones():
    simulation = Simulation(workers=100, slots=300)
    simulation.dispatch(Tick())
    assert len(simulation.dispatch(MoldReady(1))) == ORDERS_MAX
    for worker in range(1, 101):
        assert worker in simulation.fleet.workers
        more = simulation.dispatch(WorkerSpawned(worker, 1000 + worker))
        assert len(more) == (1 if worker <= 100 - ORDERS_MAX else 0)
    assert len(simulation.of(ForkWorker)) == 100


# -- a reload worker by worker ---------------------------------------------------------------------


def roll(surge: int, workers: int = 3, *, checks_health: bool = False) -> Simulation:
    """Return a reload for which memory is short, with its app imported."""
    simulation = started(workers)
    simulation.surge = surge
    simulation.policy = replace(POLICY, checks_health=checks_health)
    simulation.dispatch(ReloadRequested(ReloadRequest("r")))
    simulation.dispatch(MoldReady(2))
    return simulation


def drained(simulation: Simulation) -> list[int]:
    return [a.worker for a in simulation.of(DrainWorker) if isinstance(a, DrainWorker)]


def test_with_room_for_one_worker_a_new_one_serves_before_an_old_one_leaves():
    simulation = roll(surge=1)
    for old, new in ((1, 4), (2, 5), (3, 6)):
        assert [w for w in simulation.fleet.workers if w > 3] == list(range(4, new + 1))
        assert drained(simulation) == list(range(1, old))
        simulation.ready_all()
        assert StartWorker(new) in simulation.actions
        simulation.wait(DRAIN_PACE_S)
        assert drained(simulation) == list(range(1, old + 1))
        assert simulation.of(FinishReload) == []
        simulation.dispatch(WorkerLeaving(old))
        simulation.wait(5)
        assert len(simulation.fleet.workers) == 4
        simulation.dispatch(WorkerGone(old, "exit code 0", is_clean=True))
    assert simulation.of(CommitGeneration) == [CommitGeneration(2, is_first=False)]
    assert simulation.of(FinishReload) == [FinishReload(ReloadRequest("r"), True)]


def test_without_room_an_old_worker_leaves_first_and_only_once_the_app_is_imported():
    simulation = started(workers=2)
    simulation.surge = 0
    simulation.dispatch(ReloadRequested(ReloadRequest("r")))
    simulation.wait(1)
    assert drained(simulation) == []
    simulation.dispatch(MoldReady(2))
    assert drained(simulation) == [1]
    assert simulation.of(ForkWorker) == []
    simulation.dispatch(WorkerGone(1, "exit code 0"))
    assert simulation.of(ForkWorker) == [ForkWorker(3, 1, 2)]
    simulation.wait(5)
    assert drained(simulation) == [1]


def test_single_worker_is_never_the_one_that_makes_room():
    simulation = roll(surge=0, workers=1)
    assert drained(simulation) == []
    assert simulation.of(ForkWorker) == [ForkWorker(2, 2, 2)]


@pytest.mark.parametrize("surge", [0, 1])
def test_failure_in_the_middle_takes_back_the_workers_that_had_left(surge: int):
    simulation = roll(surge)
    if surge == 0:
        simulation.dispatch(WorkerGone(1, "exit code 0"))
    simulation.ready_all()
    simulation.wait(DRAIN_PACE_S)
    new, *_ = [w.id for w in simulation.fleet.workers.values() if w.serves and w.generation == 2]
    simulation.forget()
    simulation.dispatch(MoldGone(2, "signal SIGKILL"))
    (finished,) = simulation.of(FinishReload)
    assert isinstance(finished, FinishReload)
    assert not finished.succeeded
    assert drained(simulation) == [new], "it serves: it finishes its requests"
    forks = [a for a in simulation.of(ForkWorker) if isinstance(a, ForkWorker)]
    assert {fork.generation for fork in forks} == {1}
    simulation.ready_all()
    assert len(simulation.serving(1)) == 3


def test_first_new_worker_is_healthy_before_it_serves_and_before_an_old_one_leaves():
    simulation = roll(surge=1, checks_health=True)
    simulation.ready_all()
    assert simulation.of(CheckHealth) == [CheckHealth(4, 1, HEALTH_ANSWER_S)]
    simulation.wait(1)
    assert simulation.of(StartWorker, DrainWorker) == []
    simulation.dispatch(HealthAnswered(4, 1))
    assert simulation.of(StartWorker) == [StartWorker(4)]
    assert drained(simulation) == [1]


def test_reload_whose_import_is_killed_says_what_kills_like_that():
    simulation = started()
    simulation.dispatch(ReloadRequested(ReloadRequest("r")))
    simulation.dispatch(MoldGone(2, "signal SIGKILL"))
    (finished,) = simulation.of(FinishReload)
    assert not finished.succeeded
    assert "signal SIGKILL" in finished.traceback
    assert "raise the limit" in finished.traceback
