"""What ends the operator: any part of it that ends by itself."""

import asyncio

import pytest
from wsgiapp_operator.main import run_beside


async def rest() -> None:
    await asyncio.sleep(60)


async def fail() -> None:
    raise KeyError("a bug in one part")


async def test_a_part_that_fails_ends_the_operator_with_its_error() -> None:
    other = asyncio.create_task(rest())
    async with asyncio.timeout(5):
        with pytest.raises(KeyError, match="a bug in one part"):
            await run_beside([other], [rest(), fail()], asyncio.Event())
    other.cancel()


@pytest.mark.parametrize("is_asked", [True, False])
async def test_parts_end_when_the_operator_is_to_end_or_another_task_has_ended(
    is_asked: bool,
) -> None:
    end = asyncio.Event()
    other = asyncio.create_task(rest())
    asyncio.get_running_loop().call_soon(end.set if is_asked else other.cancel)
    async with asyncio.timeout(5):
        await run_beside([other], [rest(), rest()], end)
    other.cancel()
