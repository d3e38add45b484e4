"""The arbiter's loop: collects events, lets `machine` decide, acts.

Single-threaded. Its state is one `Fleet`; whatever else there is are handles, which `molds` and
`workers` own. Called by `start`.
"""

import os
import select
import selectors
import signal
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

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
    Note,
    ReportMoldLoss,
    RetireWorker,
    StartWorker,
    StopMold,
    StopWorker,
    SupersedeReload,
)
from prefork.arbiter.agent_process import AgentProcess
from prefork.arbiter.control import ControlServer, Request
from prefork.arbiter.events import Event, ScaleRequested, StopRequested, Tick
from prefork.arbiter.fleet import Fleet, present_generations
from prefork.arbiter.generations import Generations
from prefork.arbiter.headroom import measure_footprint, plan_surge
from prefork.arbiter.listeners import refuse_handshakes
from prefork.arbiter.machine import next_deadline, step
from prefork.arbiter.molds import Molds
from prefork.arbiter.monitor import (
    MEMORY_PERIOD_S,
    find_lost,
    find_only_overdue_left,
    find_silent,
    find_unreported,
    measure_limit,
    measure_memory,
    measure_queue,
    pair_up,
    publish,
    publish_content,
    tick_period,
)
from prefork.arbiter.orphans import note_children
from prefork.arbiter.reloads import Reloads
from prefork.arbiter.resources import Resources
from prefork.arbiter.status import build_status
from prefork.arbiter.workers import Workers
from prefork.base import children, messages, processes
from prefork.base.channel import Channel
from prefork.base.signals import SignalSocket
from prefork.base.termination_log import write_termination_message
from prefork.base.tracebacks import last_line
from prefork.config.capacity import observe_memory
from prefork.config.config_file import Move
from prefork.config.sources import Configuration
from prefork.errors import Exit

SIGNALS = (
    signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGTTIN, signal.SIGTTOU,
    signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip
STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
# After a step that failed: what made it fail may be there again at once.
FAILED_STEP_PAUSE_S = 0.5
# At the end of the server; a child that ends wakes the arbiter at once.
MOLDS_END_S = 6.0
LAST_LOOK_S = 0.1


class Arbiter:
    """One server; `run` returns its exit code."""

    def __init__(
        self, configuration: Configuration, own: Resources, reread: Callable[[Move], Configuration]
    ) -> None:
        options = configuration.options
        self.own = own
        self.log = own.log
        self.table = own.table
        self.fleet = Fleet(desired=options.worker_count(), slots=self.table.header("slots"))
        self.pending: deque[Event] = deque()
        self.next_tick = 0.0
        self.next_memory = 0.0
        self.exit_code: int | None = None
        self.step_failed = False
        self.handover = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.signals = SignalSocket(SIGNALS)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.signals, selectors.EVENT_READ, self.on_signals)
        self.control = ControlServer(own.run_dir.control, self.selector, self.on_request)
        self.agent = AgentProcess(
            options, own.run_dir.path, self.log, [listener.sock for listener in own.listeners]
        )
        self.generations = Generations(
            configuration, own, reread, lambda: self.signals.has_arrived(STOPS)
        )
        self.molds = Molds(own, self.generations, self.selector, self.dispatch, self.close_in_child)
        self.workers = Workers(
            own, self.generations, self.molds, self.selector, self.dispatch, self.inherited
        )
        self.reloads = Reloads(own, self.control, self.dispatch)

    # -- collect, decide, act ---------------------------------------------------------------

    def run(self) -> int:
        """Serve until a stop is requested."""
        children.own()
        children.undo_in_children(self.close_in_child)
        # Before all others, as in gunicorn: hooks that number the workers begin with it.
        count = self.fleet.desired
        self.guard(self.generations.call_hook, "nworkers_changed", self.own.server, count, None)
        self.call_on_starting()
        if self.exit_code is None:
            self.agent.start(time.monotonic())
            self.dispatch(Tick())
        while self.exit_code is None:
            self.guard(self.turn)
            if self.step_failed:
                self.step_failed = False
                time.sleep(FAILED_STEP_PAUSE_S)
        self.guard(self.wait_for_imports)
        self.guard(self.generations.hooks.call, "on_exit", self.own.server)
        self.agent.stop()
        self.log.info("prefork exited", pid=os.getpid(), exit_code=int(self.exit_code))
        return self.exit_code

    def call_on_starting(self) -> None:
        """Call the hook; where it fails, the server ends: what it was to prepare is not there."""
        try:
            self.generations.hooks.call_or_raise("on_starting", self.own.server)
        except SystemExit as stop:
            self.exit_code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
            self.log.error("hook ended the start", hook="on_starting", why=stop.code)
        except Exception:
            self.exit_code = Exit.APP
            failure = traceback.format_exc()
            self.log.error(
                "hook failed, so the server does not start", hook="on_starting", traceback=failure
            )
            write_termination_message(failure)

    def turn(self) -> None:
        """Wait for the next events and handle them."""
        for key, events in self.selector.select(self.time_to_wait()):
            self.guard(key.data, events)
        self.guard(self.on_time, time.monotonic())

    def guard(self, act: Callable[..., None], *arguments: Any) -> None:
        """Do one thing. An unexpected failure is logged and the arbiter goes on: all workers depend on it.

        Whatever a hook of the config file raises comes by here too, SystemExit included.
        """
        try:
            act(*arguments)
        except processes.Become:
            raise
        except BaseException:
            self.log.critical(
                "a step of the arbiter failed, the arbiter goes on",
                traceback=traceback.format_exc(),
            )
            self.step_failed = True

    def wait_for_imports(self) -> None:
        """Let the molds do what the app's import registered for the end, not longer than MOLDS_END_S; end its children."""
        orphans = self.molds.orphans
        orphans.take(self.molds.bereaved, time.monotonic())
        deadline = time.monotonic() + MOLDS_END_S
        while self.molds.ending or orphans.kill_at:
            now = time.monotonic()
            orphans.kill_overdue(now)
            if now >= deadline:
                self.molds.kill_ending()
            select.select([self.signals], [], [], LAST_LOOK_S)
            self.signals.take()
            self.reap()

    def time_to_wait(self) -> float:
        now = time.monotonic()
        due = next_deadline(self.fleet, now)
        return max(0.0, min(self.next_tick, due or self.next_tick) - now)

    def dispatch(self, event: Event) -> None:
        """Decide and act. An action that causes an event appends it, so decisions never nest."""
        self.pending.append(event)
        if len(self.pending) > 1:
            return
        while self.pending:
            self.guard(self.decide, self.pending[0])
            self.pending.popleft()

    def decide(self, event: Event) -> None:
        self.fleet, actions = step(self.fleet, event, time.monotonic())
        # Before acting: a forked mold must find nothing half done.
        self.guard(publish, self.fleet, self.table, time.monotonic())
        self.guard(
            publish_content, self.generations.content_of(self.fleet.serving_number()), self.table
        )
        for action in actions:
            self.guard(self.perform, action)

    def perform(self, action: Action) -> None:
        match action:
            case LoadGeneration(generation):
                request = self.fleet.running
                wanted = request.content if request is not None else {}
                self.molds.load(generation, wanted, self.plan_surge, self.is_memory_coming)
                self.signals.install()  # the config file, or what it imports, may have set its own
            case BootMold():
                self.molds.boot(action)
            case StopMold(generation):
                self.stop_mold(generation)
            case AbortMold(generation):
                self.molds.abort(generation)
            case ReportMoldLoss():
                self.molds.report_loss(action)
            case ForkWorker():
                self.workers.fork(action)
            case CheckHealth(worker, attempt, within_s):
                self.workers.send(worker, messages.CheckHealth(attempt, within_s))
            case StartWorker(worker):
                self.workers.send(worker, messages.Serve())
            case DrainWorker(worker, mode, is_memory_short):
                self.workers.drain(worker, mode, is_memory_short=is_memory_short)
            case StopWorker(worker):
                self.workers.send(worker, messages.Stop())
            case KillWorker():
                self.workers.kill(action)
            case RetireWorker():
                self.workers.retire(action)
            case CommitGeneration():
                self.commit(action)
            case DiscardGeneration():
                self.report_failed_boot(action)
            case FinishReload():
                self.reloads.finish(action, self.fleet)
            case SupersedeReload(request):
                self.reloads.supersede(request, self.fleet)
            case CloseListeners():
                self.begin_stop()
            case Leave(failed):
                self.exit_code = Exit.APP if failed else Exit.OK
            case Note(level, message, keys):
                getattr(self.log, level)(message, **dict(keys))

    # -- actions that concern the server as a whole -----------------------------------------

    def plan_surge(self) -> int | None:
        """Return how a new generation is to take over, by the memory there is; see `headroom`."""
        memory = observe_memory() if self.fleet.current is not None else None
        if memory is None:
            return None
        number = self.fleet.serving_number()
        workers = [w.pid for w in self.fleet.workers.values() if w.generation == number]
        need = measure_footprint(self.molds.sizes.get(number, 0), workers)
        surge = plan_surge(memory, need, workers=self.fleet.desired)
        if surge is not None:
            self.log.info(
                "memory is short, workers are replaced one by one", limit=memory.limit, used=memory.used,
                generation_bytes=need.whole, one_worker_bytes=need.one,
            )  # fmt: skip
        return surge

    def is_memory_coming(self) -> bool:
        """Whether a worker of a generation that does not serve any more is still there."""
        number = self.fleet.serving_number()
        return any(w.generation < number for w in self.fleet.workers.values())

    def stop_mold(self, number: int) -> None:
        self.molds.stop(number)
        self.generations.keep_only({number, *present_generations(self.fleet)})

    def commit(self, action: CommitGeneration) -> None:
        """A generation serves: its settings hold from now on."""
        before = self.generations.options.worker_count()
        config = self.generations.commit(action.generation)
        self.log.info("generation active", generation=action.generation, workers=self.fleet.desired)
        self.own.notifier.ready(f"generation {action.generation} serves")
        if action.is_first:
            # Once in the life of a server, for scripts that wait for it.
            self.log.info("ready: the first generation serves requests")
            self.generations.call_hook("when_ready", self.own.server)
        elif config.options.worker_count() != before:
            self.scale(config.options.worker_count())

    def report_failed_boot(self, failed: DiscardGeneration) -> None:
        self.log.error(
            "generation failed to start", generation=failed.generation, error=last_line(failed.traceback),
            traceback=failed.traceback,
        )  # fmt: skip
        if self.fleet.current is None:
            write_termination_message(failed.traceback)
        else:
            self.own.notifier.ready("an older generation serves")

    def scale(self, desired: int) -> None:
        """Ask for so many workers, as far as the stats table has slots."""
        old = self.fleet.desired
        wanted = min(max(1, desired), self.own.workers_max)
        if wanted < desired:
            self.log.warning("more workers need a restart", workers=desired, kept=wanted)
        self.own.server.num_workers = wanted
        if wanted != old:
            self.log.info("worker count changed", workers=wanted, before=old)
            self.generations.call_hook("nworkers_changed", self.own.server, wanted, old)
            self.dispatch(ScaleRequested(wanted))

    def follow_hooks(self) -> None:
        """Have as many workers as a hook has asked for by `server.num_workers`."""
        wanted = self.own.server.num_workers
        if isinstance(wanted, int) and wanted != self.fleet.desired:
            self.scale(wanted)

    def begin_stop(self) -> None:
        """Stop accepting here; the workers empty the accept queue and close their copies."""
        self.log.info("prefork shutting down", workers=len(self.fleet.workers))
        self.own.notifier.stopping()
        for listener in self.own.listeners:
            refuse_handshakes(listener)
            listener.sock.close()
            if listener.path:
                Path(listener.path).unlink(missing_ok=True)
        self.own.listeners.clear()

    # -- signals, children, control socket, time ----------------------------------------------

    def on_signals(self, _: int) -> None:
        numbers = self.signals.take()
        # Children last: when the whole process group was signalled, their end is not a crash.
        for number in sorted(dict.fromkeys(numbers), key=lambda number: number == signal.SIGCHLD):
            match number:
                case signal.SIGCHLD:
                    self.reap()
                case signal.SIGHUP:
                    self.reloads.on_hangup()
                case signal.SIGTERM:
                    self.dispatch(StopRequested())
                case signal.SIGINT | signal.SIGQUIT:
                    self.dispatch(StopRequested(quick=True))
                case signal.SIGTTIN:
                    self.scale(self.fleet.desired + numbers.count(number))
                case signal.SIGTTOU:
                    self.scale(self.fleet.desired - numbers.count(number))
                case signal.SIGUSR1:
                    self.reopen_logs()
                case signal.SIGUSR2:
                    self.log.warning(
                        "USR2 is not supported; HUP reloads, a restart replaces prefork itself"
                    )

    def reopen_logs(self) -> None:
        self.own.logfiles.reopen()
        for channel in self.channels():
            channel.send(messages.ReopenLogs())
        self.log.info("log files reopened")

    def reap(self) -> None:
        """Take the children that have ended."""
        for ended in processes.reap():
            if self.molds.take_ended(ended) or self.workers.take_ended(ended):
                continue
            if not self.molds.orphans.take_ended(ended) and self.agent.pid == ended.pid:
                self.agent.ended(ended, time.monotonic())

    def on_request(self, request: Request) -> None:
        match request.body:
            case {"op": "status"}:
                now = time.monotonic()
                status = build_status(
                    self.fleet, self.generations, self.table, self.reloads.last, now
                )
                self.control.answer(request, status)
            case {"op": "reload"}:
                self.reloads.on_request(request, self.fleet)
            case {"op": "stop"}:
                self.control.answer(request, {"result": "stopping"})
                self.dispatch(StopRequested())
            case _:
                self.control.answer(
                    request, {"error": "op is not known; use status, reload or stop"}
                )

    def on_time(self, now: float) -> None:
        """Do what is due: decisions that wait for time, and once a tick the figures."""
        watched = pair_up(self.fleet, self.workers.handles)
        noticed = find_unreported(watched, self.table, self.log, now)
        noticed += find_lost(watched, self.log, now)
        noticed += find_silent(watched, self.table, self.log, now)
        noticed += find_only_overdue_left(watched, self.table, now)
        if now >= self.next_tick:
            self.next_tick = now + tick_period(self.fleet)
            self.table.beat(now)
            self.follow_hooks()
            self.own.notifier.alive()
            self.agent.restart_if_due(now)
            self.molds.orphans.kill_overdue(now)
            note_children([*self.molds.importing(), *self.workers.importing()])
            self.log.sink.flush()
            measure_queue(self.own.listeners, self.table)
            noticed += measure_memory(watched, self.table, self.log, now)
            if now >= self.next_memory:
                self.next_memory = now + MEMORY_PERIOD_S
                measure_limit(self.table)
        for event in (*noticed, Tick()):
            self.dispatch(event)

    # -- descriptors --------------------------------------------------------------------------

    def channels(self) -> list[Channel]:
        return [*self.molds.channels(), *self.workers.channels()]

    def inherited(self) -> list[int]:
        """Return the descriptors that go with each order to fork, see `messages.Fork`."""
        return [
            sock.fileno()
            for sock in (*self.handover, *(listener.sock for listener in self.own.listeners))
        ]

    def close_in_child(self) -> None:
        """In a forked child: close what is the arbiter's alone, so that all others see when it ends.

        The addresses too: workers get them with the order to fork them, a mold never needs them.
        """
        self.signals.close_in_child()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.control.close_in_child()
        self.own.run_dir.close_in_child()
        for channel in self.channels():
            channel.close()
        for sock in (*self.handover, *(listener.sock for listener in self.own.listeners)):
            sock.close()
        self.selector.close()
