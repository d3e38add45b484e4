"""What the API server says no with is passed on in its own words."""

import json
from pathlib import Path

import pytest
from aiohttp import web
from wsgiapp_operator.client import (
    PAGE,
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
    ("status", "expected"), [(400, True), (403, True), (422, True), (409, False), (500, False)]
)
def test_refusal_is_what_repeating_does_not_mend(status: int, expected: bool) -> None:
    assert ApiError(status, "").is_refusal is expected


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


async def test_nodes_are_listed_in_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node names all its images, and a large cluster has thousands of nodes: in one answer they fill the memory."""
    nodes = [{"status": {"nodeInfo": {"kubeletVersion": f"v1.{35 + n % 2}.0"}}} for n in range(120)]
    sizes = []

    async def list_nodes(request: web.Request) -> web.Response:
        start = int(request.query.get("continue", 0))
        end = start + int(request.query.get("limit", len(nodes)))
        sizes.append(len(nodes[start:end]))
        metadata = {"continue": str(end)} if end < len(nodes) else {}
        return web.json_response({"items": nodes[start:end], "metadata": metadata})

    app = web.Application()
    app.router.add_get("/api/v1/nodes", list_nodes)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    write_kubeconfig(tmp_path / "kubeconfig", f"http://127.0.0.1:{runner.addresses[0][1]}")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    cluster = await Cluster.connect()
    try:
        assert await cluster.list_kubelet_versions() == [(1, 35), (1, 36)] * 60
    finally:
        await cluster.close()
        await runner.cleanup()
    assert sizes == [PAGE, PAGE, 20]
