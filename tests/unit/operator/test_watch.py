"""How watching ends, and how long it is tried: what kopf is given, without an API server."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from wsgiapp.names import KIND
from wsgiapp_operator.watch import (
    FOLLOWING_S,
    Backoffs,
    choose_pause_s,
    run_until_one_ends,
)
from wsgiapp_operator.workqueue import FIRST, KeyedQueue


async def fail() -> None:
    raise ValueError("the stream is broken")


async def test_watching_that_fails_is_an_error_at_once_and_ends_its_tasks_only() -> None:
    ours = asyncio.create_task(asyncio.sleep(60))
    streams = [asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(60))]
    async with asyncio.timeout(60):
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


def seen(kind: str, generation: int | None, observed: int | None) -> dict[str, Any]:
    named = {} if generation is None else {"generation": generation}
    status = {} if observed is None else {"status": {"observedGeneration": observed}}
    return {"kind": kind, "metadata": named, **status}


def test_a_users_change_goes_first_and_what_only_follows_is_gathered() -> None:
    changed = [seen(KIND, 2, 1), seen(KIND, 1, None)]
    assert {choose_pause_s(app) for app in changed} == {FIRST}
    following = [
        seen("Deployment", 2, 2),
        seen("PodDisruptionBudget", 1, 1),
        seen("Pod", None, None),
    ]
    assert {choose_pause_s(each) for each in following} == {FOLLOWING_S}
    edited = [seen("Deployment", 3, 2), seen("Service", None, None), seen("Ingress", 2, None)]
    soon = {choose_pause_s(each) for each in (*edited, seen(KIND, 2, 2))}
    assert len(soon) == 1
    assert 0 < soon.pop() < FOLLOWING_S


async def test_what_goes_first_is_handled_before_what_has_been_due() -> None:
    queue: KeyedQueue[str] = KeyedQueue()
    handled: list[str] = []
    done = asyncio.Event()

    async def handle(key: str) -> None:
        handled.append(key)
        if len(handled) == 3:
            done.set()

    for key in ("a", "b"):
        queue.add(key)
    queue.add("changed", FIRST)
    running = asyncio.create_task(queue.run(handle, parallel=1))
    async with asyncio.timeout(60):
        await done.wait()
    running.cancel()
    assert handled[0] == "changed"
