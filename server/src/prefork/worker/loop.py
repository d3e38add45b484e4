"""The main thread of a worker, from ready to the end; it never runs the app.

It waits for the arbiter, the engine and signals; so a worker whose every app thread is busy still
answers.
"""

import os
import selectors
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypedDict

from prefork._engine import Engine
from prefork.base import messages, processes, spool_dir
from prefork.base.channel import Channel
from prefork.base.log import Log
from prefork.base.logfiles import LogFiles
from prefork.base.signals import SignalSocket
from prefork.config.options import Options
from prefork.errors import Exit
from prefork.worker.hooks import Hooks, HookWorker

# Bound before an app is imported: gevent puts one in its place that waits in a hub.
_Selector = selectors.DefaultSelector

# After a quick stop, for calls that are just about to return.
QUICK_STOP_S = 0.3
# A spool that fails, and lost lines of the access log, are logged so often.
REPORT_PERIOD_S = 10.0
# More of them in a row are no handler's doing.
FAILED_TURNS_MAX = 20
# TERM and USR1 are acted on. The others come from a terminal to the whole process group, or by mistake: what
# they mean is the arbiter's decision, and none may end a worker in the middle of a request.
# All others are the app's: its mold has set handlers that do nothing, before the import could set its own.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class AppThread(Protocol):
    """What runs the app."""

    def start(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...


class LoopParts(TypedDict):
    """What every kind of loop is made of; see the fields of `WorkerLoop`."""

    engine: Engine
    channel: Channel
    signals: SignalSocket
    options: Options
    hooks: Hooks
    worker: HookWorker
    log: Log
    logfiles: LogFiles
    listeners: tuple[int, ...]
    handover: tuple[int, int]


@dataclass(kw_only=True)
class WorkerLoop:
    """The main thread's loop, from ready to the end."""

    engine: Engine
    channel: Channel
    signals: SignalSocket
    threads: Sequence[AppThread]
    options: Options
    hooks: Hooks
    worker: HookWorker
    log: Log
    logfiles: LogFiles
    listeners: tuple[int, ...]
    handover: tuple[int, int]
    ask_health: Callable[[float], str]  # blocks for so many seconds at most
    serves: bool = False
    has_stopped_listening: bool = False
    is_over: bool = False
    is_memory_short: bool = False
    skip_cleanup: bool = False  # leave without the interpreter's clean end
    # Set once the arbiter is gone, which would have ended this process in time.
    deadline: float | None = None
    spool_report_after: float = 0.0
    lost_log_lines: int = 0
    lost_report_after: float = 0.0
    failed_turns: int = 0  # in a row

    def run(self) -> None:
        with _Selector() as selector:
            selector.register(self.channel, selectors.EVENT_READ, self.on_message)
            selector.register(self.engine.notify_fd, selectors.EVENT_READ, self.on_engine)
            selector.register(self.signals, selectors.EVENT_READ, self.on_signals)
            while not self.is_over:
                self.guard(selector)
        if self.serves and not self.skip_cleanup:
            for thread in self.threads:
                thread.join()

    def guard(self, selector: selectors.BaseSelector) -> None:
        """Take a turn. What a signal handler of the app raises comes by here, as Python calls it in the main thread.

        Without this thread nobody would end the others.
        """
        try:
            self.turn(selector)
            self.failed_turns = 0
        except SystemExit:
            if not self.is_over:
                self.log.warning("the app ends its worker by SystemExit, draining", pid=os.getpid())
                self.drain("close")
        except BaseException:
            self.log.error(
                "the app raised this in the main thread of its worker, which goes on",
                pid=os.getpid(),
                traceback=traceback.format_exc(),
            )
            self.failed_turns += 1
            if self.failed_turns > FAILED_TURNS_MAX:
                processes.exit_now(Exit.BUG)

    def turn(self, selector: selectors.BaseSelector) -> None:
        """Wait for what comes next and handle it."""
        for key, _ in selector.select(self.time_left()):
            key.data(selector)
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.stop()

    def time_left(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def on_message(self, selector: selectors.BaseSelector) -> None:
        received = self.channel.receive()
        if received is None:
            selector.unregister(self.channel)
            self.outlive_arbiter()
            return
        match received[0]:
            case messages.Serve():
                self.start_threads()
            case messages.CheckHealth():
                self.start_health_check(received[0])
            case messages.Stop() if not self.serves:
                self.is_over = True
            case messages.Drain(mode, is_memory_short):
                self.is_memory_short = is_memory_short
                self.drain(mode)
            case messages.Stop():
                try:
                    self.hooks.call("worker_int", self.worker)
                finally:
                    self.stop()
            case messages.ReopenLogs():
                self.logfiles.reopen()

    def start_threads(self) -> None:
        """Begin to serve; end at once where there are no threads to be had: half a worker is worse than none."""
        self.serves = True
        try:
            for thread in self.threads:
                thread.start()
        except RuntimeError as error:
            self.log.critical(
                "app threads cannot be started: raise the limit of processes (ulimit -u, TasksMax=, pids.max) or lower --threads",
                pid=os.getpid(), threads=len(self.threads), why=error,
            )  # fmt: skip
            processes.exit_now(Exit.ENVIRONMENT)

    def start_health_check(self, order: messages.CheckHealth) -> None:
        """In a thread of its own, as the app may take its time."""
        threading.Thread(
            target=self.check_health, args=(order,), name="health-client", daemon=True
        ).start()

    def check_health(self, order: messages.CheckHealth) -> None:
        try:
            problem = self.ask_health(order.within_s)
        except Exception as error:
            problem = f"the app could not be asked for its health: {type(error).__name__}: {error}"
        self.channel.send(messages.HealthChecked(order.attempt, messages.shorten(problem)))

    def drain(self, mode: str) -> None:
        """Drain; the engine reports when it accepts no more (`shut`) and when nothing is left."""
        if self.serves:
            self.engine.drain(mode=mode)
        else:
            self.is_over = True

    def stop_listening(self) -> None:
        """Nothing is accepted here any more: say so, and hold the addresses no longer.

        When the whole server stops, the last process that closes them makes the kernel refuse
        further connections, which a proxy may try elsewhere; in the queue they would be reset.
        """
        if self.has_stopped_listening:
            return
        self.has_stopped_listening = True
        # Forgotten first: an app thread may be forking.
        descriptors, self.listeners = self.listeners, ()
        for descriptor in descriptors:
            os.close(descriptor)
        self.channel.send(messages.WorkerLeaving())

    def outlive_arbiter(self) -> None:
        """The arbiter is gone: finish what runs, then go too, so that nothing serves unowned."""
        self.log.critical("arbiter is gone, draining", pid=os.getpid())
        if not self.serves:
            self.is_over = True
            return
        self.engine.drain(mode="close")
        self.deadline = time.monotonic() + self.options.graceful_timeout

    def on_signals(self, _: selectors.BaseSelector) -> None:
        if signal.SIGTERM in self.signals.take_kinds():
            self.drain("close")

    def on_engine(self, _: selectors.BaseSelector) -> None:
        for event in self.engine.events():
            match event:
                case ("timeout", ident, method, target, elapsed_us):
                    self.report_timeout(ident, method, target, elapsed_us / 1e6)
                case ("log_lost", lines):
                    self.lost_log_lines += lines
                    self.report_lost_log_lines()
                case ("hub_blocked", elapsed_us):
                    self.report_blocked_hub(elapsed_us / 1e6)
                case ("spool_failed", why):
                    self.report_spool_failure(why)
                case ("left_out", name):
                    self.log.warning(
                        "a header of the app is left out, it belongs to the server (PEP 3333: hop-by-hop)",
                        name=name,
                    )
                case ("max_requests",):
                    self.channel.send(messages.MaxRequestsReached())
                case ("shut",):
                    self.stop_listening()
                case ("drained",):
                    self.stop_listening()
                    self.is_over = True
        if self.is_over:
            self.lost_report_after = 0.0
            self.report_lost_log_lines()

    def report_lost_log_lines(self) -> None:
        """Log how many lines of the access log are missing, at most once in a while."""
        now = time.monotonic()
        if not self.lost_log_lines or now < self.lost_report_after:
            return
        self.lost_report_after = now + REPORT_PERIOD_S
        lines, self.lost_log_lines = self.lost_log_lines, 0
        self.log.warning(
            "access log lines were lost: its reader is too slow, or it cannot be written",
            pid=os.getpid(),
            lines=lines,
        )

    def report_spool_failure(self, why: str) -> None:
        """Log it, at most once in a while: when a disk is full, every large request fails."""
        now = time.monotonic()
        if now < self.spool_report_after:
            return
        self.spool_report_after = now + REPORT_PERIOD_S
        self.log.error(
            "cannot keep a request body or a response in the spool: see --spool-dir and --spool-size",
            pid=os.getpid(),
            directory=spool_dir.resolve(self.options.spool_dir),
            why=why,
        )

    def report_timeout(self, ident: int, method: str, target: str, elapsed_s: float) -> None:
        """Log where the call hangs, and report it to the arbiter, which starts a replacement."""
        # The stack first: a moment later the call may have come to its end.
        frame = sys._current_frames().get(ident)
        stack = (
            "".join(traceback.format_stack(frame)) if frame is not None else "  (it has just ended)"
        )
        self.channel.send(messages.WorkerStuck())
        self.log.error(
            "request timed out", pid=os.getpid(), method=method, target=target, elapsed_s=elapsed_s,
            timeout_s=self.options.timeout, traceback=stack,
        )  # fmt: skip
        self.hooks.call("worker_abort", self.worker)

    def report_blocked_hub(self, elapsed_s: float) -> None:
        """Only a worker with a hub has this to report."""
        raise NotImplementedError

    def stop(self) -> None:
        """End now; calls that are just returning get a moment."""
        self.engine.stop()
        until = time.monotonic() + QUICK_STOP_S
        for thread in self.threads:
            thread.join(max(0.0, until - time.monotonic()))
        self.is_over = self.skip_cleanup = True
