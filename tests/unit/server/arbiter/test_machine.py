"""The arbiter's decisions, step by step, without a process."""

import itertools
from dataclasses import replace

import pytest
from prefork.arbiter.actions import (
    AbortMold,
    Action,
    BootMold,
    CloseListeners,
    Committed,
    Discarded,
    DrainWorker,
    ForkWorker,
    KillWorker,
    Leave,
    Reloaded,
    Retired,
    StartWorker,
    StopMold,
    StopWorker,
    Superseded,
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
from prefork.arbiter.fleet import Fleet, MoldLife, Policy, Wish, put
from prefork.arbiter.machine import next_deadline, step
from prefork.arbiter.reconcile import DRAIN_PACE_S, LEAVE_MAX_S
from prefork.arbiter.transitions import (
    BACKOFF_MAX_S,
    CALM_S,
    EARLY_S,
    QUICK_STOP_S,
    SERVED_BACKOFF_MAX_S,
)
from prefork.base.stats import Life, Phase, Reason

POLICY = Policy(graceful_timeout=30.0, boot_timeout=60.0, preload=True)


class Simulation:
    """A fleet whose processes do what they are told, when the test says so."""

    def __init__(self, workers: int = 2, *, slots: int = 16) -> None:
        self.fleet = Fleet(desired=workers, slots=slots)
        self.now = 1000.0
        self.actions: list[Action] = []

    def happen(self, event: Event) -> list[Action]:
        self.fleet, actions = step(self.fleet, event, self.now, POLICY)
        self.actions += actions
        return list(actions)

    def wait(self, seconds: float) -> list[Action]:
        """Let time pass as the arbiter would: a tick at each deadline."""
        until, seen = self.now + seconds, []
        while True:
            due = next_deadline(self.fleet, self.now, POLICY)
            self.now = min(until, due if due is not None else until)
            seen += self.happen(Tick())
            if self.now >= until:
                return seen

    def boot(self) -> None:
        """Bring the booting generation's mold and workers to ready."""
        if not self.fleet.booting and not self.fleet.current:
            self.happen(Tick())
        assert self.fleet.booting is not None
        self.happen(MoldReady(self.fleet.booting.number))
        self.ready_all()

    def ready_all(self) -> list[Action]:
        seen = []
        for id in sorted(self.fleet.workers):
            if self.fleet.workers[id].life is Life.BOOTING:
                seen += self.happen(WorkerBorn(id, pid=10_000 + id))
                seen += self.happen(WorkerReady(id))
        return seen

    def serving(self, generation: int | None = None) -> list[int]:
        return [
            w.id
            for w in self.fleet.workers.values()
            if w.life is Life.SERVING and generation in (None, w.generation)
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
    assert simulation.happen(Tick()) == [BootMold(1, True)]
    forks = simulation.happen(MoldReady(1))
    assert forks == [ForkWorker(id, slot=id, generation=1) for id in (1, 2, 3)]
    assert simulation.fleet.phase is Phase.BOOTING
    simulation.ready_all()
    assert simulation.fleet.phase is Phase.SERVING
    assert simulation.of(Committed) == [Committed(1, is_first=True)]


def test_first_boot_that_does_not_import_ends_the_server_as_failed():
    simulation = Simulation()
    simulation.happen(Tick())
    actions = simulation.happen(MoldFailed(1, "ImportError: no"))
    assert Discarded(1, "ImportError: no") in actions
    assert Leave(failed=True) in actions


def test_first_boot_whose_worker_dies_ends_the_server_once_the_others_are_gone():
    simulation = Simulation(workers=2)
    simulation.happen(Tick())
    simulation.happen(MoldReady(1))
    actions = simulation.happen(WorkerGone(1, "exit code 1"))
    assert StopWorker(2) in actions
    assert not any(isinstance(action, Leave) for action in actions)
    assert Leave(failed=True) in simulation.happen(WorkerGone(2, "exit code 0"))


def test_stop_during_the_first_boot_is_no_failure():
    simulation = Simulation()
    simulation.happen(Tick())
    simulation.happen(MoldReady(1))
    simulation.happen(StopAsked())
    simulation.happen(WorkerGone(1, "exit code 0"))
    assert Leave(failed=False) in simulation.happen(WorkerGone(2, "exit code 0"))


def test_reload_drains_old_workers_only_when_all_new_ones_are_ready():
    simulation = started(workers=2)
    assert simulation.happen(ReloadAsked(Wish("r"))) == [BootMold(2, True)]
    simulation.happen(MoldReady(2))
    simulation.happen(WorkerReady(3))
    assert simulation.of(DrainWorker, StartWorker) == []
    assert len(simulation.serving(1)) == 2
    simulation.happen(WorkerReady(4))
    assert simulation.of(StartWorker) == [StartWorker(3), StartWorker(4)]
    assert simulation.of(DrainWorker) == [DrainWorker(1, "handover")]
    assert simulation.of(Reloaded) == []
    simulation.wait(DRAIN_PACE_S)
    assert simulation.of(DrainWorker) == [
        DrainWorker(1, "handover"),
        DrainWorker(2, "handover"),
    ]
    assert simulation.of(Reloaded) == []
    simulation.happen(WorkerLeaving(1))
    assert simulation.of(Reloaded) == []
    simulation.happen(WorkerLeaving(2))
    assert simulation.of(Reloaded) == [Reloaded(Wish("r"), True)]
    assert StopMold(1) in simulation.actions


def test_reload_does_not_wait_for_an_old_worker_that_is_too_busy_to_confirm():
    simulation = started(workers=1)
    simulation.happen(ReloadAsked(Wish("r")))
    simulation.boot()
    simulation.wait(LEAVE_MAX_S)
    assert simulation.of(Reloaded) == [Reloaded(Wish("r"), True)]


def test_reload_that_does_not_import_leaves_the_old_generation_serving():
    simulation = started(workers=2)
    simulation.happen(ReloadAsked(Wish("r")))
    simulation.happen(MoldFailed(2, "SyntaxError: x"))
    assert simulation.of(Reloaded) == [Reloaded(Wish("r"), False, "SyntaxError: x")]
    assert simulation.serving() == [1, 2]
    assert simulation.fleet.current is not None
    assert simulation.fleet.current.number == 1
    assert simulation.of(DrainWorker, StopWorker) == []


def test_reload_whose_worker_dies_before_it_is_ready_fails_and_takes_the_new_workers_down():
    simulation = started(workers=2)
    simulation.happen(ReloadAsked(Wish("r")))
    simulation.happen(MoldReady(2))
    simulation.happen(WorkerReady(3))
    simulation.happen(WorkerGone(4, "exit code 3"))
    assert StopWorker(3) in simulation.actions
    assert simulation.of(StartWorker) == []
    assert simulation.of(Reloaded) == [
        Reloaded(Wish("r"), False, "a worker ended before it was ready (exit code 3)")
    ]
    assert simulation.serving() == [1, 2]


def test_reload_after_a_failed_one_takes_a_new_number():
    simulation = started()
    simulation.happen(ReloadAsked(Wish("a")))
    simulation.happen(MoldFailed(2, "no"))
    assert BootMold(3, True) in simulation.happen(ReloadAsked(Wish("b")))


def test_second_reload_waits_and_the_newest_wins():
    simulation = started()
    simulation.happen(ReloadAsked(Wish("a")))
    simulation.happen(ReloadAsked(Wish("b")))
    simulation.happen(ReloadAsked(Wish("c")))
    assert simulation.of(Superseded) == [Superseded(Wish("b"))]
    assert simulation.of(Reloaded) == []
    simulation.boot()
    simulation.wait(2)
    assert Reloaded(Wish("a"), True) in simulation.actions
    assert simulation.fleet.running == Wish("c")
    simulation.boot()
    simulation.wait(2)
    assert simulation.of(Reloaded)[-1] == Reloaded(Wish("c"), True)


def test_reload_asked_during_the_first_boot_follows_it():
    simulation = Simulation()
    simulation.happen(Tick())
    simulation.happen(ReloadAsked(Wish("r")))
    simulation.boot()
    assert simulation.fleet.running == Wish("r")
    assert BootMold(2, True) in simulation.actions


def test_import_that_hangs_is_given_up_with_its_stack():
    simulation = started()
    simulation.happen(ReloadAsked(Wish("r")))
    simulation.wait(POLICY.boot_timeout)
    assert AbortMold(2) in simulation.actions
    assert simulation.of(Reloaded) == []
    simulation.happen(MoldGone(2, "signal SIGABRT", stack="File app.py, line 2"))
    why = "File app.py, line 2\nthe app did not import within 60 s; raise --boot-timeout"
    assert simulation.of(Reloaded) == [Reloaded(Wish("r"), False, why)]
    assert simulation.serving() == [1, 2]


def test_import_that_hangs_beyond_being_told_to_end_is_given_up_all_the_same():
    simulation = started()
    simulation.happen(ReloadAsked(Wish("r")))
    simulation.wait(POLICY.boot_timeout + QUICK_STOP_S)
    assert StopMold(2) in simulation.actions
    assert len(simulation.of(Reloaded)) == 1
    assert simulation.serving() == [1, 2]


def test_mold_that_does_not_fork_fails_its_reload_with_its_stack():
    simulation = started()
    simulation.happen(ReloadAsked(Wish("r")))
    simulation.happen(MoldReady(2))
    simulation.happen(WorkerReady(3))
    simulation.wait(POLICY.boot_timeout - 1)
    assert simulation.of(AbortMold, Reloaded) == []
    simulation.wait(1)
    assert simulation.of(AbortMold) == [AbortMold(2)]
    simulation.happen(MoldGone(2, "signal SIGABRT", stack="File gunicorn.conf.py, line 2"))
    why = "File gunicorn.conf.py, line 2\nthe mold did not fork a worker within 60 s"
    assert simulation.of(Reloaded) == [Reloaded(Wish("r"), False, why)]
    assert simulation.serving() == [1, 2]


def test_mold_that_is_frozen_is_replaced_and_so_are_the_workers_it_did_not_fork():
    simulation = started()
    simulation.happen(WorkerGone(1, "signal SIGKILL", signalled=True))
    assert simulation.of(ForkWorker) == [ForkWorker(3, slot=1, generation=1)]
    simulation.wait(POLICY.boot_timeout + QUICK_STOP_S)
    assert simulation.of(AbortMold, StopMold) == [AbortMold(1), StopMold(1)]
    assert simulation.of(BootMold) == [BootMold(1, True, is_replacement=True)]
    simulation.happen(MoldReady(1))
    simulation.wait(1)
    assert ForkWorker(4, slot=1, generation=1) in simulation.actions
    simulation.ready_all()
    assert simulation.serving() == [2, 4]


def test_worker_that_was_never_forked_does_not_hold_up_a_stop():
    simulation = started()
    simulation.happen(WorkerGone(1, "signal SIGKILL", signalled=True))
    simulation.happen(StopAsked(quick=True))
    simulation.happen(WorkerGone(2, "exit code 0"))
    assert Leave(failed=False) in simulation.wait(QUICK_STOP_S)


def test_replacement_of_a_mold_that_hangs_is_tried_again():
    simulation = started()
    simulation.happen(MoldGone(1, "signal SIGKILL"))
    simulation.wait(POLICY.boot_timeout)
    assert AbortMold(1) in simulation.actions
    simulation.happen(MoldGone(1, "signal SIGABRT"))
    simulation.wait(1)
    assert len(simulation.of(BootMold)) == 2
    assert simulation.serving() == [1, 2]


def test_threads_left_by_the_import_make_each_worker_import_for_itself():
    simulation = Simulation()
    simulation.happen(Tick())
    assert simulation.happen(MoldUnfit(1)) == [BootMold(1, False)]
    simulation.boot()
    assert simulation.fleet.phase is Phase.SERVING


def test_steady_deaths_of_workers_that_served_never_stop_the_app_for_long():
    simulation = started(workers=4)
    down_s, longest_s = 0.0, 0.0
    for _ in range(100):
        for worker in simulation.serving()[:1]:
            simulation.happen(WorkerGone(worker, "signal SIGKILL", signalled=True))
        simulation.wait(0.4)
        down_s = 0.0 if simulation.fleet.workers else down_s + 0.4
        longest_s = max(longest_s, down_s)
        simulation.ready_all()
    assert longest_s <= SERVED_BACKOFF_MAX_S


def test_killed_worker_is_replaced_at_once():
    simulation = started()
    actions = simulation.happen(WorkerGone(1, "signal SIGKILL", signalled=True))
    assert isinstance(actions[0], Retired)
    assert actions[0].reason is Reason.KILLED
    assert actions[1] == ForkWorker(3, slot=1, generation=1)


def test_all_workers_killed_at_once_are_all_replaced_at_once():
    simulation = started(workers=8)
    for id in range(1, 9):
        simulation.happen(WorkerGone(id, "signal SIGKILL", signalled=True))
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
        simulation.happen(WorkerGone(id, "exit code 1"))
        if simulation.fleet.fork_at:
            delays.append(simulation.fleet.fork_at - simulation.now)
            simulation.now = simulation.fleet.fork_at
            simulation.happen(Tick())
    assert delays[:3] == pytest.approx([0.2, 0.4, 0.8])
    assert max(delays) == BACKOFF_MAX_S
    simulation.happen(WorkerReady(max(simulation.fleet.workers)))
    simulation.wait(CALM_S)
    simulation.happen(WorkerGone(max(simulation.fleet.workers), "exit code 1"))
    assert len(simulation.fleet.workers) == 1
    simulation.happen(WorkerGone(max(simulation.fleet.workers), "exit code 1"))
    assert simulation.fleet.crashes == 1
    assert len(simulation.fleet.workers) == 1


def test_workers_that_are_killed_again_and_again_after_having_served_are_replaced_at_once():
    simulation = started(workers=2)
    for _ in range(30):
        simulation.wait(EARLY_S)
        simulation.happen(
            WorkerGone(min(simulation.fleet.workers), "signal SIGKILL", signalled=True)
        )
        simulation.ready_all()
        assert len(simulation.serving()) == 2


def test_lost_mold_is_booted_again_and_its_workers_go_on():
    simulation = started()
    actions = simulation.happen(MoldGone(1, "signal SIGKILL"))
    assert BootMold(1, True, is_replacement=True) in actions
    assert simulation.serving() == [1, 2]
    simulation.happen(WorkerGone(1, "exit code 1"))
    assert simulation.of(ForkWorker) == []
    assert ForkWorker(3, slot=1, generation=1) in simulation.happen(MoldReady(1))


def test_mold_that_keeps_failing_is_retried_with_growing_pauses():
    simulation = started()
    simulation.happen(MoldGone(1, "signal SIGKILL"))
    pauses = []
    for _ in range(12):
        simulation.happen(MoldFailed(1, "no"))
        assert simulation.fleet.current is not None
        pauses.append(simulation.fleet.current.mold.retry_at - simulation.now)
        simulation.wait(pauses[-1])
    assert pauses == sorted(pauses)
    assert pauses[-1] == BACKOFF_MAX_S
    assert simulation.serving() == [1, 2]


def test_reload_works_while_the_serving_generation_has_no_mold():
    simulation = started()
    simulation.happen(MoldGone(1, "signal SIGKILL"))
    simulation.happen(MoldFailed(1, "no"))
    simulation.happen(ReloadAsked(Wish("r")))
    simulation.boot()
    simulation.wait(2)
    assert Reloaded(Wish("r"), True) in simulation.actions


def test_full_worker_is_drained_when_its_replacement_is_ready():
    simulation = started()
    actions = simulation.happen(WorkerTired(1, Reason.MAX_REQUESTS))
    assert actions == [ForkWorker(3, slot=3, generation=1)]
    assert simulation.happen(WorkerReady(3)) == [StartWorker(3), DrainWorker(1, "handover")]
    (retired,) = simulation.happen(WorkerGone(1, "exit code 0"))
    assert isinstance(retired, Retired)
    assert retired.reason is Reason.MAX_REQUESTS


def test_stuck_worker_is_replaced_at_once_and_killed_when_only_its_stuck_call_is_left():
    simulation = started()
    simulation.happen(WorkerBorn(1, 77))
    assert simulation.happen(WorkerStuck(1)) == [ForkWorker(3, slot=3, generation=1)]
    assert simulation.happen(WorkerQuiet(1)) == [KillWorker(1)]
    (retired,) = simulation.happen(WorkerGone(1, "signal SIGKILL", signalled=True))
    assert isinstance(retired, Retired)
    assert retired.reason is Reason.TIMEOUT


def test_stuck_worker_with_other_calls_gets_the_graceful_timeout():
    simulation = started()
    simulation.happen(WorkerStuck(1))
    assert KillWorker(1) not in simulation.wait(POLICY.graceful_timeout - 1)
    assert KillWorker(1) in simulation.wait(2)


def test_draining_worker_is_killed_after_the_graceful_timeout():
    simulation = started()
    simulation.happen(ScaleAsked(1))
    assert simulation.of(DrainWorker) == [DrainWorker(2, "handover")]
    assert KillWorker(2) in simulation.wait(POLICY.graceful_timeout + 1)


def test_worker_that_never_gets_ready_is_killed_with_its_stack():
    simulation = started()
    simulation.happen(WorkerGone(1, "signal SIGKILL", signalled=True))
    simulation.happen(WorkerBorn(3, 88))
    assert KillWorker(3, with_stack=True) in simulation.wait(POLICY.boot_timeout + 1)


def test_worker_that_outlives_its_kill_is_killed_for_good():
    simulation = started()
    simulation.happen(WorkerGone(1, "signal SIGKILL", signalled=True))
    simulation.happen(WorkerBorn(3, 88))
    simulation.wait(POLICY.boot_timeout + 60)
    assert simulation.of(KillWorker) == [
        KillWorker(3, with_stack=True),
        KillWorker(3, is_last=True),
    ]


def test_scaling_up_and_down():
    simulation = started(workers=2)
    assert simulation.happen(ScaleAsked(3)) == [ForkWorker(3, slot=3, generation=1)]
    simulation.ready_all()
    simulation.happen(ScaleAsked(1))
    simulation.wait(1)
    assert simulation.of(DrainWorker) == [
        DrainWorker(3, "handover"),
        DrainWorker(2, "handover"),
    ]
    assert simulation.serving() == [1]


def test_scaling_during_a_reload_ends_with_the_wanted_number():
    simulation = started(workers=2)
    simulation.happen(ReloadAsked(Wish("r")))
    simulation.happen(MoldReady(2))
    simulation.happen(ScaleAsked(3))
    simulation.ready_all()
    simulation.wait(1)
    assert len(simulation.serving(2)) == 3
    assert simulation.serving(1) == []


def test_without_free_slots_workers_wait_for_one():
    simulation = Simulation(workers=2, slots=3)
    simulation.boot()
    simulation.happen(ReloadAsked(Wish("r")))
    simulation.happen(MoldReady(2))
    assert len(simulation.fleet.workers) == 3


def test_graceful_stop_drains_and_leaves_when_all_are_gone():
    simulation = started()
    actions = simulation.happen(StopAsked())
    assert actions == [
        StopMold(1),
        CloseListeners(),
        DrainWorker(1, "close"),
        DrainWorker(2, "close"),
    ]
    simulation.happen(WorkerGone(1, "exit code 0"))
    assert simulation.happen(WorkerGone(2, "exit code 0"))[-1] == Leave(failed=False)
    assert simulation.of(ForkWorker) == []


def test_graceful_stop_kills_what_is_left_after_the_graceful_timeout():
    simulation = started()
    simulation.happen(StopAsked())
    killed = simulation.wait(POLICY.graceful_timeout + 1)
    assert KillWorker(1) in killed
    assert KillWorker(2) in killed


def test_quick_stop_after_a_graceful_one_does_not_wait():
    simulation = started()
    simulation.happen(StopAsked())
    assert StopWorker(1) in simulation.happen(StopAsked(quick=True))
    assert KillWorker(1) in simulation.wait(QUICK_STOP_S + 0.1)


def test_stop_answers_every_reload_that_is_waiting():
    simulation = started()
    simulation.happen(ReloadAsked(Wish("a")))
    simulation.happen(ReloadAsked(Wish("b")))
    simulation.happen(StopAsked())
    assert simulation.of(Reloaded) == [
        Reloaded(Wish("a"), False, "the server is stopping"),
        Reloaded(Wish("b"), False, "the server is stopping"),
    ]
    simulation.happen(ReloadAsked(Wish("c")))
    assert simulation.of(Reloaded)[-1] == Reloaded(Wish("c"), False, "the server is stopping")


def every_event() -> list[Event]:
    workers, molds = (1, 3, 99), (1, 2, 99)
    return [
        Tick(),
        *(MoldReady(n) for n in molds),
        *(MoldUnfit(n) for n in molds),
        *(MoldFailed(n, "no") for n in molds),
        *(MoldGone(n, "gone") for n in molds),
        *(WorkerBorn(n, 5) for n in workers),
        *(WorkerReady(n) for n in workers),
        *(WorkerFailed(n, "no") for n in workers),
        *(WorkerTired(n, Reason.MEMORY) for n in workers),
        *(WorkerStuck(n) for n in workers),
        *(WorkerQuiet(n) for n in workers),
        *(WorkerLeaving(n) for n in workers),
        *(WorkerGone(n, "gone") for n in workers),
        ReloadAsked(Wish("x")),
        ScaleAsked(1),
        ScaleAsked(3),
        StopAsked(),
        StopAsked(quick=True),
    ]


def fleets() -> dict[str, Fleet]:
    fresh = Simulation()
    fresh.happen(Tick())
    serving = started()
    reloading = started()
    reloading.happen(ReloadAsked(Wish("r")))
    reloading.happen(MoldReady(2))
    stopping = started()
    stopping.happen(StopAsked())
    found = {
        "new": Fleet(desired=2, slots=16),
        "booting": fresh.fleet,
        "serving": serving.fleet,
        "reloading": reloading.fleet,
        "stopping": stopping.fleet,
    }
    for life in Life:
        worker = replace(serving.fleet.workers[1], life=life, leaving=Reason.RETIRED)
        found[f"worker {life.name}"] = put(serving.fleet, worker)
    return found


@pytest.mark.parametrize("name", fleets())
def test_every_event_has_an_answer_in_every_state(name: str):
    """Also pairs of events: none raises, none leaves the fleet in contradiction with itself."""
    begin = fleets()[name]
    for first, second in itertools.product(every_event(), repeat=2):
        fleet = begin
        for event in (first, second):
            fleet, actions = step(fleet, event, 2000.0, POLICY)
            check_consistent(fleet, actions)


def check_consistent(fleet: Fleet, actions: tuple[Action, ...]) -> None:
    slots = [worker.slot for worker in fleet.workers.values()]
    assert len(slots) == len(set(slots)), "two workers in one slot"
    assert all(1 <= slot <= fleet.slots for slot in slots)
    forked = [action.worker for action in actions if isinstance(action, ForkWorker)]
    assert len(forked) == len(set(forked))
    assert fleet.booting is None or fleet.phase is not Phase.STOPPING
    if fleet.phase is Phase.SERVING:
        assert fleet.current is not None
    if fleet.booting is not None and fleet.current is not None:
        assert fleet.booting.number > fleet.current.number
        assert fleet.booting.mold.life in MoldLife
    drained = {action.worker for action in actions if isinstance(action, DrainWorker)}
    for id in drained & set(fleet.workers):
        assert fleet.workers[id].life in (Life.DRAINING, Life.STUCK)
