"""What the API server says no with is passed on in its own words."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from aiohttp import web
from wsgiapp_operator.client import (
    PAGE,
    PAGE_BYTES,
    ApiError,
    Cluster,
    path_of,
    read_body,
    read_error,
    read_kubelet_version,
)

from tests.unit.operator.recorded_api import write_kubeconfig


def refuse(status: int, body: object) -> ApiError:
    text = body if isinstance(body, str) else json.dumps(body)
    return read_error(status, "Some Reason", text.encode())


@pytest.mark.parametrize(
    ("named", "path"),
    [
        (("Pod", None), "/api/v1/pods"),
        (("Deployment", "web"), "/apis/apps/v1/namespaces/web/deployments"),
        (("Service", "web", "shop"), "/api/v1/namespaces/web/services/shop"),
        (("WsgiApp", "web", "shop"), "/apis/wsgi.dev/v1alpha1/namespaces/web/wsgiapps/shop"),
        (("IngressClass", None, "nginx"), "/apis/networking.k8s.io/v1/ingressclasses/nginx"),
        (("ConfigMap", "web", "a/../b?c"), "/api/v1/namespaces/web/configmaps/a%2F..%2Fb%3Fc"),
    ],
)
def test_path_names_group_namespace_and_object(named: tuple[str, ...], path: str) -> None:
    assert path_of(*named) == path


def test_message_and_causes_of_the_status_object_are_kept() -> None:
    causes = [{"reason": "NamespaceTerminating", "message": "namespace x is being terminated"}]
    error = refuse(403, {"message": "forbidden: x", "details": {"causes": causes}})
    assert (error.status, error.message, error.causes) == (
        403,
        "forbidden: x",
        ("NamespaceTerminating",),
    )
    assert error.is_refusal


@pytest.mark.parametrize("body", ["", "upstream away", "[]", "{}"])
def test_answer_without_a_status_object_is_passed_on(body: str) -> None:
    error = refuse(503, body)
    assert error.message == (body or "Some Reason")
    assert not error.is_refusal


@pytest.mark.parametrize("text", ["<html>upstream is away</html>", "", "[]", '{"items": ['])
def test_answer_without_an_object_is_an_error_that_may_pass(text: str) -> None:
    with pytest.raises(ApiError, match="not a JSON object") as raised:
        read_body(200, text.encode())
    assert not raised.value.is_refusal


def test_object_in_an_answer_is_read() -> None:
    assert read_body(200, b'{"items": []}') == {"items": []}


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "", True),
        (403, "", True),
        (413, "Request entity too large: limit is 3145728", True),
        (422, "", True),
        (409, "", False),
        (500, "", False),
        (500, "etcdserver: request is too large", True),
        (500, "etcdserver: request timed out", False),
    ],
)
def test_refusal_is_what_repeating_does_not_mend(status: int, message: str, expected: bool) -> None:
    assert ApiError(status, message).is_refusal is expected


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v1.35.2", (1, 35)),
        ("v1.34.1-gke.100", (1, 34)),
        ("v1.33.0+k3s1", (1, 33)),
        ("1.36.0", (1, 36)),
        ("", None),
        ("unknown", None),
    ],
)
def test_kubelet_s_version_is_read_where_it_is_known(
    text: str, version: tuple[int, int] | None
) -> None:
    assert read_kubelet_version({"status": {"nodeInfo": {"kubeletVersion": text}}}) == version


def test_node_that_has_just_joined_has_no_version() -> None:
    assert read_kubelet_version({"metadata": {"name": "new"}}) is None


@asynccontextmanager
async def serving(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]], kubeconfig: Path
) -> AsyncIterator[Cluster]:
    """A client of an API server that answers each GET by `answer`."""
    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    write_kubeconfig(kubeconfig, f"http://127.0.0.1:{runner.addresses[0][1]}")
    cluster = await Cluster.connect()
    try:
        yield cluster
    finally:
        await cluster.close()
        await runner.cleanup()


class PagedApi:
    """Lists what it is given, in pages; `sizes` has how many objects each answer had, `pages` by their start the
    last one that was asked for, in bytes."""

    def __init__(self, path: str, items: list[dict[str, object]]) -> None:
        self.path = path
        self.items = items
        self.sizes: list[int] = []
        self.pages: dict[int, tuple[int, int]] = {}

    async def answer(self, request: web.Request) -> web.Response:
        start = int(request.query.get("continue", 0))
        end = start + int(request.query.get("limit", len(self.items)))
        self.sizes.append(len(self.items[start:end]))
        metadata = {"continue": str(end)} if end < len(self.items) else {}
        text = json.dumps({"items": self.items[start:end], "metadata": metadata})
        self.pages[start] = self.sizes[-1], len(text)
        return web.Response(text=text, content_type="application/json")

    def serve(self, kubeconfig: Path) -> AbstractAsyncContextManager[Cluster]:
        return serving(self.answer, kubeconfig)


@pytest.fixture
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    return tmp_path / "kubeconfig"


async def test_nodes_are_listed_in_pages(kubeconfig: Path) -> None:
    """A node names all its images, and a large cluster has thousands of nodes: in one answer they fill the memory."""
    nodes = [{"status": {"nodeInfo": {"kubeletVersion": f"v1.{35 + n % 2}.0"}}} for n in range(120)]
    api = PagedApi("/api/v1/nodes", nodes)
    async with api.serve(kubeconfig) as cluster:
        assert await cluster.list_kubelet_versions() == [(1, 35), (1, 36)] * 60
    assert api.sizes == [PAGE, PAGE, 20]


async def test_page_of_large_objects_is_read_in_parts_that_fit(kubeconfig: Path) -> None:
    """Any user of the cluster may make ConfigMaps of a megabyte; a page of them took the operator's memory."""
    large = {40, 41, 42, *range(60, 110)}
    maps: list[dict[str, object]] = [
        {"data": {"n": str(n), "text": "<" * (PAGE_BYTES // 2 if n in large else 10)}}
        for n in range(150)
    ]
    api = PagedApi("/api/v1/configmaps", maps)
    async with api.serve(kubeconfig) as cluster:
        found = [each["data"]["n"] async for each in cluster.list("ConfigMap", None)]
    assert found == [str(n) for n in range(150)]
    assert all(size == 1 or read <= PAGE_BYTES for size, read in api.pages.values()), api.pages
    assert api.sizes[-1] > 10


async def test_object_larger_than_a_page_is_listed_alone(kubeconfig: Path) -> None:
    maps: list[dict[str, object]] = [{"data": {"text": "<" * (2 * PAGE_BYTES)}} for _ in range(3)]
    async with PagedApi("/api/v1/configmaps", maps).serve(kubeconfig) as cluster:
        assert len([each async for each in cluster.list("ConfigMap", None)]) == 3


@pytest.mark.parametrize(
    ("ahead_s", "is_followed"), [(-300, True), (300, True), (3, False), (-3, False)]
)
async def test_times_are_those_of_the_api_server_s_clock(
    kubeconfig: Path, ahead_s: int, is_followed: bool
) -> None:
    ahead = timedelta(seconds=ahead_s)

    async def answer(request: web.Request) -> web.Response:
        date = format_datetime(datetime.now(UTC) + ahead, usegmt=True)
        return web.json_response({"major": "1", "minor": "37"}, headers={"Date": date})

    async with serving(answer, kubeconfig) as cluster:
        await cluster.read_version()
        differs = cluster.now() - datetime.now(UTC)
    assert abs(differs - (ahead if is_followed else timedelta())) < timedelta(seconds=1.5)


@pytest.mark.parametrize("body", [{}, {"major": "1", "minor": ""}, {"major": 1, "minor": 37}])
async def test_version_without_numbers_is_an_error_that_may_pass(
    kubeconfig: Path, body: dict[str, object]
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response(body)

    async with serving(answer, kubeconfig) as cluster:
        with pytest.raises(ApiError, match="/version says") as raised:
            await cluster.read_version()
    assert not raised.value.is_refusal
