"""Agents are asked over a real connection, and what answers there is not trusted."""

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web
from wsgiapp_operator import agents as agents_module
from wsgiapp_operator.agents import ANSWER_LIMIT_BYTES, TEXT_LIMIT, Agents
from wsgiapp_operator.state import Pod, ReloadRequest

from tests.unit.operator.samples import make_pod

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
STATUS = {
    "state": "serving",
    "content": {"source": "abc"},
    "workers": {"desired": 2, "ready": 2, "busy": 0},
}


class World:
    """An agent on loopback that answers as the test says, and a clock that the test moves."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.session = session
        self.asked: list[str] = []
        self.now = 0.0
        self.handler: Handler = self.answer
        self.agents: Agents

    async def answer(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(STATUS)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request.path)
        return await self.handler(request)

    async def ask(self, **pod: object) -> Pod:
        made = replace(make_pod("a", serves=None), ip="127.0.0.1")
        return (await self.agents.ask_all([replace(made, **pod)]))[0]  # type: ignore[arg-type]


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with agents_module.open_session() as session:
        world = World(session)
        app = web.Application()
        app.router.add_get("/{tail:.*}", world.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        world.agents = Agents(session, port=port, clock=lambda: world.now)
        yield world
        await runner.cleanup()


async def test_agent_of_a_ready_pod_is_asked_for_its_status(world: World) -> None:
    pod = await world.ask()
    assert pod.agent is not None
    assert pod.agent.content == {"source": "abc"}
    assert world.asked == ["/status"]


async def test_redirect_is_not_followed(world: World) -> None:
    async def redirect(request: web.Request) -> web.StreamResponse:
        raise web.HTTPFound("/internal")

    world.handler = redirect
    assert (await world.ask()).agent is None
    assert world.asked == ["/status"]


@pytest.mark.parametrize("number", [10**30, -1, float("inf"), float("nan"), 1.5, "2", None])
async def test_numbers_that_no_server_has_are_no_answer(world: World, number: object) -> None:
    """They would be refused as a part of the status, which then says nothing new any more."""

    async def lie(request: web.Request) -> web.StreamResponse:
        return web.json_response({**STATUS, "workers": {"desired": 2, "ready": number, "busy": 0}})

    world.handler = lie
    assert (await world.ask()).agent is None


async def test_compressed_answer_is_not_read(world: World) -> None:
    """A few kilobytes may become gigabytes."""
    text = gzip.compress(json.dumps({**STATUS, "padding": " " * 60_000_000}).encode())
    assert len(text) < ANSWER_LIMIT_BYTES

    async def bomb(request: web.Request) -> web.StreamResponse:
        return web.Response(body=text, headers={"Content-Encoding": "gzip"})

    world.handler = bomb
    tracemalloc.start()
    try:
        assert (await world.ask()).agent is None
        assert tracemalloc.get_traced_memory()[1] < 20 * ANSWER_LIMIT_BYTES
    finally:
        tracemalloc.stop()


async def test_answer_is_read_up_to_a_limit(world: World) -> None:
    async def fits(request: web.Request) -> web.StreamResponse:
        text = json.dumps(STATUS)
        return web.Response(text=text + " " * (ANSWER_LIMIT_BYTES - len(text)))

    async def floods(request: web.Request) -> web.StreamResponse:
        text = json.dumps(STATUS)
        return web.Response(text=text + " " * (ANSWER_LIMIT_BYTES + 1 - len(text)))

    world.handler = fits
    assert (await world.ask()).agent is not None
    world.handler, world.now = floods, 100.0
    assert (await world.ask()).agent is None


@pytest.mark.parametrize(
    "text", ["", "no json", "[" * 60_000, "[]", "3", "{}", '{"state": "serving", "workers": 3}']
)
async def test_answer_that_is_not_an_agent_s_counts_as_none(world: World, text: str) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text)

    world.handler = answer
    assert (await world.ask()).agent is None


async def test_texts_are_cut(world: World) -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        if request.path == "/readyz":
            return web.Response(status=503, text="x" * 9000)
        reload = {"id": "1", "result": "failed", "message": "y" * 9000}
        return web.json_response({**STATUS, "reload": reload})

    world.handler = answer
    agent = (await world.ask(ready=False)).agent
    assert agent is not None
    assert agent.reload is not None
    assert (len(agent.unready), len(agent.reload.message)) == (TEXT_LIMIT, TEXT_LIMIT)


async def test_pod_that_has_ended_is_not_asked(world: World) -> None:
    assert (await world.ask(terminating=True)).agent is None
    assert world.asked == []


async def test_answer_of_a_pod_at_rest_serves_for_some_seconds(world: World) -> None:
    await world.ask()
    world.now = agents_module.REST_S
    assert (await world.ask()).agent is not None
    assert len(world.asked) == 2
    world.now += agents_module.FRESH_S - 0.1
    agent = (await world.ask()).agent
    assert agent is not None
    assert agent.steady_s == world.now
    assert len(world.asked) == 2
    world.now += 0.1
    await world.ask()
    assert len(world.asked) == 3


async def test_pod_that_reloads_is_asked_each_time(world: World) -> None:
    await world.ask()
    world.now = agents_module.REST_S
    request = ReloadRequest("1", {"source": "new"})
    await world.ask(request=request)
    await world.ask(request=request)
    assert world.asked.count("/status") == 3


async def test_time_for_which_an_answer_stays_the_same_begins_anew_with_each_change(
    world: World,
) -> None:
    async def steady_s(**pod: object) -> float:
        agent = (await world.ask(request=ReloadRequest("1", {"source": "abc"}), **pod)).agent
        assert agent is not None
        return agent.steady_s

    assert await steady_s() == 0
    world.now = 3.0
    assert await steady_s() == 3
    assert await steady_s(ready=False) == 0
    world.now = 5.0
    assert await steady_s(ready=False) == 2
    assert await steady_s() == 0


async def test_silent_pod_is_asked_less_and_less_often_until_its_readiness_changes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents_module, "AGENT_TIMEOUT_S", 0.25)

    async def hang(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(60)
        return web.Response()

    world.handler = hang
    pod = await world.ask()
    assert pod.agent is None
    assert world.agents.pause_s([pod]) == agents_module.FIRST_PAUSE_S
    await world.ask()
    assert len(world.asked) == 1
    world.now = agents_module.FIRST_PAUSE_S
    await world.ask()
    assert len(world.asked) == 2
    assert world.agents.pause_s([pod]) == 2 * agents_module.FIRST_PAUSE_S
    for _ in range(10):
        world.now += agents_module.LONGEST_PAUSE_S
        await world.ask()
    assert world.agents.pause_s([pod]) == agents_module.LONGEST_PAUSE_S
    asked = len(world.asked)
    await world.ask(ready=False)
    assert len(world.asked) == asked + 1
