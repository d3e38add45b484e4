"""The WsgiApps of a campaign: made, changed, and watched until what is declared is there.

Speaks to the API server by plain HTTP, many requests at a time, and looks by watches, so that it costs
the machine little beside what it measures.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp

from tests.scale.control_plane import URL, Credentials

API = "/apis/wsgi.dev/v1alpha1"
APPS_IN_NAMESPACE = 50
CONTENT = "settings"
NODES = 10
PARALLEL = 16
PATCH = {"Content-Type": "application/merge-patch+json"}

Manifest = Mapping[str, Any]


@dataclass
class Seen:
    """What the watches have shown, by `namespace/name`; `changed` is set with each event."""

    ready: dict[str, bool] = field(default_factory=dict)  # WsgiApps: is Ready true
    reported: dict[str, str] = field(default_factory=dict)  # the reason of Ready
    rounds: dict[str, tuple[str, float]] = field(default_factory=dict)  # Deployments: ROUND, when
    stuck: set[str] = field(default_factory=set)  # Deployments past their progress deadline
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class Fleet:
    """`async with Fleet(credentials) as fleet:`"""

    def __init__(self, credentials: Credentials) -> None:
        self._tls = ssl.create_default_context(cafile=str(credentials.authority))
        self._tls.load_cert_chain(credentials.certificate, credentials.key)
        self._free = asyncio.Semaphore(PARALLEL)
        self._watches: list[asyncio.Task[None]] = []
        self.seen = Seen()

    async def __aenter__(self) -> Self:
        connector = aiohttp.TCPConnector(ssl=self._tls, limit=0)
        self._session = aiohttp.ClientSession(URL, connector=connector)
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._watches:
            task.cancel()
        await asyncio.gather(*self._watches, return_exceptions=True)
        await self._session.close()

    # -- making and changing ---------------------------------------------------------------------

    async def make_nodes(self) -> None:
        for number in range(NODES):
            await self._send("POST", "/api/v1/nodes", {"metadata": {"name": f"fake-{number}"}})

    async def make(self, first: int, last: int, *, unready: bool = False) -> None:
        """Make the apps `first` to `last` - 1, each with the ConfigMap that it is configured by."""
        spaces = {namespace_of(number) for number in range(first, last)}
        await self._all(
            self._send("POST", "/api/v1/namespaces", {"metadata": {"name": name}}, known=(409,))
            for name in sorted(spaces)
        )
        await self._all(self._make_one(number, unready=unready) for number in range(first, last))

    async def _make_one(self, number: int, *, unready: bool) -> None:
        space = namespace_of(number)
        for path, manifest in (
            (f"/api/v1/namespaces/{space}/configmaps", config_map(number)),
            (f"{API}/namespaces/{space}/wsgiapps", wsgi_app(number, unready=unready)),
        ):
            await self._send("POST", path, manifest, known=(409,))

    async def change(self, number: int, round_: str) -> float:
        """Give an app another environment; return when that was asked for."""
        path = f"{API}/namespaces/{namespace_of(number)}/wsgiapps/{name_of(number)}"
        started = time.monotonic()
        await self._send("PATCH", path, {"spec": {"env": [{"name": "ROUND", "value": round_}]}})
        return started

    async def metrics(self) -> str:
        async with self._session.get("/metrics") as answer:
            return await answer.text()

    async def _all(self, work: Iterable[Any]) -> None:
        async def one(coroutine: Any) -> None:
            async with self._free:
                await coroutine

        await asyncio.gather(*(one(coroutine) for coroutine in work))

    async def _send(
        self, method: str, path: str, body: Manifest, *, known: tuple[int, ...] = ()
    ) -> None:
        headers = PATCH if method == "PATCH" else {}
        async with self._session.request(method, path, json=body, headers=headers) as answer:
            if answer.status >= 400 and answer.status not in known:
                raise RuntimeError(f"{method} {path}: {answer.status} {await answer.text()}")

    # -- looking ---------------------------------------------------------------------------------

    def start_watching(self) -> None:
        for path, take in (
            (f"{API}/wsgiapps", self._take_app),
            ("/apis/apps/v1/deployments", self._take_deployment),
        ):
            self._watches.append(asyncio.create_task(self._watch(path, take)))

    async def _watch(self, path: str, take: Any) -> None:
        async for event in self._events(path):
            take(event["object"])
            self.seen.changed.set()

    async def _events(self, path: str) -> AsyncIterator[Any]:
        query = {"watch": "true", "resourceVersion": "0", "timeoutSeconds": "86400"}
        timeout = aiohttp.ClientTimeout(total=None)
        async with self._session.get(path, params=query, timeout=timeout) as answer:
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    yield json.loads(line)
        raise RuntimeError(f"the watch of {path} has ended")

    def _take_app(self, app: Manifest) -> None:
        status = app.get("status") or {}
        ready = [c for c in status.get("conditions", ()) if c["type"] == "Ready"]
        is_current = status.get("observedGeneration") == app["metadata"]["generation"]
        key = key_of(app)
        self.seen.ready[key] = bool(ready) and is_current and ready[0]["status"] == "True"
        self.seen.reported[key] = ready[0]["reason"] if ready and is_current else ""

    def _take_deployment(self, deployment: Manifest) -> None:
        key, spec = key_of(deployment), deployment["spec"]["template"]["spec"]
        env = next(c for c in spec["containers"] if c["name"] == "app").get("env", ())
        round_ = next((e["value"] for e in env if e["name"] == "ROUND"), "")
        if self.seen.rounds.get(key, ("",))[0] != round_ or key not in self.seen.rounds:
            self.seen.rounds[key] = (round_, time.monotonic())
        conditions = deployment.get("status", {}).get("conditions", ())
        is_stuck = any(c["type"] == "Progressing" and c["status"] == "False" for c in conditions)
        (self.seen.stuck.add if is_stuck else self.seen.stuck.discard)(key)

    async def wait(self, condition: Any, *, within_s: float, what: str) -> None:
        """Wait until a condition of `seen` holds."""
        async with asyncio.timeout(within_s):
            while not condition(self.seen):
                for task in self._watches:
                    if task.done():
                        task.result()
                self.seen.changed.clear()
                await self.seen.changed.wait()
                await asyncio.sleep(0.02)  # many events in one look


def name_of(number: int) -> str:
    return f"shop-{number}"


def namespace_of(number: int) -> str:
    return f"team-{number // APPS_IN_NAMESPACE}"


def key_of_number(number: int) -> str:
    return f"{namespace_of(number)}/{name_of(number)}"


def key_of(manifest: Manifest) -> str:
    return f"{manifest['metadata']['namespace']}/{manifest['metadata']['name']}"


def config_map(number: int) -> Manifest:
    return {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"{name_of(number)}-settings"},
        "data": {"settings.ini": "[shop]\n" + "# a line of settings\n" * 40},
    }  # fmt: skip


def wsgi_app(number: int, *, unready: bool) -> Manifest:
    settings = {
        "name": CONTENT, "configMap": {"name": f"{name_of(number)}-settings"},
        "mountPath": "/etc/shop", "onChange": "Restart",
    }  # fmt: skip
    spec: dict[str, Any] = {
        "image": "registry.example/shop:1.4", "app": "shop.wsgi:application", "replicas": 1,
        "env": [{"name": "ROUND", "value": "0"}], "config": [settings],
        "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
    }  # fmt: skip
    if unready:
        spec["podTemplate"] = {"metadata": {"labels": {"scale": "unready"}}}
    return {
        "apiVersion": "wsgi.dev/v1alpha1", "kind": "WsgiApp",
        "metadata": {"name": name_of(number)}, "spec": spec,
    }  # fmt: skip
