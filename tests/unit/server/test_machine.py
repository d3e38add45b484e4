"""The arbiter's decisions, step by step, without a process."""

import itertools
from dataclasses import replace

import pytest
from prefork.arbiter import machine as m
from prefork.arbiter.fleet import Fleet, Life, MoldLife, Phase, Reason, Wish

POLICY = m.Policy(graceful_timeout=30.0, boot_timeout=60.0, preload=True)


class Simulation:
    """A fleet whose processes do what they are told, when the test says so."""

    def __init__(self, workers: int = 2, *, slots: int = 16) -> None:
        self.fleet = Fleet(desired=workers, slots=slots)
        self.now = 1000.0
        self.actions: list[m.Action] = []

    def happen(self, event: m.Event) -> list[m.Action]:
        self.fleet, actions = m.step(self.fleet, event, self.now, POLICY)
        self.actions += actions
        return list(actions)

    def wait(self, seconds: float) -> list[m.Action]:
        """Let time pass as the arbiter would: a tick at each deadline."""
        until, seen = self.now + seconds, []
        while True:
            due = m.next_deadline(self.fleet, self.now, POLICY)
            self.now = min(until, due if due is not None else until)
            seen += self.happen(m.Tick())
            if self.now >= until:
                return seen

    def boot(self) -> None:
        """Bring the booting generation's mold and workers to ready."""
        if not self.fleet.booting and not self.fleet.current:
            self.happen(m.Tick())
        assert self.fleet.booting is not None
        self.happen(m.MoldReady(self.fleet.booting.number))
        self.ready_all()

    def ready_all(self) -> list[m.Action]:
        seen = []
        for id in sorted(self.fleet.workers):
            if self.fleet.workers[id].life is Life.BOOTING:
                seen += self.happen(m.WorkerBorn(id, pid=10_000 + id))
                seen += self.happen(m.WorkerReady(id))
        return seen

    def serving(self, generation: int | None = None) -> list[int]:
        return [
            w.id
            for w in self.fleet.workers.values()
            if w.life is Life.SERVING and generation in (None, w.generation)
        ]

    def of(self, *kinds: type[m.Action]) -> list[m.Action]:
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
    assert simulation.happen(m.Tick()) == [m.BootMold(1, True)]
    forks = simulation.happen(m.MoldReady(1))
    assert forks == [m.ForkWorker(id, slot=id, generation=1) for id in (1, 2, 3)]
    assert simulation.fleet.phase is Phase.BOOTING
    simulation.ready_all()
    assert simulation.fleet.phase is Phase.SERVING
    assert simulation.of(m.Committed) == [m.Committed(1, is_first=True)]


def test_first_boot_that_does_not_import_ends_the_server_as_failed():
    simulation = Simulation()
    simulation.happen(m.Tick())
    actions = simulation.happen(m.MoldFailed(1, "ImportError: no"))
    assert m.Discarded(1, "ImportError: no") in actions
    assert m.Leave(failed=True) in actions


def test_first_boot_whose_worker_dies_ends_the_server_once_the_others_are_gone():
    simulation = Simulation(workers=2)
    simulation.happen(m.Tick())
    simulation.happen(m.MoldReady(1))
    actions = simulation.happen(m.WorkerGone(1, "exit code 1"))
    assert m.StopWorker(2) in actions
    assert not any(isinstance(action, m.Leave) for action in actions)
    assert m.Leave(failed=True) in simulation.happen(m.WorkerGone(2, "exit code 0"))


def test_stop_during_the_first_boot_is_no_failure():
    simulation = Simulation()
    simulation.happen(m.Tick())
    simulation.happen(m.MoldReady(1))
    simulation.happen(m.StopAsked())
    simulation.happen(m.WorkerGone(1, "exit code 0"))
    assert m.Leave(failed=False) in simulation.happen(m.WorkerGone(2, "exit code 0"))


def test_reload_drains_old_workers_only_when_all_new_ones_are_ready():
    simulation = started(workers=2)
    assert simulation.happen(m.ReloadAsked(Wish("r"))) == [m.BootMold(2, True)]
    simulation.happen(m.MoldReady(2))
    simulation.happen(m.WorkerReady(3))
    assert simulation.of(m.DrainWorker, m.StartWorker) == []
    assert len(simulation.serving(1)) == 2
    simulation.happen(m.WorkerReady(4))
    assert simulation.of(m.StartWorker) == [m.StartWorker(3), m.StartWorker(4)]
    assert simulation.of(m.DrainWorker) == [m.DrainWorker(1, "handover")]
    assert simulation.of(m.Reloaded) == []
    simulation.wait(m.DRAIN_PACE_S)
    assert simulation.of(m.DrainWorker) == [
        m.DrainWorker(1, "handover"),
        m.DrainWorker(2, "handover"),
    ]
    assert simulation.of(m.Reloaded) == []
    simulation.happen(m.WorkerLeaving(1))
    assert simulation.of(m.Reloaded) == []
    simulation.happen(m.WorkerLeaving(2))
    assert simulation.of(m.Reloaded) == [m.Reloaded(Wish("r"), True)]
    assert m.StopMold(1) in simulation.actions


def test_reload_does_not_wait_for_an_old_worker_that_is_too_busy_to_confirm():
    simulation = started(workers=1)
    simulation.happen(m.ReloadAsked(Wish("r")))
    simulation.boot()
    simulation.wait(m.LEAVE_MAX_S)
    assert simulation.of(m.Reloaded) == [m.Reloaded(Wish("r"), True)]


def test_reload_that_does_not_import_leaves_the_old_generation_serving():
    simulation = started(workers=2)
    simulation.happen(m.ReloadAsked(Wish("r")))
    simulation.happen(m.MoldFailed(2, "SyntaxError: x"))
    assert simulation.of(m.Reloaded) == [m.Reloaded(Wish("r"), False, "SyntaxError: x")]
    assert simulation.serving() == [1, 2]
    assert simulation.fleet.current is not None
    assert simulation.fleet.current.number == 1
    assert simulation.of(m.DrainWorker, m.StopWorker) == []


def test_reload_whose_worker_dies_before_it_is_ready_fails_and_takes_the_new_workers_down():
    simulation = started(workers=2)
    simulation.happen(m.ReloadAsked(Wish("r")))
    simulation.happen(m.MoldReady(2))
    simulation.happen(m.WorkerReady(3))
    simulation.happen(m.WorkerGone(4, "exit code 3"))
    assert m.StopWorker(3) in simulation.actions
    assert simulation.of(m.StartWorker) == []
    assert simulation.of(m.Reloaded) == [
        m.Reloaded(Wish("r"), False, "a worker ended before it was ready (exit code 3)")
    ]
    assert simulation.serving() == [1, 2]


def test_reload_after_a_failed_one_takes_a_new_number():
    simulation = started()
    simulation.happen(m.ReloadAsked(Wish("a")))
    simulation.happen(m.MoldFailed(2, "no"))
    assert m.BootMold(3, True) in simulation.happen(m.ReloadAsked(Wish("b")))


def test_second_reload_waits_and_the_newest_wins():
    simulation = started()
    simulation.happen(m.ReloadAsked(Wish("a")))
    simulation.happen(m.ReloadAsked(Wish("b")))
    simulation.happen(m.ReloadAsked(Wish("c")))
    assert simulation.of(m.Superseded) == [m.Superseded(Wish("b"))]
    assert simulation.of(m.Reloaded) == []
    simulation.boot()
    simulation.wait(2)
    assert m.Reloaded(Wish("a"), True) in simulation.actions
    assert simulation.fleet.running == Wish("c")
    simulation.boot()
    simulation.wait(2)
    assert simulation.of(m.Reloaded)[-1] == m.Reloaded(Wish("c"), True)


def test_reload_asked_during_the_first_boot_follows_it():
    simulation = Simulation()
    simulation.happen(m.Tick())
    simulation.happen(m.ReloadAsked(Wish("r")))
    simulation.boot()
    assert simulation.fleet.running == Wish("r")
    assert m.BootMold(2, True) in simulation.actions


def test_import_that_hangs_is_given_up_with_its_stack():
    simulation = started()
    simulation.happen(m.ReloadAsked(Wish("r")))
    simulation.wait(POLICY.boot_timeout)
    assert m.AbortMold(2) in simulation.actions
    assert simulation.of(m.Reloaded) == []
    simulation.happen(m.MoldGone(2, "signal SIGABRT", stack="File app.py, line 2"))
    why = "File app.py, line 2\nthe app did not import within 60 s; raise --boot-timeout"
    assert simulation.of(m.Reloaded) == [m.Reloaded(Wish("r"), False, why)]
    assert simulation.serving() == [1, 2]


def test_import_that_hangs_beyond_being_told_to_end_is_given_up_all_the_same():
    simulation = started()
    simulation.happen(m.ReloadAsked(Wish("r")))
    simulation.wait(POLICY.boot_timeout + m.QUICK_STOP_S)
    assert m.StopMold(2) in simulation.actions
    assert len(simulation.of(m.Reloaded)) == 1
    assert simulation.serving() == [1, 2]


def test_mold_that_does_not_fork_fails_its_reload_with_its_stack():
    simulation = started()
    simulation.happen(m.ReloadAsked(Wish("r")))
    simulation.happen(m.MoldReady(2))
    simulation.happen(m.WorkerReady(3))
    simulation.wait(POLICY.boot_timeout - 1)
    assert simulation.of(m.AbortMold, m.Reloaded) == []
    simulation.wait(1)
    assert simulation.of(m.AbortMold) == [m.AbortMold(2)]
    simulation.happen(m.MoldGone(2, "signal SIGABRT", stack="File gunicorn.conf.py, line 2"))
    why = "File gunicorn.conf.py, line 2\nthe mold did not fork a worker within 60 s"
    assert simulation.of(m.Reloaded) == [m.Reloaded(Wish("r"), False, why)]
    assert simulation.serving() == [1, 2]


def test_mold_that_is_frozen_is_replaced_and_so_are_the_workers_it_did_not_fork():
    simulation = started()
    simulation.happen(m.WorkerGone(1, "signal SIGKILL", signalled=True))
    assert simulation.of(m.ForkWorker) == [m.ForkWorker(3, slot=1, generation=1)]
    simulation.wait(POLICY.boot_timeout + m.QUICK_STOP_S)
    assert simulation.of(m.AbortMold, m.StopMold) == [m.AbortMold(1), m.StopMold(1)]
    assert simulation.of(m.BootMold) == [m.BootMold(1, True, is_replacement=True)]
    simulation.happen(m.MoldReady(1))
    simulation.wait(1)
    assert m.ForkWorker(4, slot=1, generation=1) in simulation.actions
    simulation.ready_all()
    assert simulation.serving() == [2, 4]


def test_worker_that_was_never_forked_does_not_hold_up_a_stop():
    simulation = started()
    simulation.happen(m.WorkerGone(1, "signal SIGKILL", signalled=True))
    simulation.happen(m.StopAsked(quick=True))
    simulation.happen(m.WorkerGone(2, "exit code 0"))
    assert m.Leave(failed=False) in simulation.wait(m.QUICK_STOP_S)


def test_replacement_of_a_mold_that_hangs_is_tried_again():
    simulation = started()
    simulation.happen(m.MoldGone(1, "signal SIGKILL"))
    simulation.wait(POLICY.boot_timeout)
    assert m.AbortMold(1) in simulation.actions
    simulation.happen(m.MoldGone(1, "signal SIGABRT"))
    simulation.wait(1)
    assert len(simulation.of(m.BootMold)) == 2
    assert simulation.serving() == [1, 2]


def test_threads_left_by_the_import_make_each_worker_import_for_itself():
    simulation = Simulation()
    simulation.happen(m.Tick())
    assert simulation.happen(m.MoldUnfit(1)) == [m.BootMold(1, False)]
    simulation.boot()
    assert simulation.fleet.phase is Phase.SERVING


def test_steady_deaths_of_workers_that_served_never_stop_the_app_for_long():
    simulation = started(workers=4)
    down_s, longest_s = 0.0, 0.0
    for _ in range(100):
        for worker in simulation.serving()[:1]:
            simulation.happen(m.WorkerGone(worker, "signal SIGKILL", signalled=True))
        simulation.wait(0.4)
        down_s = 0.0 if simulation.fleet.workers else down_s + 0.4
        longest_s = max(longest_s, down_s)
        simulation.ready_all()
    assert longest_s <= m.SERVED_BACKOFF_MAX_S


def test_killed_worker_is_replaced_at_once():
    simulation = started()
    actions = simulation.happen(m.WorkerGone(1, "signal SIGKILL", signalled=True))
    assert isinstance(actions[0], m.Retired)
    assert actions[0].reason is Reason.KILLED
    assert actions[1] == m.ForkWorker(3, slot=1, generation=1)


def test_all_workers_killed_at_once_are_all_replaced_at_once():
    simulation = started(workers=8)
    for id in range(1, 9):
        simulation.happen(m.WorkerGone(id, "signal SIGKILL", signalled=True))
    assert len(simulation.of(m.ForkWorker)) == 8


def test_crash_loop_backs_off_and_calms_down_again():
    simulation = started(workers=1)
    delays = []
    for _ in range(20):
        (id,) = simulation.fleet.workers or (None,)
        if id is None:
            before = simulation.now
            simulation.wait(m.BACKOFF_MAX_S + 1)
            delays.append(round(simulation.now - before))
            (id,) = simulation.fleet.workers
        simulation.happen(m.WorkerGone(id, "exit code 1"))
        if simulation.fleet.fork_at:
            delays.append(simulation.fleet.fork_at - simulation.now)
            simulation.now = simulation.fleet.fork_at
            simulation.happen(m.Tick())
    assert delays[:3] == pytest.approx([0.2, 0.4, 0.8])
    assert max(delays) == m.BACKOFF_MAX_S
    simulation.happen(m.WorkerReady(max(simulation.fleet.workers)))
    simulation.wait(m.CALM_S)
    simulation.happen(m.WorkerGone(max(simulation.fleet.workers), "exit code 1"))
    assert len(simulation.fleet.workers) == 1
    simulation.happen(m.WorkerGone(max(simulation.fleet.workers), "exit code 1"))
    assert simulation.fleet.crashes == 1
    assert len(simulation.fleet.workers) == 1


def test_workers_that_are_killed_again_and_again_after_having_served_are_replaced_at_once():
    simulation = started(workers=2)
    for _ in range(30):
        simulation.wait(m.EARLY_S)
        simulation.happen(
            m.WorkerGone(min(simulation.fleet.workers), "signal SIGKILL", signalled=True)
        )
        simulation.ready_all()
        assert len(simulation.serving()) == 2


def test_lost_mold_is_booted_again_and_its_workers_go_on():
    simulation = started()
    actions = simulation.happen(m.MoldGone(1, "signal SIGKILL"))
    assert m.BootMold(1, True, is_replacement=True) in actions
    assert simulation.serving() == [1, 2]
    simulation.happen(m.WorkerGone(1, "exit code 1"))
    assert simulation.of(m.ForkWorker) == []
    assert m.ForkWorker(3, slot=1, generation=1) in simulation.happen(m.MoldReady(1))


def test_mold_that_keeps_failing_is_retried_with_growing_pauses():
    simulation = started()
    simulation.happen(m.MoldGone(1, "signal SIGKILL"))
    pauses = []
    for _ in range(12):
        simulation.happen(m.MoldFailed(1, "no"))
        assert simulation.fleet.current is not None
        pauses.append(simulation.fleet.current.mold.retry_at - simulation.now)
        simulation.wait(pauses[-1])
    assert pauses == sorted(pauses)
    assert pauses[-1] == m.BACKOFF_MAX_S
    assert simulation.serving() == [1, 2]


def test_reload_works_while_the_serving_generation_has_no_mold():
    simulation = started()
    simulation.happen(m.MoldGone(1, "signal SIGKILL"))
    simulation.happen(m.MoldFailed(1, "no"))
    simulation.happen(m.ReloadAsked(Wish("r")))
    simulation.boot()
    simulation.wait(2)
    assert m.Reloaded(Wish("r"), True) in simulation.actions


def test_full_worker_is_drained_when_its_replacement_is_ready():
    simulation = started()
    actions = simulation.happen(m.WorkerTired(1, Reason.MAX_REQUESTS))
    assert actions == [m.ForkWorker(3, slot=3, generation=1)]
    assert simulation.happen(m.WorkerReady(3)) == [m.StartWorker(3), m.DrainWorker(1, "handover")]
    (retired,) = simulation.happen(m.WorkerGone(1, "exit code 0"))
    assert isinstance(retired, m.Retired)
    assert retired.reason is Reason.MAX_REQUESTS


def test_stuck_worker_is_replaced_at_once_and_killed_when_only_its_stuck_call_is_left():
    simulation = started()
    simulation.happen(m.WorkerBorn(1, 77))
    assert simulation.happen(m.WorkerStuck(1)) == [m.ForkWorker(3, slot=3, generation=1)]
    assert simulation.happen(m.WorkerQuiet(1)) == [m.KillWorker(1)]
    (retired,) = simulation.happen(m.WorkerGone(1, "signal SIGKILL", signalled=True))
    assert isinstance(retired, m.Retired)
    assert retired.reason is Reason.TIMEOUT


def test_stuck_worker_with_other_calls_gets_the_graceful_timeout():
    simulation = started()
    simulation.happen(m.WorkerStuck(1))
    assert m.KillWorker(1) not in simulation.wait(POLICY.graceful_timeout - 1)
    assert m.KillWorker(1) in simulation.wait(2)


def test_draining_worker_is_killed_after_the_graceful_timeout():
    simulation = started()
    simulation.happen(m.ScaleAsked(1))
    assert simulation.of(m.DrainWorker) == [m.DrainWorker(2, "handover")]
    assert m.KillWorker(2) in simulation.wait(POLICY.graceful_timeout + 1)


def test_worker_that_never_gets_ready_is_killed_with_its_stack():
    simulation = started()
    simulation.happen(m.WorkerGone(1, "signal SIGKILL", signalled=True))
    simulation.happen(m.WorkerBorn(3, 88))
    assert m.KillWorker(3, with_stack=True) in simulation.wait(POLICY.boot_timeout + 1)


def test_worker_that_outlives_its_kill_is_killed_for_good():
    simulation = started()
    simulation.happen(m.WorkerGone(1, "signal SIGKILL", signalled=True))
    simulation.happen(m.WorkerBorn(3, 88))
    simulation.wait(POLICY.boot_timeout + 60)
    assert simulation.of(m.KillWorker) == [
        m.KillWorker(3, with_stack=True),
        m.KillWorker(3, is_last=True),
    ]


def test_scaling_up_and_down():
    simulation = started(workers=2)
    assert simulation.happen(m.ScaleAsked(3)) == [m.ForkWorker(3, slot=3, generation=1)]
    simulation.ready_all()
    simulation.happen(m.ScaleAsked(1))
    simulation.wait(1)
    assert simulation.of(m.DrainWorker) == [
        m.DrainWorker(3, "handover"),
        m.DrainWorker(2, "handover"),
    ]
    assert simulation.serving() == [1]


def test_scaling_during_a_reload_ends_with_the_wanted_number():
    simulation = started(workers=2)
    simulation.happen(m.ReloadAsked(Wish("r")))
    simulation.happen(m.MoldReady(2))
    simulation.happen(m.ScaleAsked(3))
    simulation.ready_all()
    simulation.wait(1)
    assert len(simulation.serving(2)) == 3
    assert simulation.serving(1) == []


def test_without_free_slots_workers_wait_for_one():
    simulation = Simulation(workers=2, slots=3)
    simulation.boot()
    simulation.happen(m.ReloadAsked(Wish("r")))
    simulation.happen(m.MoldReady(2))
    assert len(simulation.fleet.workers) == 3


def test_graceful_stop_drains_and_leaves_when_all_are_gone():
    simulation = started()
    actions = simulation.happen(m.StopAsked())
    assert actions == [
        m.StopMold(1),
        m.CloseListeners(),
        m.DrainWorker(1, "close"),
        m.DrainWorker(2, "close"),
    ]
    simulation.happen(m.WorkerGone(1, "exit code 0"))
    assert simulation.happen(m.WorkerGone(2, "exit code 0"))[-1] == m.Leave(failed=False)
    assert simulation.of(m.ForkWorker) == []


def test_graceful_stop_kills_what_is_left_after_the_graceful_timeout():
    simulation = started()
    simulation.happen(m.StopAsked())
    killed = simulation.wait(POLICY.graceful_timeout + 1)
    assert m.KillWorker(1) in killed
    assert m.KillWorker(2) in killed


def test_quick_stop_after_a_graceful_one_does_not_wait():
    simulation = started()
    simulation.happen(m.StopAsked())
    assert m.StopWorker(1) in simulation.happen(m.StopAsked(quick=True))
    assert m.KillWorker(1) in simulation.wait(m.QUICK_STOP_S + 0.1)


def test_stop_answers_every_reload_that_is_waiting():
    simulation = started()
    simulation.happen(m.ReloadAsked(Wish("a")))
    simulation.happen(m.ReloadAsked(Wish("b")))
    simulation.happen(m.StopAsked())
    assert simulation.of(m.Reloaded) == [
        m.Reloaded(Wish("a"), False, "the server is stopping"),
        m.Reloaded(Wish("b"), False, "the server is stopping"),
    ]
    simulation.happen(m.ReloadAsked(Wish("c")))
    assert simulation.of(m.Reloaded)[-1] == m.Reloaded(Wish("c"), False, "the server is stopping")


def every_event() -> list[m.Event]:
    workers, molds = (1, 3, 99), (1, 2, 99)
    return [
        m.Tick(),
        *(m.MoldReady(n) for n in molds),
        *(m.MoldUnfit(n) for n in molds),
        *(m.MoldFailed(n, "no") for n in molds),
        *(m.MoldGone(n, "gone") for n in molds),
        *(m.WorkerBorn(n, 5) for n in workers),
        *(m.WorkerReady(n) for n in workers),
        *(m.WorkerFailed(n, "no") for n in workers),
        *(m.WorkerTired(n, Reason.MEMORY) for n in workers),
        *(m.WorkerStuck(n) for n in workers),
        *(m.WorkerQuiet(n) for n in workers),
        *(m.WorkerLeaving(n) for n in workers),
        *(m.WorkerGone(n, "gone") for n in workers),
        m.ReloadAsked(Wish("x")),
        m.ScaleAsked(1),
        m.ScaleAsked(3),
        m.StopAsked(),
        m.StopAsked(quick=True),
    ]


def fleets() -> dict[str, Fleet]:
    fresh = Simulation()
    fresh.happen(m.Tick())
    serving = started()
    reloading = started()
    reloading.happen(m.ReloadAsked(Wish("r")))
    reloading.happen(m.MoldReady(2))
    stopping = started()
    stopping.happen(m.StopAsked())
    found = {
        "new": Fleet(desired=2, slots=16),
        "booting": fresh.fleet,
        "serving": serving.fleet,
        "reloading": reloading.fleet,
        "stopping": stopping.fleet,
    }
    for life in Life:
        worker = replace(serving.fleet.workers[1], life=life, leaving=Reason.RETIRED)
        found[f"worker {life.name}"] = m.put(serving.fleet, worker)
    return found


@pytest.mark.parametrize("name", fleets())
def test_every_event_has_an_answer_in_every_state(name: str):
    """Also pairs of events: none raises, none leaves the fleet in contradiction with itself."""
    begin = fleets()[name]
    for first, second in itertools.product(every_event(), repeat=2):
        fleet = begin
        for event in (first, second):
            fleet, actions = m.step(fleet, event, 2000.0, POLICY)
            check_consistent(fleet, actions)


def check_consistent(fleet: Fleet, actions: tuple[m.Action, ...]) -> None:
    slots = [worker.slot for worker in fleet.workers.values()]
    assert len(slots) == len(set(slots)), "two workers in one slot"
    assert all(1 <= slot <= fleet.slots for slot in slots)
    forked = [action.worker for action in actions if isinstance(action, m.ForkWorker)]
    assert len(forked) == len(set(forked))
    assert fleet.booting is None or fleet.phase is not Phase.STOPPING
    if fleet.phase is Phase.SERVING:
        assert fleet.current is not None
    if fleet.booting is not None and fleet.current is not None:
        assert fleet.booting.number > fleet.current.number
        assert fleet.booting.mold.life in MoldLife
    drained = {action.worker for action in actions if isinstance(action, m.DrainWorker)}
    for id in drained & set(fleet.workers):
        assert fleet.workers[id].life in (Life.DRAINING, Life.STUCK)
