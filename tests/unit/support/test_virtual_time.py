"""Pauses and deadlines come in their order, and take no time."""

import asyncio

import pytest

from tests.support.virtual_time import VirtualTimeLoop


async def wait_a_day() -> list[str]:
    order: list[str] = []

    async def note(name: str, after_s: float) -> None:
        await asyncio.sleep(after_s)
        order.append(f"{name} {asyncio.get_running_loop().time():g}")

    await asyncio.gather(note("late", 86_400), note("soon", 0.5), note("now", 0))
    return order


def test_pauses_take_no_time_and_keep_their_order() -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(wait_a_day()) == ["now 0", "soon 0.5", "late 86400"]


async def wait_in_vain() -> None:
    async with asyncio.timeout(60):
        await asyncio.Event().wait()


def test_deadline_is_met_by_what_never_comes() -> None:
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        with pytest.raises(TimeoutError):
            runner.run(wait_in_vain())
        assert runner.get_loop().time() == 60
