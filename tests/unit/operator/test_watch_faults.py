"""What goes wrong with a watch costs a new list, never the operator, and never an object that nobody sees go."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import yaml
from aiohttp import web
from wsgiapp.names import KIND
from wsgiapp.types import Manifest
from wsgiapp_operator import client
from wsgiapp_operator import watch as watching
from wsgiapp_operator.cache import AppKey, Cache
from wsgiapp_operator.client import Cluster
from wsgiapp_operator.workqueue import KeyedQueue

from tests.support.certificate import make_certificate
from tests.unit.operator.recorded_api import write_kubeconfig
from tests.unit.operator.samples import make_manifest

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
SHOP = AppKey("web", "shop")
FAULT_IN_WATCH = {
    "an error": {
        "type": "ERROR",
        "object": {"kind": "Status", "code": 500, "message": "no leader"},
    },
    "an error without a code": {"type": "ERROR", "object": {"kind": "Status"}},
    "a list that is too old": {"type": "ERROR", "object": {"kind": "Status", "code": 410}},
}


class FaultyApi:
    """Answers requests for WsgiApps by what is given, and then as an API server that has `apps`, and no more."""

    def __init__(self, *apps: Manifest) -> None:
        self.apps = apps
        self.lists: list[Answer] = []
        self.watches: list[Answer] = []

    @asynccontextmanager
    async def serve(
        self, kubeconfig: Path, context: ssl.SSLContext | None = None
    ) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        if context is not None:  # each request is to see the certificate
            app.on_response_prepare.append(close_connection)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        scheme = "https" if context is not None else "http"
        write_kubeconfig(kubeconfig, f"{scheme}://localhost:{runner.addresses[0][1]}")
        try:
            yield
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        is_watch, is_of_apps = "watch" in request.query, request.path.endswith("/wsgiapps")
        faults = self.watches if is_watch else self.lists
        if is_of_apps and faults:
            return await faults.pop(0)(request)
        if is_watch:
            await asyncio.sleep(0.2)
            return web.Response()
        if request.path == "/version":
            return web.json_response({"major": "1", "minor": "37"})
        if request.path.strip("/") in ("api", "apis"):
            return web.json_response({"versions": [], "groups": []})
        items = list(self.apps) if is_of_apps else []
        return web.json_response({"items": items, "metadata": {"resourceVersion": "1"}})


async def close_connection(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Connection"] = "close"


class Watched:
    """The watches of an operator, and what they have brought."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.queue: KeyedQueue[AppKey] = KeyedQueue()
        self.listed = asyncio.Event()

    @asynccontextmanager
    async def run(self, context: ssl.SSLContext | None = None) -> AsyncIterator[asyncio.Task[None]]:
        """Watch; what ends the watches is raised."""
        task = asyncio.create_task(
            watching.watch(
                [],
                self.cache,
                self.queue,
                asyncio.Event(),
                lambda: None,
                self.listed.set,
                ssl_context=context or ssl.create_default_context(),
            )
        )
        try:
            yield task
        finally:
            if not task.done():
                task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    async def wait_for_shop(self, task: asyncio.Task[None]) -> None:
        """Wait until the app is due, or the watches have ended."""
        seen = asyncio.Event()

        async def handle(key: AppKey) -> None:
            seen.set()

        waits = [
            asyncio.create_task(each) for each in (self.queue.run(handle, parallel=1), seen.wait())
        ]
        await asyncio.wait([*waits, task], timeout=60, return_when=asyncio.FIRST_COMPLETED)
        for each in waits:
            each.cancel()


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "kubeconfig"
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setattr(watching, "BEGIN_ANEW_S", 0.1, raising=False)
    return path


def stored(version: str = "7") -> Manifest:
    manifest = make_manifest()
    manifest["metadata"] |= {"resourceVersion": version}
    return manifest


def say(text: str) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.Response(text=text)

    return answer


def refuse(status: int) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"kind": "Status", "code": status}, status=status)

    return answer


def replace_token(kubeconfig: Path) -> None:
    kubeconfig.write_text(kubeconfig.read_text().replace('"token": "t"', '"token": "new"'))


async def list_first_page(request: web.Request) -> web.StreamResponse:
    return web.json_response({"items": [], "metadata": {"resourceVersion": "1", "continue": "t"}})


async def list_nothing(request: web.Request) -> web.StreamResponse:
    return web.json_response({"items": [], "metadata": {"resourceVersion": "1"}})


@pytest.mark.parametrize(
    "text",
    [
        *(pytest.param(json.dumps(event), id=name) for name, event in FAULT_IN_WATCH.items()),
        pytest.param(json.dumps({"type": "ADDED", "object": stored()})[:100], id="half an event"),
        pytest.param("<html>upstream is away</html>", id="a proxy's page"),
    ],
)
async def test_watch_that_breaks_is_begun_anew_with_a_list(kubeconfig: Path, text: str) -> None:
    api, watched = FaultyApi(stored()), Watched()
    api.lists, api.watches = [list_nothing], [say(text)]
    async with api.serve(kubeconfig), watched.run() as task:
        await watched.wait_for_shop(task)
    assert watched.cache.get(KIND, *SHOP) is not None


@pytest.mark.parametrize(
    "lists",
    [
        pytest.param([list_first_page, refuse(410)], id="the rest has expired"),
        pytest.param([refuse(404)], id="the CRD is away"),
        pytest.param([refuse(500)], id="the server fails"),
        pytest.param([refuse(401)] * 5, id="the server knows nobody yet"),
        pytest.param([refuse(429)], id="the server is busy"),
        pytest.param([say("<html>upstream is away</html>")], id="a proxy's page"),
    ],
)
async def test_list_that_breaks_is_begun_anew(kubeconfig: Path, lists: list[Answer]) -> None:
    api, watched = FaultyApi(stored()), Watched()
    api.lists = lists
    async with api.serve(kubeconfig), watched.run() as task:
        await watched.wait_for_shop(task)
    assert watched.cache.get(KIND, *SHOP) is not None


async def test_list_with_nothing_in_it_is_reported_too(kubeconfig: Path) -> None:
    """All may have been deleted while the watch was broken."""
    watched = Watched()
    async with FaultyApi().serve(kubeconfig), watched.run(), asyncio.timeout(60):
        await watched.listed.wait()


async def test_one_kind_that_is_not_watched_any_more_ends_the_others(kubeconfig: Path) -> None:
    """Else an operator would look healthy, and see nothing of that kind."""
    with pytest.raises(ConnectionError, match="watching has ended"):
        await watch_until_one_is_cancelled(kubeconfig)


async def watch_until_one_is_cancelled(kubeconfig: Path) -> None:
    watched = Watched()
    async with FaultyApi(stored()).serve(kubeconfig), watched.run() as task:
        await watched.wait_for_shop(task)
        one = next(each for each in asyncio.all_tasks() if each.get_name() == "watch Pod")
        one.cancel()
        await asyncio.wait([task], timeout=60)


async def test_token_that_has_expired_is_read_anew(kubeconfig: Path) -> None:
    """The kubelet puts a new one into the file of a service account in good time."""
    api, watched = FaultyApi(stored()), Watched()
    seen = []

    async def refuse_old(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers["Authorization"])
        replace_token(kubeconfig)
        return await refuse(401)(request)

    async def note(request: web.Request) -> web.StreamResponse:
        seen.append(request.headers["Authorization"])
        return await list_first_page(request)

    api.lists = [refuse_old, note]
    async with api.serve(kubeconfig), watched.run() as task:
        await watched.wait_for_shop(task)
    assert seen == ["Bearer t", "Bearer new"]


async def test_page_that_is_too_large_is_asked_for_with_fewer_objects(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any user of the cluster may make objects of a megabyte; fifty of them took the operator's memory."""
    api, watched = FaultyApi(stored()), Watched()
    monkeypatch.setattr(client, "PAGE_BYTES", 100_000)
    sizes = []

    async def list_large(request: web.Request) -> web.StreamResponse:
        sizes.append(int(request.query["limit"]))
        text = "<" * 30_000
        items = [{"metadata": {"annotations": {"text": text}}}] * sizes[-1]
        return web.json_response({"items": items, "metadata": {"resourceVersion": "1"}})

    api.lists = [list_large, list_large]
    async with api.serve(kubeconfig), watched.run() as task:
        await watched.wait_for_shop(task)
    assert sizes == [50, 12]


class Authority:
    """The API server's certificate, which is its own CA, and the file by which others know it."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "ca.crt"
        self.folder = folder
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.rotate()

    def rotate(self) -> None:
        certificate, key = make_certificate("localhost")
        self.file.write_bytes(certificate)
        pem = self.folder / "server.pem"
        pem.write_bytes(certificate + key)
        self.context.load_cert_chain(pem)

    def name_in(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        config["clusters"][0]["cluster"]["certificate-authority"] = str(self.file)
        kubeconfig.write_text(json.dumps(config))


async def test_ca_that_is_rotated_costs_one_try_and_no_watch(
    kubeconfig: Path, tmp_path: Path
) -> None:
    authority, api, watched = Authority(tmp_path), FaultyApi(), Watched()
    async with api.serve(kubeconfig, authority.context):
        authority.name_in(kubeconfig)
        cluster = await Cluster.connect()
        async with watched.run(cluster.ssl_context) as task, asyncio.timeout(60):
            await watched.listed.wait()
            authority.rotate()
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await cluster.read_version()
            assert await cluster.read_version() == (1, 37)
            api.apps = (stored(),)
            api.watches = [refuse(410)]
            await watched.wait_for_shop(task)
        await cluster.close()
    assert watched.cache.get(KIND, *SHOP) is not None


async def test_namespace_without_permission_is_reported_once_with_the_remedy_and_then_rarely(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """kopf has an error for each try."""
    monkeypatch.setattr(watching.Backoffs, "__iter__", lambda self: iter([0.01] * 40))
    api, watched = FaultyApi(stored()), Watched()
    api.lists = [refuse(403)] * 33
    async with api.serve(kubeconfig), watched.run() as task:
        await watched.wait_for_shop(task)
    lines = [r.getMessage() for r in caplog.records if "watching is refused" in r.getMessage()]
    assert [line.split("tries=")[1].split()[0] for line in lines] == ["1", "16", "32"]
    assert all("resource=wsgiapps namespace=all" in line for line in lines)
    assert "take the namespace out of watchNamespaces" in lines[0]
    assert not [r for r in caplog.records if "Request attempt" in r.getMessage()]


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("https://10.0.0.1:443/api/v1/namespaces/web/pods?watch=true", "pods namespace=web"),
        ("https://10.0.0.1/apis/wsgi.dev/v1alpha1/wsgiapps?limit=50", "wsgiapps namespace=all"),
        ("http://[::1]:8001/k8s/v1/x/apis/apps/v1/namespaces/a-b/deployments", "deployments namespace=a-b"),
    ],
)  # fmt: skip
def test_try_of_a_watch_names_resource_and_namespace(url: str, named: str) -> None:
    text = f"Request attempt #1 failed; will retry: GET {url} -> TimeoutError()"
    record = logging.makeLogRecord({"msg": text, "levelno": logging.ERROR, "levelname": "ERROR"})
    assert watching.say_tries(record)
    assert f"resource={named} tries=1 error=TimeoutError()" in record.getMessage()
    assert record.levelname == "WARNING"
