"""Each app once, one reconcile at a time, and a growing pause after failures."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from wsgiapp_operator import workqueue as queue_module
from wsgiapp_operator.workqueue import FIRST, KeyedQueue

Handler = Callable[[str], Awaitable[float | None]]


@contextlib.asynccontextmanager
async def running(
    queue: KeyedQueue[str], handle: Handler, parallel: int = 4
) -> AsyncIterator[None]:
    task = asyncio.create_task(queue.run(handle, parallel=parallel))
    try:
        async with asyncio.timeout(60):
            yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_key_added_many_times_is_handled_once() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    handled: list[str] = []
    done = asyncio.Event()

    async def handle(key: str) -> None:
        handled.append(key)
        if key == "last":
            done.set()

    for _ in range(5):
        queue.add("a")
    queue.add("last")
    async with running(queue, handle, parallel=1):
        await done.wait()
    assert handled == ["a", "last"]


async def test_key_added_while_it_is_handled_is_handled_once_more_and_never_twice_at_once() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    inside, most, runs = 0, 0, 0
    done = asyncio.Event()

    async def handle(key: str) -> None:
        nonlocal inside, most, runs
        inside, runs = inside + 1, runs + 1
        most = max(most, inside)
        if runs == 1:
            queue.add(key)
            queue.add(key)
        await asyncio.sleep(0)
        inside -= 1
        if runs == 2:
            done.set()

    queue.add("a")
    async with running(queue, handle):
        await done.wait()
    assert (runs, most) == (2, 1)


async def test_key_comes_back_after_the_time_its_handler_asked_for() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    times: list[float] = []
    done = asyncio.Event()

    async def handle(_: str) -> float | None:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 2:
            done.set()
            return None
        return 0.05

    queue.add("a")
    async with running(queue, handle):
        await done.wait()
    assert times[1] - times[0] >= 0.05


async def test_event_makes_a_waiting_key_due_at_once() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    done = asyncio.Event()

    async def handle(_: str) -> None:
        done.set()

    queue.add("a", 3600)
    async with running(queue, handle):
        queue.add("a")
        await done.wait()
    assert len(queue) == 0


async def test_later_time_never_replaces_an_earlier_one() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    done = asyncio.Event()

    async def handle(_: str) -> None:
        done.set()

    queue.add("a")
    queue.add("a", 3600)
    async with running(queue, handle):
        await done.wait()


async def test_failure_is_repeated_and_harms_no_other_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue_module, "FIRST_BACKOFF_S", 0.001)
    queue: KeyedQueue[str] = KeyedQueue()
    seen: list[str] = []
    done = asyncio.Event()

    async def handle(key: str) -> None:
        seen.append(key)
        if key == "bad" and seen.count("bad") < 4:
            raise RuntimeError("not yet")
        if seen.count("bad") == 4 and "good" in seen:
            done.set()

    queue.add("bad")
    queue.add("good")
    async with running(queue, handle, parallel=1):
        await done.wait()


async def test_pause_grows_to_a_minute_and_is_forgotten_after_a_success() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    pauses = [queue._back_off("a", 60.0) for _ in range(12)]
    assert pauses[0] < 1
    assert 45 < pauses[-1] <= 75
    assert all(late >= early * 0.6 for early, late in itertools.pairwise(pauses))


async def test_what_goes_first_waits_for_nothing_that_is_being_handled() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    hangs, done = asyncio.Event(), asyncio.Event()

    async def handle(key: str) -> None:
        if key == "changed":
            done.set()
        elif key == "a":
            hangs.set()
            await asyncio.Event().wait()

    for key in ("a", "b"):
        queue.add(key)
    async with running(queue, handle, parallel=1):
        await hangs.wait()
        queue.add("changed", FIRST)
        await done.wait()
        await asyncio.sleep(0)
        assert len(queue) == 2  # a is being handled, b is due


async def test_key_that_goes_first_is_handled_once_and_not_later_once_more() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    handled: list[str] = []
    done = asyncio.Event()

    async def handle(key: str) -> None:
        handled.append(key)
        if key == "last":
            done.set()

    queue.add("a")
    queue.add("a", FIRST)
    queue.add("a", FIRST)
    queue.add("a", 0.01)
    queue.add("last", 0.02)
    async with running(queue, handle, parallel=1):
        await done.wait()
    assert handled == ["a", "last"]


async def test_key_that_is_put_first_while_it_is_handled_says_so_and_is_handled_once_more() -> None:
    told: list[str] = []
    queue: KeyedQueue[str] = KeyedQueue(on_first=told.append)
    runs = 0
    done = asyncio.Event()

    async def handle(key: str) -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            queue.add(key, FIRST)
        else:
            done.set()

    queue.add("a")
    async with running(queue, handle, parallel=1):
        await done.wait()
    assert (runs, told) == (2, ["a"])
