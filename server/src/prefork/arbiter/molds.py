"""The mold processes: booting them, reading what they report, ending them.

Owns their handles. What becomes of a generation whose mold ends is decided by `machine`, from the
events that are dispatched here.
"""

import os
import selectors
import signal
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from prefork.arbiter.actions import BootMold, ReportMoldLoss
from prefork.arbiter.channels import drop_channel, receive_all
from prefork.arbiter.events import (
    Event,
    GenerationLoaded,
    GenerationPostponed,
    MoldFailed,
    MoldGone,
    MoldReady,
    PreloadUnsafe,
)
from prefork.arbiter.generations import Generations
from prefork.arbiter.headroom import NoRoomError
from prefork.arbiter.listeners import can_refuse_handshakes
from prefork.arbiter.orphans import Orphans, note_children
from prefork.arbiter.proc import Identity, identify, read_private
from prefork.arbiter.resources import Resources
from prefork.base import messages, processes
from prefork.base.channel import Channel, Sent
from prefork.base.processes import Ended
from prefork.base.tracebacks import clean_stack, describe_failure, last_line
from prefork.errors import StartupError
from prefork.worker.hooks import HookWorker
from prefork.worker.import_limit import ImportLimit
from prefork.worker.mold import Mold, run_mold


@dataclass
class MoldHandle:
    """A mold's process."""

    pid: int  # 0: it has ended
    channel: Channel
    stack_fd: int  # where it writes its stack when it hangs or crashes
    is_ready: bool = False
    is_ending: bool = False  # its import has failed
    is_hung: bool = False
    children: tuple[Identity, ...] = ()  # processes that the import started
    unsafe: str = ""  # what its import left that processes must not share; it is about to end

    def is_importing(self) -> bool:
        return self.pid > 0 and not self.is_ready and not self.is_ending

    def take_stack(self) -> str:
        """Return what was written there, and close it."""
        text = os.pread(self.stack_fd, messages.TEXT_LIMIT, 0).decode("utf-8", "replace")
        os.close(self.stack_fd)
        return clean_stack(text)


class Molds:
    """The molds by generation; `close_in_child` closes what a forked mold must not keep."""

    def __init__(
        self,
        own: Resources,
        generations: Generations,
        selector: selectors.BaseSelector,
        dispatch: Callable[[Event], None],
        close_in_child: Callable[[], None],
    ) -> None:
        self.own = own
        self.log = own.log
        self.generations = generations
        self.selector = selector
        self.dispatch = dispatch
        self.close_in_child = close_in_child
        self.handles: dict[int, MoldHandle] = {}
        # Bytes that the import of each generation has added, measured before its first worker shares them.
        self.sizes: dict[int, int] = {}
        self.import_limits: dict[int, ImportLimit] = {}
        # Molds that outlive their workers, then end: pids, each with the children of its import.
        self.ending: dict[int, tuple[Identity, ...]] = {}
        self.orphans = Orphans()
        self.bereaved: list[
            Identity
        ] = []  # children of imports whose molds were lost; they end with the server

    def channels(self) -> list[Channel]:
        return [handle.channel for handle in self.handles.values()]

    def importing(self) -> list[MoldHandle]:
        return [handle for handle in self.handles.values() if handle.is_importing()]

    def load(
        self,
        number: int,
        wanted: Mapping[str, str],
        plan_surge: Callable[[], int | None],
        is_memory_coming: Callable[[], bool],
    ) -> None:
        """Read the settings of a new generation, and see how much of it fits next to the old one.

        It is postponed where it does not fit and memory is about to be released.
        """
        try:
            self.generations.load(number, wanted)
            surge = plan_surge()
        except NoRoomError as error:
            if self.ending or is_memory_coming():
                self.dispatch(GenerationPostponed(number))
            elif error.import_size > 0:
                self._load_limited(number, error)
            else:
                self.dispatch(MoldFailed(number, describe_failure(error)))
        except BaseException as error:  # whatever the config file raises
            self.dispatch(MoldFailed(number, describe_failure(error)))
        else:
            self.dispatch(GenerationLoaded(number, self.generations.policy(number), surge))

    def _load_limited(self, number: int, error: NoRoomError) -> None:
        """Try a generation that fits only if it is smaller than the one that serves: perhaps it mends just that."""
        self.import_limits[number] = ImportLimit(error.import_size, str(error))
        self.log.info(
            "memory is short, the import may take what there is", generation=number, bytes=error.import_size
        )  # fmt: skip
        self.dispatch(GenerationLoaded(number, self.generations.policy(number), 0))

    def boot(self, order: BootMold) -> None:
        """Boot the mold of a generation, with the settings the generation was loaded with."""
        try:
            self._fork(order)
        except processes.Become:
            raise
        except Exception as error:  # no descriptors, no processes left
            self.dispatch(MoldFailed(order.generation, describe_failure(error)))

    def order_fork(self, number: int, order: messages.Fork, *, descriptors: Iterable[int]) -> Sent:
        """Send a mold the order to fork a worker."""
        handle = self.handles.get(number)
        return Sent.GONE if handle is None else handle.channel.send(order, descriptors=descriptors)

    def abort(self, number: int) -> None:
        """Kill a mold so that it writes its stack first."""
        if number in self.handles:
            handle = self.handles[number]
            handle.is_hung = True
            note_children([handle] if handle.is_importing() else [])
            processes.kill(handle.pid, signal.SIGABRT)

    def stop(self, number: int) -> None:
        """Let a mold end: it does when its channel is closed and its workers are gone."""
        self.sizes.pop(number, None)
        handle = self.handles.get(number)
        # One that is still importing, or hangs, does not look at its channel.
        if handle is not None and (handle.is_hung or not (handle.is_ready or handle.is_ending)):
            note_children([handle] if handle.is_importing() else [])
            processes.kill(handle.pid, signal.SIGKILL)
        self._forget(number)

    def _forget(self, number: int) -> None:
        """Close what belongs to a mold that is to end, or is ending; its process is still to be reaped."""
        handle = self.handles.pop(number, None)
        if handle is not None:
            drop_channel(self.selector, handle.channel)
            os.close(handle.stack_fd)
            if handle.pid:
                self.ending[handle.pid] = handle.children

    def kill_ending(self) -> None:
        """End the molds that take too long for their end."""
        for pid in self.ending:
            processes.kill(pid, signal.SIGKILL)

    def report_loss(self, loss: ReportMoldLoss) -> None:
        self.log.error(
            "mold lost, workers go on", generation=loss.generation, why=last_line(loss.why),
            retry_in_s=loss.retry_in_s, traceback=loss.why,
        )  # fmt: skip

    def take_ended(self, ended: Ended) -> bool:
        """Take a child that has ended, after its last messages; False when it was not a mold."""
        if ended.pid in self.ending:
            self.orphans.take(self.ending.pop(ended.pid), time.monotonic())
            return True
        found = next(((n, h) for n, h in self.handles.items() if h.pid == ended.pid), None)
        if found is None:
            return False
        number, handle = found
        handle.pid = 0  # the kernel may reuse it
        self._read(number, handle)
        if handle.is_ready:
            self.bereaved += handle.children  # its workers go on, and may need them
        else:
            self.orphans.take(handle.children, time.monotonic())
        if self.handles.get(number) is handle:
            self.handles.pop(number)
            drop_channel(self.selector, handle.channel)
            stack = handle.take_stack()
            if handle.unsafe:
                self._forget_unsafe(number, ended.pid, handle.unsafe)
            else:
                self.dispatch(MoldGone(number, ended.how, stack))
        return True

    def _fork(self, order: BootMold) -> None:
        number = order.generation
        config = (
            self.generations.again(number)
            if order.is_replacement
            else self.generations.configs[number]
        )
        self.log.info(
            "loading app", generation=number, **{f"content_{k}": v[:12] for k, v in config.content.items()}
        )  # fmt: skip
        self._forget(number)  # one that has reported its failure may not have ended yet
        ours, theirs = Channel.pair()
        stack_fd = os.memfd_create("prefork-stack", os.MFD_CLOEXEC)
        mold = Mold(
            number, order.preload, theirs, config.options, config.hooks, config.environment,
            self.generations.started_in, config.directory, config.versions, self.own.server, self.log,
            self.own.logfiles, self.own.stats_fd,
            tuple(can_refuse_handshakes(listener) for listener in self.own.listeners),
            self.import_limits.pop(number, None), stack_fd,
        )  # fmt: skip

        def forget() -> None:
            ours.close()
            self.close_in_child()

        try:
            pid = processes.fork(lambda: run_mold(mold, forget))
        except OSError as error:
            os.close(stack_fd)
            raise StartupError(f"the mold cannot be forked: {error.strerror}") from error
        theirs.close()
        handle = MoldHandle(pid, ours, stack_fd)
        self.handles[number] = handle
        self.selector.register(ours, selectors.EVENT_READ, lambda _: self._read(number, handle))

    def _read(self, number: int, handle: MoldHandle) -> None:
        """Read what a mold has sent."""
        for message in receive_all(handle.channel):
            match message:
                case None:
                    drop_channel(self.selector, handle.channel)
                case messages.MoldReady(children):
                    handle.is_ready, handle.children = True, identify(children)
                    self.sizes[number] = read_private(handle.pid)
                    self.dispatch(MoldReady(number))
                case messages.PreloadUnsafe(found):
                    handle.unsafe = found
                case messages.BootFailed(traceback, children):
                    handle.is_ending, handle.children = True, identify(children)
                    self.dispatch(MoldFailed(number, traceback))
                case messages.Malformed(why):
                    self.log.error(
                        "malformed message from the mold, mold killed", generation=number, why=why
                    )
                    drop_channel(self.selector, handle.channel)
                    processes.kill(handle.pid, signal.SIGKILL)

    def _forget_unsafe(self, number: int, pid: int, found: str) -> None:
        """A mold has ended that imported the app only to find that this cannot be shared.

        Not before: a lock or a folder of its import would be in the way of the workers' own imports.
        """
        self.log.warning(
            "the import holds what processes must not share, each worker imports for itself (docs/fork-safety.md)",
            generation=number, found=found,
        )  # fmt: skip
        self.generations.note_import(number, unsafe=found)
        # Files by pid, as prometheus_client's, are cleaned up as a worker's are.
        worker = HookWorker(self.generations.options, self.log, age=0, pid=pid, is_alive=False)
        self.generations.call_hook("child_exit", self.own.server, worker, generation=number)
        self.dispatch(PreloadUnsafe(number))
