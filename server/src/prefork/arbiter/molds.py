"""The mold processes: booting them, reading what they report, ending them.

Owns their handles. What becomes of a generation whose mold ends is decided by `machine`, from the
events that are dispatched here.
"""

import os
import selectors
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prefork.arbiter.actions import BootMold, ReportMoldLoss
from prefork.arbiter.channels import drop_channel, receive_all
from prefork.arbiter.events import Event, MoldFailed, MoldGone, MoldReady, PreloadUnsafe
from prefork.arbiter.generations import Generations
from prefork.arbiter.resources import Resources
from prefork.base import messages, processes
from prefork.base.channel import Channel
from prefork.base.processes import Ended
from prefork.base.tracebacks import clean_stack, describe_failure, last_line
from prefork.errors import StartupError
from prefork.worker.boot import Inheritance
from prefork.worker.mold import Mold, run_mold


@dataclass
class MoldHandle:
    """A mold's process."""

    pid: int  # 0: it has ended
    channel: Channel
    stack_fd: int  # where it writes its stack when it hangs or crashes

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
        inheritance: Inheritance,
        selector: selectors.BaseSelector,
        dispatch: Callable[[Event], None],
        close_in_child: Callable[[], None],
    ) -> None:
        self.own = own
        self.log = own.log
        self.generations = generations
        self.inheritance = inheritance
        self.selector = selector
        self.dispatch = dispatch
        self.close_in_child = close_in_child
        self.handles: dict[int, MoldHandle] = {}

    def channels(self) -> list[Channel]:
        return [handle.channel for handle in self.handles.values()]

    def boot(self, order: BootMold) -> None:
        """Boot the mold of a generation, with the settings as they are now."""
        try:
            self._fork(order)
        except processes.Become:
            raise
        except BaseException as error:  # the config file's own, and our lack of descriptors
            self.dispatch(MoldFailed(order.generation, describe_failure(error)))

    def order_fork(self, number: int, order: messages.Fork, *, descriptors: Iterable[int]) -> bool:
        """Send a mold the order to fork a worker; False when the mold is gone."""
        handle = self.handles.get(number)
        return handle is not None and handle.channel.send(order, descriptors=descriptors)

    def abort(self, number: int) -> None:
        """Kill a mold so that it writes its stack first."""
        if number in self.handles:
            processes.kill(self.handles[number].pid, signal.SIGABRT)

    def stop(self, number: int) -> None:
        """Let a mold end: it does when its channel is closed."""
        handle = self.handles.pop(number, None)
        if handle is not None:
            drop_channel(self.selector, handle.channel)
            os.close(handle.stack_fd)
            # One that is still importing does not look at its channel.
            processes.kill(handle.pid, signal.SIGKILL)

    def report_loss(self, loss: ReportMoldLoss) -> None:
        self.log.error(
            "mold lost, workers go on", generation=loss.generation, why=last_line(loss.why),
            retry_in_s=loss.retry_in_s,
        )  # fmt: skip
        self.log.block(loss.why)

    def take_ended(self, ended: Ended) -> bool:
        """Take a child that has ended, after its last messages; False when it was not a mold."""
        found = next(((n, h) for n, h in self.handles.items() if h.pid == ended.pid), None)
        if found is None:
            return False
        number, handle = found
        handle.pid = 0  # the kernel may reuse it
        self._read(number, handle)
        if self.handles.get(number) is handle:
            self.handles.pop(number)
            drop_channel(self.selector, handle.channel)
            self.dispatch(MoldGone(number, ended.how, handle.take_stack()))
        return True

    def _fork(self, order: BootMold) -> None:
        number = order.generation
        config = self.generations.load(number)
        self.log.info(
            "mold boots", generation=number, **{f"content_{k}": v[:12] for k, v in config.content.items()}
        )  # fmt: skip
        ours, theirs = Channel.pair()
        stack_fd = os.memfd_create("prefork-stack", os.MFD_CLOEXEC)
        mold = Mold(
            number, order.preload, theirs, config.options, config.hooks, self.own.server, self.log,
            self.own.logfiles, self.inheritance, stack_fd,
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
                case messages.MoldReady():
                    self.dispatch(MoldReady(number))
                case messages.PreloadUnsafe(threads):
                    self._forget_unsafe(number, handle, threads)
                case messages.BootFailed(traceback):
                    self.dispatch(MoldFailed(number, traceback))
                case messages.Malformed(why):
                    self.log.error(
                        "malformed message from the mold, mold killed", generation=number, why=why
                    )
                    drop_channel(self.selector, handle.channel)
                    processes.kill(handle.pid, signal.SIGKILL)

    def _forget_unsafe(self, number: int, handle: MoldHandle, threads: str) -> None:
        self.log.warning(
            "the import leaves threads running, each worker imports for itself (--preload to insist)",
            generation=number, threads=threads,
        )  # fmt: skip
        self.handles.pop(number)
        os.close(handle.stack_fd)
        self.dispatch(PreloadUnsafe(number))
