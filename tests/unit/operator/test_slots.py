"""Who waits for whom: what a user has just changed for nobody but its like."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from wsgiapp_operator.cache import AppKey
from wsgiapp_operator.slots import Slots

SHOP = AppKey("web", "shop")


class Work:
    """Tasks that hold a place until they are let go; `inside` are the names of those that have one."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.inside: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def begin(self, name: str, *, first: bool = False) -> None:
        self.ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._hold(name, first=first))
        await self.settle()

    async def _hold(self, name: str, *, first: bool) -> None:
        async with self.slots.hold(AppKey("web", name), first=first):
            self.inside.append(name)
            try:
                await self.ends[name].wait()
            finally:
                self.inside.remove(name)

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.tasks[name]
        await self.settle()

    async def cancel(self, name: str) -> None:
        self.tasks[name].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.tasks[name]
        await self.settle()

    async def settle(self) -> None:
        """Nothing waits for time here: a few turns of the loop and all that can go on has done so."""
        for _ in range(10):
            await asyncio.sleep(0)


@pytest.fixture
async def work() -> AsyncIterator[Work]:
    """Two places, which two apps that are followed hold, and a third that waits."""
    work = Work(Slots(2))
    for name in "abc":
        await work.begin(name)
    yield work
    for task in work.tasks.values():
        task.cancel()
    await asyncio.gather(*work.tasks.values(), return_exceptions=True)


async def test_as_many_as_there_are_places_go_on_and_the_others_in_their_order(work: Work) -> None:
    await work.begin("d")
    assert work.inside == ["a", "b"]
    await work.end("b")
    assert work.inside == ["a", "c"]
    await work.end("a")
    assert work.inside == ["c", "d"]


async def test_what_goes_first_waits_for_its_like_only(work: Work) -> None:
    for name in "xyz":
        await work.begin(name, first=True)
    assert work.inside == ["a", "b", "x", "y"]
    await work.end("a")
    assert work.inside == ["b", "x", "y", "c"]
    await work.end("x")
    assert work.inside == ["b", "y", "c", "z"]


async def test_app_that_waits_and_whose_content_changes_waits_no_longer(work: Work) -> None:
    work.slots.put_first(AppKey("web", "c"))
    await work.settle()
    assert work.inside == ["a", "b", "c"]
    await work.end("c")
    await work.begin("c")
    assert work.inside == ["a", "b"], "once"


async def test_app_that_comes_after_its_content_has_changed_goes_first(work: Work) -> None:
    work.slots.put_first(SHOP)
    await work.begin("shop")
    assert work.inside == ["a", "b", "shop"]


async def test_what_fails_goes_first_again(work: Work) -> None:
    work.slots.put_first(SHOP)
    with pytest.raises(RuntimeError):
        async with work.slots.hold(SHOP, first=False):
            raise RuntimeError("the API server is away")
    await work.begin("shop")
    assert work.inside == ["a", "b", "shop"]


async def test_place_of_a_cancelled_task_is_free_again(work: Work) -> None:
    await work.cancel("c")
    await work.begin("d")
    await work.cancel("a")
    assert work.inside == ["b", "d"]
    await work.begin("e")
    work.ends["b"].set()  # e has its place and is cancelled before it goes on
    await work.tasks["b"]
    await work.cancel("e")
    await work.begin("f")
    assert work.inside == ["d", "f"]
