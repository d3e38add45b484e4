"""An event loop whose clock stands still while there is something to do, and jumps to what is due next.

Tests of pauses and deadlines take no time with it, and a machine that is busy cannot make one of them come too late.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Mapping
from typing import Any


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Its `time` begins at 0. Not for what waits for sockets, threads or processes: these take real time."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        """Let the clock go on."""
        self._now += seconds


class _Jumping(selectors.BaseSelector):
    """Does not wait for the next timer: lets the loop's clock go on to it."""

    def __init__(self, loop: VirtualTimeLoop) -> None:
        self._loop = loop
        self._selector = selectors.DefaultSelector()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:  # no timer: only what comes from outside can wake the loop
            return self._selector.select()
        found = self._selector.select(0)
        if not found and timeout > 0:
            self._loop.advance(timeout)
        return found

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._selector.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._selector.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._selector.get_map()

    def close(self) -> None:
        self._selector.close()
