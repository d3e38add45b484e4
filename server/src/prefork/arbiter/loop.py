"""The arbiter: collects events, lets `machine` decide, acts. Never imports the app.

Single-threaded. Owns the listeners, the stats table, the control socket and the channels to molds
and workers. Its state is one `Fleet`; whatever else is kept here are handles (descriptors, pids).
"""

import dataclasses
import os
import selectors
import signal
import socket
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefork.arbiter.agent_process import AgentChild
from prefork.arbiter.control import Ask, ControlServer
from prefork.arbiter.fleet import Fleet, Life, Reason, Wish
from prefork.arbiter.handles import LastReload, Loading, MoldHandle, WorkerHandle
from prefork.arbiter.listeners import Listener
from prefork.arbiter.machine import (
    AbortMold,
    Action,
    BootMold,
    CloseListeners,
    Committed,
    Discarded,
    DrainWorker,
    Event,
    ForkWorker,
    KillWorker,
    Leave,
    MoldFailed,
    MoldGone,
    MoldLost,
    MoldReady,
    MoldUnfit,
    Note,
    Policy,
    ReloadAsked,
    Reloaded,
    Retired,
    ScaleAsked,
    StartWorker,
    StopAsked,
    StopMold,
    StopWorker,
    Superseded,
    Tick,
    WorkerBorn,
    WorkerFailed,
    WorkerGone,
    WorkerLeaving,
    WorkerReady,
    WorkerStuck,
    WorkerTired,
    next_deadline,
    step,
)  # fmt: skip
from prefork.arbiter.monitor import (
    find_mute,
    find_quiet,
    measure_memory,
    measure_queue,
    pair_up,
    publish,
    tick_period,
)
from prefork.base import messages, processes
from prefork.base.digest import digest_directory, parse_content
from prefork.base.log import Log
from prefork.base.logfiles import LogFiles
from prefork.base.messages import Channel
from prefork.base.run_dir import RunDir
from prefork.base.signals import SignalSocket
from prefork.base.stats import Table
from prefork.base.systemd import Notifier
from prefork.base.termination_log import write_termination_message
from prefork.cli import Configuration
from prefork.config.options import FIXED_AT_START, Options
from prefork.errors import Exit, Refusal
from prefork.worker.app_import import describe_failure, last_line
from prefork.worker.boot import Inheritance
from prefork.worker.hooks import Hooks, HookServer, HookWorker
from prefork.worker.mold import Mold, run_mold

SIGNALS = (
    signal.SIGCHLD, signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGTTIN, signal.SIGTTOU,
    signal.SIGUSR1, signal.SIGUSR2,
)  # fmt: skip


# After a step that failed: what made it fail may be there again at once.
TROUBLE_PAUSE_S = 0.5


@dataclass(frozen=True)
class Resources:
    """What the arbiter owns from its start to its end."""

    log: Log
    logfiles: LogFiles
    listeners: list[Listener]
    run_dir: RunDir
    table: Table
    stats_fd: int
    server: HookServer
    notifier: Notifier
    workers_max: int


class Arbiter:
    """One server; `run` returns its exit code."""

    def __init__(
        self,
        configuration: Configuration,
        hooks: Hooks,
        resources: Resources,
        reread: Callable[[], Configuration],
    ) -> None:
        self.configuration = configuration
        self.options = configuration.options
        self.hooks = hooks
        self.own = resources
        self.log = resources.log
        self.table = resources.table
        self.reread = reread
        self.fleet = Fleet(desired=self.options.worker_count(), slots=self.table.header("slots"))
        self.molds: dict[int, MoldHandle] = {}
        self.workers: dict[int, WorkerHandle] = {}
        self.loadings: dict[int, Loading] = {}
        self.pending: deque[Event] = deque()
        self.waiting: dict[str, list[Ask]] = {}
        self.last_reload: LastReload | None = None
        self.hups = 0
        self.next_tick = 0.0
        self.exit_code: int | None = None
        self.is_troubled = False
        self.handover = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.signals = SignalSocket(SIGNALS)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.signals, selectors.EVENT_READ, self.on_signals)
        self.control = ControlServer(resources.run_dir.control, self.selector, self.on_ask)
        self.agent = AgentChild(self.options, resources.run_dir.path, self.log)

    # -- the loop ---------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to stop."""
        self.hooks.call("on_starting", self.own.server)
        self.agent.start(time.monotonic())
        self.happen(Tick())
        while self.exit_code is None:
            self.attempt(self.turn)
            if self.is_troubled:
                self.is_troubled = False
                time.sleep(TROUBLE_PAUSE_S)
        self.attempt(self.hooks.call, "on_exit", self.own.server)
        self.agent.stop()
        self.log.info("prefork ends", pid=os.getpid(), exit_code=int(self.exit_code))
        return self.exit_code

    def turn(self) -> None:
        """Wait for what happens next, and see to it."""
        for key, events in self.selector.select(self.time_to_wait()):
            self.attempt(key.data, events)
        self.attempt(self.on_time, time.monotonic())

    def attempt(self, act: Callable[..., None], *arguments: Any) -> None:
        """Do one thing. If that fails as nobody foresaw, say so and go on: all workers depend on it.

        Whatever a hook of the config file raises comes by here too, SystemExit included.
        """
        try:
            act(*arguments)
        except processes.Become:
            raise
        except BaseException:
            self.log.critical("a step of the arbiter failed, the arbiter goes on")
            self.log.block(traceback.format_exc())
            self.is_troubled = True

    def time_to_wait(self) -> float:
        now = time.monotonic()
        due = next_deadline(self.fleet, now, self.policy())
        return max(0.0, min(self.next_tick, due or self.next_tick) - now)

    def happen(self, event: Event) -> None:
        """Decide and act. An action that causes an event appends it, so decisions never nest."""
        self.pending.append(event)
        if len(self.pending) > 1:
            return
        while self.pending:
            self.attempt(self.decide, self.pending[0])
            self.pending.popleft()

    def decide(self, event: Event) -> None:
        self.fleet, actions = step(self.fleet, event, time.monotonic(), self.policy())
        # Before acting: a forked mold must find nothing half done.
        self.attempt(publish, self.fleet, self.table, time.monotonic())
        for action in actions:
            self.attempt(self.perform, action)

    def policy(self) -> Policy:
        return Policy(
            graceful_timeout=self.options.graceful_timeout,
            boot_timeout=self.options.boot_timeout,
            preload=self.options.preload_app != "never",
        )

    def perform(self, action: Action) -> None:
        match action:
            case BootMold():
                self.boot_mold(action)
            case StopMold(generation):
                self.stop_mold(generation)
            case AbortMold(generation):
                if generation in self.molds:
                    processes.kill(self.molds[generation].pid, signal.SIGABRT)
            case MoldLost(generation, why, retry_in_s):
                self.log.error(
                    "mold lost, workers go on",
                    generation=generation,
                    why=last_line(why),
                    retry_in_s=retry_in_s,
                )
                self.log.block(why)
            case ForkWorker():
                self.fork_worker(action)
            case StartWorker(worker):
                self.tell(worker, messages.Serve())
            case DrainWorker(worker, mode):
                self.log.info("worker drains", **self.describe(worker), mode=mode)
                self.tell(worker, messages.Drain(mode))
            case StopWorker(worker):
                self.tell(worker, messages.Stop())
            case KillWorker(worker, with_stack, is_last):
                self.kill_worker(worker, with_stack=with_stack, is_last=is_last)
            case Retired():
                self.retire(action)
            case Committed():
                self.commit(action)
            case Discarded(generation, traceback):
                self.report_failed_boot(generation, traceback)
            case Reloaded(wish, succeeded, traceback):
                self.report_reload(wish, succeeded, traceback)
            case Superseded(wish):
                self.answer_reload(
                    wish, LastReload(wish.id, "failed", "superseded by a newer reload", "")
                )
            case CloseListeners():
                self.begin_stop()
            case Leave(failed):
                self.exit_code = Exit.APP if failed else Exit.OK
            case Note(level, message, keys):
                getattr(self.log, level)(message, **dict(keys))

    # -- molds ------------------------------------------------------------------------------

    def boot_mold(self, order: BootMold) -> None:
        """Boot the mold of a generation, with the settings as they are now."""
        try:
            self.fork_mold(order, self.load(order))
        except processes.Become:
            raise
        except BaseException as error:  # the config file's own, and our lack of descriptors
            self.happen(MoldFailed(order.generation, describe_failure(error)))

    def fork_mold(self, order: BootMold, loading: Loading) -> None:
        number = order.generation
        self.loadings[number] = loading
        self.log.info(
            "mold boots", generation=number, **{f"content_{k}": v[:12] for k, v in loading.content.items()}
        )  # fmt: skip
        ours, theirs = Channel.pair()
        stack_fd = os.memfd_create("prefork-stack", os.MFD_CLOEXEC)
        mold = Mold(
            number, order.preload, theirs, loading.options, loading.hooks, self.own.server, self.log,
            self.own.logfiles, self.inheritance(), stack_fd,
        )  # fmt: skip

        def forget() -> None:
            ours.close()
            self.close_here()

        try:
            pid = processes.fork(lambda: run_mold(mold, forget))
        except OSError as error:
            os.close(stack_fd)
            raise Refusal(f"the mold cannot be forked: {error.strerror}") from error
        theirs.close()
        handle = MoldHandle(pid, ours, stack_fd)
        self.molds[number] = handle
        self.selector.register(ours, selectors.EVENT_READ, lambda _: self.on_mold(number, handle))

    def load(self, order: BootMold) -> Loading:
        """Return what the generation is booted with; raises Refusal for a config file that is bad.

        The first generation and a mold that is booted again take the settings they had.
        """
        known = self.loadings.get(order.generation)
        content = self.digest_content()
        if known is not None:
            if known.content != content:
                self.log.warning(
                    "content changed since this generation was loaded; reload",
                    generation=order.generation,
                )
            return dataclasses.replace(known, content=content)
        if not self.loadings:
            return Loading(self.options, self.hooks, content)
        self.hooks.call("on_reload", self.own.server)
        self.own.notifier.reloading()
        fresh = self.reread()
        for warning in fresh.warnings:
            self.log.warning("setting ignored", what=warning)
        for pair in fresh.options.raw_env:
            name, _, value = pair.partition("=")
            os.environ[name] = value
        return Loading(self.keep_fixed(fresh.options), Hooks(fresh.hooks, self.log), content)

    def keep_fixed(self, fresh: Options) -> Options:
        """Return the new settings with the old values of those that need a restart."""
        kept: dict[str, Any] = {}
        for name in FIXED_AT_START:
            old = getattr(self.options, name)
            if getattr(fresh, name) != old:
                self.log.warning("setting changes with a restart only", name=name, kept=old)
                kept[name] = old
        if fresh.worker_count() > self.own.workers_max:
            self.log.warning(
                "more workers need a restart", workers=fresh.workers, kept=self.own.workers_max
            )
            kept["workers"] = self.own.workers_max
        return dataclasses.replace(fresh, **kept)

    def digest_content(self) -> dict[str, str]:
        digests = {}
        for name, folder in parse_content(self.options.content).items():
            try:
                digests[name] = digest_directory(folder)
            except OSError as error:
                self.log.error(
                    "content cannot be read", name=name, folder=folder, why=error.strerror
                )
        return digests

    def inheritance(self) -> Inheritance:
        return Inheritance(
            listeners=tuple(listener.sock.fileno() for listener in self.own.listeners),
            stats=self.own.stats_fd,
            handover=(self.handover[0].fileno(), self.handover[1].fileno()),
        )

    def on_mold(self, number: int, handle: MoldHandle) -> None:
        """Read what a mold says, up to its end."""
        while True:
            try:
                received = handle.channel.receive(wait=False)
            except (BlockingIOError, OSError):
                return
            if received is None:
                self.forget_channel(handle.channel)
                return
            match received[0]:
                case messages.MoldReady():
                    self.happen(MoldReady(number))
                case messages.MoldUnfit(threads):
                    self.log.warning(
                        "the import leaves threads running, each worker imports for itself (--preload to insist)",
                        generation=number, threads=threads,
                    )  # fmt: skip
                    self.molds.pop(number)
                    os.close(handle.stack_fd)
                    self.happen(MoldUnfit(number))
                case messages.BootFailed(traceback):
                    self.happen(MoldFailed(number, traceback))
                case messages.Garbled(why):
                    self.log.error("mold cannot be understood", generation=number, why=why)
                    self.forget_channel(handle.channel)
                    processes.kill(handle.pid, signal.SIGKILL)

    def stop_mold(self, number: int) -> None:
        """Let a mold end: it does when its channel is closed."""
        handle = self.molds.pop(number, None)
        if handle is not None:
            self.forget_channel(handle.channel)
            os.close(handle.stack_fd)
            # One that is still importing does not look at its channel.
            processes.kill(handle.pid, signal.SIGKILL)
        current = self.fleet.current.number if self.fleet.current else 0
        booting = self.fleet.booting.number if self.fleet.booting else 0
        for old in [n for n in self.loadings if n not in (current, booting, number)]:
            del self.loadings[old]

    def channels(self) -> list[Channel]:
        return [
            *(handle.channel for handle in self.molds.values()),
            *(handle.channel for handle in self.workers.values()),
        ]

    def forget_channel(self, channel: Channel) -> None:
        if channel.fileno() >= 0:
            self.selector.unregister(channel)
            channel.close()

    # -- workers ----------------------------------------------------------------------------

    def fork_worker(self, order: ForkWorker) -> None:
        loading = self.loadings[order.generation]
        try:
            ours, theirs = Channel.pair()
        except OSError as error:  # no descriptors left: counted as a crash and tried again
            self.happen(WorkerGone(order.worker, f"no channel to it: {error.strerror}"))
            return
        handle = WorkerHandle(ours, HookWorker(loading.options, self.log, age=order.worker))
        self.workers[order.worker] = handle
        mold = self.molds.get(order.generation)
        message = messages.Fork(worker=order.worker, slot=order.slot)
        sent = mold is not None and mold.channel.send(message, descriptors=[theirs.fileno()])
        theirs.close()
        self.selector.register(
            ours, selectors.EVENT_READ, lambda _: self.on_worker(order.worker, handle)
        )
        if not sent:
            # The mold is just ending; its end is an event of its own.
            self.forget_channel(ours)
            self.happen(WorkerGone(order.worker, "its mold is gone"))

    def on_worker(self, number: int, handle: WorkerHandle) -> None:
        """Read what a worker says, up to its end."""
        while True:
            try:
                received = handle.channel.receive(wait=False)
            except (BlockingIOError, OSError):
                return
            if received is not None and isinstance(received[0], messages.Garbled):
                # It sees the end of the channel, finishes what it does, and ends.
                self.log.error(
                    "worker cannot be understood", **self.describe(number), why=received[0].why
                )
                received = None
            if received is None:
                self.forget_channel(handle.channel)
                # With a pid, waiting for the process tells how it ended; without, this is all there is.
                if not handle.pid:
                    self.happen(WorkerGone(number, "it ended before it could report"))
                return
            self.on_worker_message(number, handle, received[0])

    def on_worker_message(
        self, number: int, handle: WorkerHandle, message: messages.Message
    ) -> None:
        match message:
            case messages.WorkerBorn(pid):
                handle.pid = handle.hook.pid = pid
                self.happen(WorkerBorn(number, pid))
            case messages.WorkerReady():
                self.count_boot(number)
                self.happen(WorkerReady(number))
            case messages.BootFailed(traceback):
                self.happen(WorkerFailed(number, traceback))
            case messages.WorkerFull():
                self.happen(WorkerTired(number, Reason.MAX_REQUESTS))
            case messages.WorkerStuck():
                self.happen(WorkerStuck(number))
            case messages.WorkerLeaving():
                self.happen(WorkerLeaving(number))

    def count_boot(self, number: int) -> None:
        worker = self.fleet.workers.get(number)
        if worker is None:
            return
        boot_us = int((time.monotonic() - worker.started) * 1e6)
        self.table.set_header("boot_us_last", boot_us)
        self.table.add_header("boot_us_sum", boot_us)
        self.table.add_header("boot_count")
        self.log.info("worker ready", **self.describe(number), boot_s=boot_us / 1e6)

    def retire(self, action: Retired) -> None:
        """Count and forget a worker that is gone."""
        worker = action.worker
        handle = self.workers.pop(worker.id, None)
        self.table.add_header(f"exits_{action.reason.value}")
        self.table.free(worker.slot)
        unexpected = action.reason in (Reason.CRASH, Reason.KILLED, Reason.TIMEOUT)
        (self.log.warning if unexpected else self.log.info)(
            "worker ended", pid=worker.pid, slot=worker.slot, generation=worker.generation,
            reason=action.reason.value, how=action.how,
        )  # fmt: skip
        if handle is not None:
            self.forget_channel(handle.channel)
            handle.hook.alive = False
            self.hooks.call("child_exit", self.own.server, handle.hook)

    def tell(self, number: int, message: messages.Message) -> None:
        """Send a worker an order; one that is gone needs none."""
        if number in self.workers:
            self.workers[number].channel.send(message)

    def kill_worker(self, number: int, *, with_stack: bool, is_last: bool) -> None:
        handle = self.workers.get(number)
        if handle is None or not handle.pid:
            return
        self.log.warning("worker is overdue, killed", **self.describe(number))
        # SIGABRT: faulthandler writes all stacks, without the GIL. An app may have caught it.
        shows_stack = (with_stack or handle.is_mute) and not is_last
        number_sent = signal.SIGABRT if shows_stack else signal.SIGKILL
        processes.kill(handle.pid, number_sent)

    def describe(self, number: int) -> dict[str, Any]:
        worker = self.fleet.workers.get(number)
        if worker is None:
            return {"worker": number}
        return {"pid": worker.pid, "slot": worker.slot, "generation": worker.generation}

    # -- generations and reloads --------------------------------------------------------------

    def commit(self, action: Committed) -> None:
        """A generation serves: its settings hold from now on."""
        loading = self.loadings[action.generation]
        before = self.options.worker_count()
        self.options, self.hooks = loading.options, loading.hooks
        self.own.server.cfg = loading.options
        self.log.info("generation serves", generation=action.generation, workers=self.fleet.desired)
        self.own.notifier.ready(f"generation {action.generation} serves")
        if action.is_first:
            self.hooks.call("when_ready", self.own.server)
        elif loading.options.worker_count() != before:
            self.scale(loading.options.worker_count())

    def report_failed_boot(self, generation: int, traceback: str) -> None:
        self.log.error(
            "generation does not boot", generation=generation, error=last_line(traceback)
        )
        self.log.block(traceback)
        if self.fleet.current is None:
            write_termination_message(traceback)
        else:
            self.own.notifier.ready("an older generation serves")

    def report_reload(self, wish: Wish, succeeded: bool, traceback: str) -> None:
        result = "succeeded" if succeeded else "failed"
        message = last_line(traceback)
        self.last_reload = LastReload(wish.id, result, message, traceback)
        self.table.add_header("reloads_ok" if succeeded else "reloads_failed")
        generation = self.fleet.current.number if self.fleet.current else 0
        (self.log.info if succeeded else self.log.error)(
            f"reload {result}", id=wish.id, generation=generation, **({"error": message} if message else {})
        )  # fmt: skip
        self.answer_reload(wish, self.last_reload)

    def answer_reload(self, wish: Wish, ended: LastReload) -> None:
        """Tell everybody who asked for it how a reload ended."""
        generation = self.fleet.current.number if self.fleet.current else 0
        reply = {**dataclasses.asdict(ended), "generation": generation}
        for ask in self.waiting.pop(wish.id, []):
            self.control.answer(ask, reply)

    def scale(self, desired: int) -> None:
        """Ask for so many workers, as far as the stats table has slots."""
        old = self.fleet.desired
        wanted = min(max(1, desired), self.own.workers_max)
        if wanted < desired:
            self.log.warning("more workers need a restart", workers=desired, kept=wanted)
        if wanted != old:
            self.log.info("workers wanted", workers=wanted, before=old)
            self.own.server.num_workers = wanted
            self.hooks.call("nworkers_changed", self.own.server, wanted, old)
            self.happen(ScaleAsked(wanted))

    def begin_stop(self) -> None:
        """Stop accepting here; the workers empty the accept queue and close their copies."""
        self.log.info("prefork stops", workers=len(self.fleet.workers))
        self.own.notifier.stopping()
        for listener in self.own.listeners:
            listener.sock.close()
            if listener.path:
                Path(listener.path).unlink(missing_ok=True)
        self.own.listeners.clear()

    # -- signals, children, control socket ------------------------------------------------------

    def on_signals(self, _: int) -> None:
        numbers = self.signals.take()
        # Children last: when the whole group was told to end, their end is not a crash.
        for number in sorted(dict.fromkeys(numbers), key=lambda number: number == signal.SIGCHLD):
            match number:
                case signal.SIGCHLD:
                    self.reap()
                case signal.SIGHUP:
                    self.hups += 1
                    self.happen(ReloadAsked(Wish(f"hup-{self.hups}")))
                case signal.SIGTERM:
                    self.happen(StopAsked())
                case signal.SIGINT | signal.SIGQUIT:
                    self.happen(StopAsked(quick=True))
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
        """Take the children that have ended, after the last they had to say."""
        for ended in processes.reap():
            mold = next(((n, h) for n, h in self.molds.items() if h.pid == ended.pid), None)
            if mold is not None:
                number, handle = mold
                handle.pid = 0  # soon somebody else's
                self.on_mold(number, handle)
                if self.molds.get(number) is handle:
                    self.molds.pop(number)
                    self.forget_channel(handle.channel)
                    self.happen(MoldGone(number, ended.how, handle.take_stack()))
            elif (worker := self.find_worker(ended.pid)) is not None:
                number, worker_handle = worker
                self.on_worker(number, worker_handle)
                self.happen(WorkerGone(number, ended.how, signalled=ended.is_signalled))
            elif self.agent.pid == ended.pid:
                self.agent.ended(ended, time.monotonic())

    def find_worker(self, pid: int) -> tuple[int, WorkerHandle] | None:
        """Return the worker of a pid; its first message may still be unread."""
        for number, handle in list(self.workers.items()):
            if not handle.pid:
                self.on_worker(number, handle)
        return next(((n, h) for n, h in self.workers.items() if h.pid == pid), None)

    def on_ask(self, ask: Ask) -> None:
        match ask.body:
            case {"op": "status"}:
                self.control.answer(ask, self.status())
            case {"op": "reload", "id": str(id)} if 0 < len(id) <= 128:
                self.on_reload_ask(ask, id)
            case {"op": "reload"}:
                self.control.answer(
                    ask, {"error": "reload needs an id, a text of 1 to 128 characters"}
                )
            case _:
                self.control.answer(ask, {"error": "op is not known; use status or reload"})

    def on_reload_ask(self, ask: Ask, id: str) -> None:
        """A reload under way with the same id is waited for, not begun again."""
        under_way = (self.fleet.running, self.fleet.handing, self.fleet.queued)
        self.waiting.setdefault(id, []).append(ask)
        if not any(wish is not None and wish.id == id for wish in under_way):
            self.happen(ReloadAsked(Wish(id)))

    def status(self) -> dict[str, Any]:
        """Return the state of affairs as docs/contracts.md, section 4, has it."""
        current = self.fleet.current
        workers = self.fleet.workers.values()
        serving = [worker for worker in workers if worker.life is Life.SERVING]
        ready = [w for w in serving if current is not None and w.generation == current.number]
        return {
            "state": self.fleet.phase.name.lower().replace("stopping", "draining"),
            "generation": current.number if current else 0,
            "content": self.loadings[current.number].content if current else {},
            "workers": {
                "desired": self.fleet.desired,
                "ready": min(len(ready), self.fleet.desired),
                "busy": sum(1 for worker in serving if self.table.slot(worker.slot, "in_flight")),
            },
            "reload": dataclasses.asdict(self.last_reload) if self.last_reload else None,
            "crash_loop": self.crash_loop(),
        }

    def crash_loop(self) -> dict[str, Any] | None:
        """Return how many workers crashed in a row and how long the next one waits; None: all calm."""
        wait_s = self.fleet.fork_at - time.monotonic()
        if wait_s <= 0:
            return None
        return {"crashes": self.fleet.crashes, "wait_s": round(wait_s, 3)}

    # -- time -------------------------------------------------------------------------------

    def on_time(self, now: float) -> None:
        """Do what is due: decisions that wait for time, and once a tick the figures."""
        watched = pair_up(self.fleet, self.workers)
        noticed = find_mute(watched, self.table, self.log, now) + find_quiet(
            watched, self.table, now
        )
        if now >= self.next_tick:
            self.next_tick = now + tick_period(self.fleet)
            self.table.beat(now)
            self.own.notifier.alive()
            self.agent.restart_if_due(now)
            measure_queue(self.own.listeners, self.table)
            noticed += measure_memory(watched, self.table, self.log, now)
        for event in (*noticed, Tick()):
            self.happen(event)

    def close_here(self) -> None:
        """In a forked child: close what is the arbiter's alone, so that its death is seen by all."""
        self.signals.close_here()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self.control.close_here()
        for channel in self.channels():
            channel.close()
        # These stay open, as numbers: collecting the objects in a worker must not close them.
        for sock in (*self.handover, *(listener.sock for listener in self.own.listeners)):
            sock.detach()
        self.selector.close()
