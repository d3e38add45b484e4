"""How watching ends, and how long it is tried: what kopf is given, without an API server."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from wsgiapp_operator.watch import Backoffs, run_until_one_ends


async def fail() -> None:
    raise ValueError("the stream is broken")


async def test_watching_that_fails_is_an_error_at_once_and_ends_its_tasks_only() -> None:
    ours = asyncio.create_task(asyncio.sleep(60))
    streams = [asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(60))]
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionError, match="the stream is broken"):
            await run_until_one_ends(streams, asyncio.Event())
    assert streams[1].cancelled()
    assert not ours.done()
    ours.cancel()


async def test_watching_that_was_asked_to_stop_ends_without_an_error() -> None:
    stop = asyncio.Event()
    streams = [asyncio.create_task(stop.wait()), asyncio.create_task(asyncio.sleep(60))]
    asyncio.get_running_loop().call_soon(stop.set)
    await run_until_one_ends(streams, stop)
    assert streams[1].cancelled()


def test_a_watch_is_tried_again_without_an_end_and_each_time_from_the_shortest_pause() -> None:
    backoffs = Backoffs()
    for _ in range(2):
        pauses = list(itertools.islice(backoffs, 1000))
        assert pauses[0] <= 0.5
        assert pauses[-1] == max(pauses) == 5.0
