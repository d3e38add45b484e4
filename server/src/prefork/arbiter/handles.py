"""What the arbiter holds of its processes: descriptors, pids, and what was noticed about them."""

import os
from dataclasses import dataclass

from prefork.base import messages
from prefork.base.messages import Channel
from prefork.config.options import Options
from prefork.worker.app_import import clean_stack
from prefork.worker.hooks import Hooks, HookWorker


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


@dataclass
class WorkerHandle:
    """A worker's process; `hook` has the settings of its generation."""

    channel: Channel
    hook: HookWorker
    pid: int = 0
    # Its main thread did not report a call that is over its time: some call does not let go of the GIL.
    is_mute: bool = False
    quiet_since: float | None = None
    memory_read: float = 0.0


@dataclass(frozen=True)
class Loading:
    """What a generation was booted with."""

    options: Options
    hooks: Hooks
    content: dict[str, str]


@dataclass(frozen=True)
class LastReload:
    """The newest reload that has ended."""

    id: str
    result: str
    message: str
    traceback: str
