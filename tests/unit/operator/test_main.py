"""What ends the operator, any part of it that ends by itself, and what does not: listings that fail for a while."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from wsgiapp.digest import digest_object
from wsgiapp.names import KIND
from wsgiapp.types import Manifest
from wsgiapp_operator import main
from wsgiapp_operator.cache import AppKey, Cache
from wsgiapp_operator.client import ApiError
from wsgiapp_operator.last_good import SHOWN_DIGITS
from wsgiapp_operator.main import (
    read_everything,
    relist_forever,
    run_beside,
    until_answered,
    wait_for_listing,
)
from wsgiapp_operator.resync import WORTH_A_LISTING
from wsgiapp_operator.settings import read_settings
from wsgiapp_operator.workqueue import KeyedQueue

from tests.unit.operator.fake_cluster import FakeCluster
from tests.unit.operator.samples import make_manifest

SHOP = AppKey("web", "shop")


class FailingCluster(FakeCluster):
    """Fails once to list WsgiApps, which come last."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = list(errors)

    async def list(self, kind: str, *arguments: Any, **options: Any) -> AsyncIterator[Manifest]:
        if kind == KIND and self.errors:
            raise self.errors.pop(0)
        async for manifest in super().list(kind, *arguments, **options):
            yield manifest


class AskedCluster(FakeCluster):
    """Answers a question with an error, once."""

    def __init__(self, errors: dict[str, Exception]) -> None:
        super().__init__()
        self.errors = errors

    async def read_version(self) -> tuple[int, int]:
        self._fail("read_version")
        return 1, 37

    async def list_kubelet_versions(self) -> list[tuple[int, int]]:
        self._fail("list_kubelet_versions")
        return [(1, 37)]

    def _fail(self, question: str) -> None:
        if error := self.errors.pop(question, None):
            raise error


async def take_next(queue: KeyedQueue[AppKey]) -> AppKey:
    taken: asyncio.Future[AppKey] = asyncio.get_running_loop().create_future()

    async def handle(key: AppKey) -> None:
        taken.set_result(key)

    running = asyncio.create_task(queue.run(handle, parallel=1))
    try:
        async with asyncio.timeout(60):
            return await taken
    finally:
        running.cancel()


async def rest() -> None:
    await asyncio.sleep(60)


async def fail() -> None:
    raise KeyError("a bug in one part")


async def test_a_part_that_fails_ends_the_operator_with_its_error() -> None:
    other = asyncio.create_task(rest())
    async with asyncio.timeout(60):
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
    async with asyncio.timeout(60):
        await run_beside([other], [rest(), rest()], end)
    other.cancel()


@pytest.mark.parametrize(
    "error",
    [
        ApiError(410, "the provided continue parameter is too old"),
        ApiError(429, "too many requests"),
        ApiError(500, "etcdserver: request timed out"),
        ApiError(404, "the CRD is not there"),
        aiohttp.ServerDisconnectedError(),
        TimeoutError(),
    ],
)
async def test_first_listing_that_fails_is_repeated(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "FIRST_PAUSE_S", 0.0)
    cluster: Any = FailingCluster(error)
    cluster.put(make_manifest())
    queue: KeyedQueue[AppKey] = KeyedQueue()
    async with asyncio.timeout(60):
        await wait_for_listing(cluster, Cache(), queue, ())
    assert await take_next(queue) == SHOP


@pytest.mark.parametrize(
    "error",
    [
        ApiError(401, "Unauthorized"),
        ApiError(200, "the answer is not a JSON object: '<html>'"),
        ApiError(503, "the server is starting"),
        aiohttp.ServerDisconnectedError(),
        TimeoutError(),
    ],
)
@pytest.mark.parametrize("question", ["read_version", "list_kubelet_versions"])
async def test_operator_that_starts_waits_out_what_passes(
    question: str,
    error: Exception,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(main, "FIRST_PAUSE_S", 0.0)
    cluster: Any = AskedCluster({question: error})
    settings = read_settings([], {})
    async with asyncio.timeout(60):
        platform = await read_everything(settings, cluster, Cache(), KeyedQueue())
    assert platform.image_volumes
    (line,) = (r.getMessage() for r in caplog.records if r.levelname == "WARNING")
    assert line.startswith("asking for versions failed, will be repeated")


async def test_operator_whose_first_question_is_refused_says_so() -> None:
    cluster: Any = AskedCluster({"read_version": ApiError(403, "forbidden")})
    with pytest.raises(ApiError, match="forbidden"):
        await read_everything(read_settings([], {}), cluster, Cache(), KeyedQueue())


async def test_pauses_between_tries_grow_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def sleep(pause_s: float) -> None:
        pauses.append(pause_s)

    async def ask() -> str:
        if len(pauses) < 5:
            raise TimeoutError
        return "answer"

    monkeypatch.setattr(main.asyncio, "sleep", sleep)
    assert await until_answered("asking", ask) == "answer"
    assert pauses == [1, 2, 4, 5, 5]


async def test_what_was_declared_while_no_operator_ran_comes_before_all_else() -> None:
    cluster: Any = FailingCluster()
    names = [f"shop-{i:04}" for i in range(1000)]
    for name in names:
        manifest = make_manifest()
        manifest["metadata"]["name"] = name
        cluster.put({**manifest, "status": {"observedGeneration": int(name != "shop-0777")}})
    queue: KeyedQueue[AppKey] = KeyedQueue()
    await wait_for_listing(cluster, Cache(), queue, ())
    assert await take_next(queue) == AppKey("web", "shop-0777")


@pytest.mark.parametrize("apps", [WORTH_A_LISTING + 1, 80])
async def test_content_that_changed_while_no_operator_ran_comes_before_all_else(apps: int) -> None:
    cluster: Any = FailingCluster()
    for number in range(apps):
        code = {"name": f"code-{number}", "namespace": "web"}
        stored = cluster.put({"kind": "ConfigMap", "metadata": code, "data": {"app.py": "1"}})
        declared = digest_object(stored)[:SHOWN_DIGITS] if number != 77 else "another"
        manifest = make_manifest(source={"configMap": {"name": code["name"]}})
        manifest["metadata"]["name"] = f"shop-{number}"
        status = {"observedGeneration": 1, "contents": [{"name": "source", "declared": declared}]}
        cluster.put({**manifest, "status": status})
    queue: KeyedQueue[AppKey] = KeyedQueue()
    await wait_for_listing(cluster, Cache(), queue, ())
    assert await take_next(queue) == AppKey("web", "shop-77")


async def test_first_listing_that_is_refused_ends_the_operator() -> None:
    cluster: Any = FailingCluster(ApiError(403, "forbidden"))
    with pytest.raises(ApiError, match="forbidden"):
        await wait_for_listing(cluster, Cache(), KeyedQueue(), ())


async def test_what_a_listing_has_found_before_it_fails_is_not_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The next listing compares with a cache that knows it already."""
    monkeypatch.setattr(main, "CALM_S", 0.0)
    cluster: Any = FailingCluster(ApiError(500, "etcdserver: request timed out"))
    labels = {"wsgi.dev/app": "shop", "app.kubernetes.io/managed-by": "wsgiapp-operator"}
    named = {"name": "shop", "namespace": "web", "labels": labels}
    cache, queue, listed = Cache(), KeyedQueue[AppKey](), asyncio.Event()
    cache.put(cluster.put(make_manifest()))
    cache.put(cluster.put({"kind": "Deployment", "metadata": named}))
    cluster.remove("Deployment", "web", "shop")
    listed.set()
    listing = asyncio.create_task(relist_forever(cluster, cache, queue, (), listed))
    assert await take_next(queue) == SHOP
    listing.cancel()
