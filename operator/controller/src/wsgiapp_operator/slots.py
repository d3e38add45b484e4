"""Places for reconciles that read and write: some for all of them, and as many for what goes first.

What a user has just changed, a spec or a content, does not queue behind rollouts that are followed: these fill
their places while the API server is slow, and all apps do when an operator starts.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from wsgiapp_operator.cache import AppKey

PARALLEL = 8


class Lane:
    """Places, and who waits for one, by the time at which they came."""

    def __init__(self, places: int) -> None:
        self._free = places
        self.waiting: dict[AppKey, asyncio.Future[Lane]] = {}

    def admit(self) -> None:
        while self._free and self.waiting:
            future = self.waiting.pop(next(iter(self.waiting)))
            if not future.done():  # else its task was cancelled
                self._free -= 1
                future.set_result(self)

    def leave(self) -> None:
        self._free += 1
        self.admit()


class Slots:
    """Who may go on. One reconcile of an app at a time, as the queue has it."""

    def __init__(self, places: int = PARALLEL) -> None:
        self._common, self._ahead = Lane(places), Lane(places)
        self._first: set[AppKey] = set()

    @contextlib.asynccontextmanager
    async def hold(self, app: AppKey, *, first: bool) -> AsyncIterator[None]:
        """Wait for a place and hold it for the body; an app that is put first meanwhile waits no longer.

        One that was put first and whose body fails goes first again.
        """
        lane = await self._enter(app, self._ahead if first or app in self._first else self._common)
        was_put = app in self._first
        self._first.discard(app)
        try:
            yield
        except Exception:
            if was_put:
                self._first.add(app)
            raise
        finally:
            lane.leave()

    def put_first(self, app: AppKey) -> None:
        """Let an app go first, whether it waits already or comes next."""
        self._first.add(app)
        future = self._common.waiting.pop(app, None)
        if future is not None:
            self._ahead.waiting[app] = future
            self._ahead.admit()

    async def _enter(self, app: AppKey, lane: Lane) -> Lane:
        future: asyncio.Future[Lane] = asyncio.get_running_loop().create_future()
        lane.waiting[app] = future
        lane.admit()
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # it had just got its place
                future.result().leave()
            raise
