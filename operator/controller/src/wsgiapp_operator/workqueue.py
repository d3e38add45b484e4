"""Which apps are due: each key once, one reconcile per key at a time, backoff after failures.

What a user has just changed goes first, and does not wait until something else has ended.

Knows nothing of apps or Kubernetes; the handler is given.
"""

import asyncio
import heapq
import itertools
import logging
import random
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
logger = logging.getLogger(__name__)

FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 60.0
LONGEST_TRANSIENT_BACKOFF_S = 5.0
FIRST = -1.0  # as the pause before a key: none, and before all others


class KeyedQueue(Generic[Key]):
    """Keys that are due now or later; adding a key again only ever makes it earlier.

    Errors of the kinds in `transient` come from outside and pass: they are repeated soon, and logged
    without a traceback. All others are taken for bugs.

    A key that is added while its handler runs is handled once more afterwards: the run may have
    looked before the change.
    """

    def __init__(
        self,
        transient: tuple[type[Exception], ...] = (),
        on_first: Callable[[Key], None] = lambda key: None,
    ) -> None:
        """`on_first` is called with each key that goes first, also while it is being handled."""
        self._transient = transient
        self._on_first = on_first
        self._first: dict[Key, None] = {}  # in their order; these are in none of the next two
        self._due: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._order = itertools.count()
        self._running: dict[Key, bool] = {}  # whether it went first
        self._failures: dict[Key, int] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Return how many keys are due now or being handled."""
        now = asyncio.get_running_loop().time()
        due = sum(due <= now for due in self._due.values())
        return due + len(self._first) + len(self._running)

    def add(self, key: Key, after_s: float = 0.0) -> None:
        """Have a key handled after `after_s` seconds, or FIRST."""
        if after_s < 0:
            self._due.pop(key, None)
            self._first[key] = None
            self._on_first(key)
            self._changed.set()
            return
        if key in self._first:
            return
        due = asyncio.get_running_loop().time() + after_s
        if key in self._due and self._due[key] <= due:
            return
        self._due[key] = due
        heapq.heappush(self._heap, (due, next(self._order), key))
        self._changed.set()

    async def run(self, handle: Callable[[Key], Awaitable[float | None]], *, parallel: int) -> None:
        """Handle due keys until cancelled, at most `parallel` at a time, and as many that go first.

        `handle` returns the seconds after which to look again, or None to wait for an event. What it
        raises is logged, and the key comes back after a growing pause.
        """
        async with asyncio.TaskGroup() as tasks:
            while True:
                key = await self._next(parallel)
                tasks.create_task(self._handle(key, handle))

    async def _handle(self, key: Key, handle: Callable[[Key], Awaitable[float | None]]) -> None:
        try:
            again_s = await handle(key)
            self._failures.pop(key, None)
        except Exception as error:
            is_transient = isinstance(error, self._transient)
            again_s = self._back_off(
                key, LONGEST_TRANSIENT_BACKOFF_S if is_transient else LONGEST_BACKOFF_S
            )
            logger.warning(
                "reconcile failed, will be repeated: app=%s after_s=%.1f error=%r", key, again_s, error,
                exc_info=not is_transient,
            )  # fmt: skip
        finally:
            del self._running[key]
            self._changed.set()
        if again_s is not None:
            self.add(key, again_s)

    def _back_off(self, key: Key, longest_s: float) -> float:
        failures = self._failures.get(key, 0) + 1
        self._failures[key] = failures
        pause_s = min(longest_s, FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 10))
        return pause_s * random.uniform(0.8, 1.2)

    async def _next(self, parallel: int) -> Key:
        """Return the next key to handle; it counts as running."""
        while True:
            self._changed.clear()
            if (first := self._pop_first(parallel)) is not None:
                self._running[first] = True
                return first
            key, wait_s = self._pop_due(parallel)
            if key is not None:
                self._running[key] = False
                return key
            try:
                async with asyncio.timeout(wait_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _has_room(self, parallel: int, *, first: bool) -> bool:
        return sum(each is first for each in self._running.values()) < parallel

    def _pop_first(self, parallel: int) -> Key | None:
        if not self._has_room(parallel, first=True):
            return None
        key = next((key for key in self._first if key not in self._running), None)
        if key is not None:
            del self._first[key]
        return key

    def _pop_due(self, parallel: int) -> tuple[Key | None, float | None]:
        """Return a key to handle now, or else how long nothing will be due (None: until something changes)."""
        if not self._has_room(parallel, first=False):
            return None, None
        now = asyncio.get_running_loop().time()
        busy: list[tuple[float, int, Key]] = []
        found: Key | None = None
        wait_s: float | None = None
        while self._heap and found is None:
            due, _, key = self._heap[0]
            if self._due.get(key) != due:  # made earlier meanwhile
                heapq.heappop(self._heap)
            elif due > now:
                wait_s = due - now
                break
            elif key in self._running:  # its end sets `_changed`
                busy.append(heapq.heappop(self._heap))
            else:
                heapq.heappop(self._heap)
                del self._due[key]
                found = key
        for item in busy:
            heapq.heappush(self._heap, item)
        return found, wait_s
