"""Bounds how long code of the app's owner (a config file, a hook) may occupy the arbiter, on which all workers depend.

By SIGALRM: whatever Python code runs in the main thread, or waits there in a system call or for a lock, gets an
exception. Code in C that does not return cannot be interrupted.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType

from prefork.errors import TimeLimitError

TICK_S = 0.2


@contextlib.contextmanager
def time_limit(limit_s: float, on_tick: Callable[[], str]) -> Iterator[None]:
    """Let what runs in this context take `limit_s` seconds at most; in the main thread, not nested.

    `on_tick` is called several times a second; a text that it returns ends the code at once, for that reason.
    """
    ticks_left = round(limit_s / TICK_S)

    def tick(_number: int, frame: FrameType | None) -> None:
        nonlocal ticks_left
        ticks_left -= 1
        reason = on_tick() or (f"it took longer than {limit_s:g} s" if ticks_left <= 0 else "")
        # Again with each tick, until it ends: what catches everything goes on.
        if reason:
            raise TimeLimitError(f"{reason}{describe_line(frame)}")

    before = signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, TICK_S, TICK_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def describe_line(frame: FrameType | None) -> str:
    return f" (at {frame.f_code.co_filename}, line {frame.f_lineno})" if frame else ""
