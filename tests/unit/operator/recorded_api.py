"""The API server in memory behind HTTP, which notes what each request needs to be allowed.

So the operator's own client and kopf talk to it, and what is noted are the verbs by which a real API server
authorizes (https://kubernetes.io/docs/reference/access-authn-authz/authorization/).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import yaml
from aiohttp import web
from wsgiapp_operator.client import KINDS, ApiError

from tests.unit.operator.fake_cluster import FakeCluster

MERGE = "application/merge-patch+json"
KIND_OF = {plural: (kind, group or "") for kind, (_, group, _, plural) in KINDS.items()}
WRITES = {"POST": "create", "PUT": "update", "DELETE": "delete", "PATCH": "patch"}


class Right(NamedTuple):
    """What a request needs: a verb on a resource, such as `patch` on `wsgiapps/status` of `wsgi.dev`."""

    verb: str
    group: str
    resource: str


class RecordedApi:
    """Serves `fake`; `used` has the rights that requests needed."""

    def __init__(self, fake: FakeCluster) -> None:
        self.fake = fake
        self.used: set[Right] = set()
        self.url = ""
        self._news = asyncio.Condition()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[RecordedApi]:
        """Listen on a loopback port."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        host, port = site._server.sockets[0].getsockname()  # type: ignore[attr-defined]  # asyncio's
        self.url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def wait_until(self, holds: Callable[[set[Right]], bool], *, within_s: float) -> None:
        """Wait until the rights that were used are what `holds` says. Raises TimeoutError."""
        async with asyncio.timeout(within_s), self._news:
            await self._news.wait_for(lambda: holds(self.used))

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        parts = request.path.strip("/").split("/")
        try:
            found = await self._find(request, parts)
            # A watch in which nothing happens, and which ends.
            return web.Response() if found is None else web.json_response(found)
        except ApiError as error:
            body = {"kind": "Status", "message": error.message, "code": error.status}
            causes = [{"reason": reason} for reason in error.causes]
            return web.json_response({**body, "details": {"causes": causes}}, status=error.status)

    async def _find(self, request: web.Request, parts: list[str]) -> Any:
        if parts == ["version"]:
            return {"major": "1", "minor": "35"}
        group, rest = ("", parts[2:]) if parts[0] == "api" else ("/".join(parts[1:2]), parts[3:])
        if not rest:
            return self._discover(parts, group)
        namespace = None
        if rest[0] == "namespaces" and len(rest) > 2:
            namespace, rest = rest[1], rest[2:]
        return await self._serve(request, group, namespace, *rest)

    def _discover(self, parts: list[str], group: str) -> Any:
        """Say what resources there are; every account may ask this."""
        if parts in (["api"], ["apis"]):
            named = [
                {"name": g, "versions": [{"version": v}], "preferredVersion": {"version": v}}
                for _, g, v, _ in KINDS.values()
                if g
            ]
            return {"versions": ["v1"], "groups": named}
        verbs = ["get", "list", "watch", "create", "update", "patch", "delete"]
        resources = [
            {"name": plural, "singularName": "", "kind": kind, "namespaced": True, "verbs": verbs}
            for kind, (_, g, _, plural) in KINDS.items()
            if (g or "") == group
        ]
        if not group:  # kopf waits for this one to be known; it reads none
            fields = {"kind": "Namespace", "namespaced": False, "verbs": verbs}
            resources.append({"name": "namespaces", "singularName": "", **fields})
        return {"resources": resources}

    async def _serve(
        self, request: web.Request, group: str, namespace: str | None, *rest: str
    ) -> Any:
        plural, name = rest[0], rest[1] if len(rest) > 1 else ""
        resource = "/".join((plural, *rest[2:]))
        kind = KIND_OF.get(plural, ("Node", ""))[0]
        verb = WRITES.get(request.method) or choose_read(request.query, name)
        async with self._news:
            self.used.add(Right(verb, group, resource))
            self._news.notify_all()
        if verb == "watch":
            await asyncio.sleep(0.2)
            return None
        if verb == "list":
            items = [
                each
                async for each in self.fake.list(
                    kind, namespace, request.query.get("labelSelector")
                )
            ]
            return {"items": items, "metadata": {"resourceVersion": "1"}}
        if verb == "get":
            found = await self.fake.get(kind, namespace, name)
            if found is None:
                raise ApiError(404, "not found")
            return found
        body = yaml.safe_load(await request.text())
        return await self._write(request, Right(verb, group, resource), kind, namespace, name, body)

    async def _write(
        self,
        request: web.Request,
        right: Right,
        kind: str,
        namespace: str | None,
        name: str,
        body: Any,
    ) -> Any:
        if right.verb == "create":
            return await self.fake.create(body)
        if right.verb == "update":
            return await self.fake.replace(body)
        if right.verb == "delete":
            live = await self.fake.get(kind, str(namespace), name)
            if live is not None:
                await self.fake.delete(live)
            return {"kind": "Status", "status": "Success"}
        if right.resource.endswith("/status"):
            return await self.fake.apply_status(body)
        if request.content_type == MERGE:
            return await self.fake.merge(kind, str(namespace), name, body)
        if await self.fake.get(kind, str(namespace), name) is None:
            # An object that server-side apply makes is authorized as one that is created as well.
            self.used.add(right._replace(verb="create"))
        return await self.fake.apply(body, force=request.query.get("force") == "true")


def choose_read(query: Mapping[str, str], name: str) -> str:
    if query.get("watch") in ("true", "1"):
        return "watch"
    return "get" if name else "list"


def write_kubeconfig(path: Any, url: str) -> None:
    """Write what kopf and the client need to find the server."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }
    path.write_text(json.dumps(config))
