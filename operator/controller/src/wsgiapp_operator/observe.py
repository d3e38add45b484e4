"""The cluster's state for one app as one frozen value, `Observed`.

Objects come from the cache, or from the API server where the cache has none; contents as digests; and
each pod's own word from its agent. Reads only, decides nothing.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NamedTuple

import aiohttp
from wsgiapp.resources.deployment import AGENT_PORT, RELOAD_ANNOTATION, TEMPLATE_ANNOTATION
from wsgiapp.types import App, Manifest, Ref

from wsgiapp_operator.cache import AppKey, Cache, Digest
from wsgiapp_operator.client import Cluster

STARTED_ANNOTATION = "wsgi.dev/reload-started"  # when the wish was put on the pod, RFC 3339
CHILD_KINDS = ("ServiceAccount", "Service", "PodDisruptionBudget", "Deployment", "Ingress")
AGENT_TIMEOUT_S = 2.0
OUT_OF_MEMORY = "OOMKilled"
ENDED = ("Failed", "Succeeded")

# Reasons for which a container waits that no waiting will mend.
STUCK = frozenset({
    "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull",
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
})  # fmt: skip


class Trouble(NamedTuple):
    """Why a pod does not serve: one word for programs, and what a person can act on."""

    reason: str
    message: str


class Wish(NamedTuple):
    """A reload that a pod was asked for (docs/contracts.md §5)."""

    id: str
    content: Mapping[str, str]


class AgentReload(NamedTuple):
    id: str
    result: str  # pending, running, succeeded, failed
    message: str


@dataclass(frozen=True, kw_only=True)
class AgentStatus:
    """What a pod's agent says of its server."""

    state: str
    content: Mapping[str, str]
    workers_desired: int
    workers_ready: int
    workers_busy: int
    reload: AgentReload | None
    unready: str = ""  # the agent's reason, where /readyz says no


@dataclass(frozen=True, kw_only=True)
class Pod:
    """One pod of the app; `terminating` where it is on its way out, or has ended."""

    name: str
    uid: str
    ip: str | None
    template: str | None
    ready: bool
    terminating: bool
    wish: Wish | None
    wish_started: datetime | None
    trouble: Trouble | None
    agent: AgentStatus | None = None


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Everything that planning and status rest on."""

    status: Manifest
    children: Mapping[str, Manifest]
    pods: tuple[Pod, ...]
    digests: Mapping[Ref, Digest]

    @property
    def missing(self) -> tuple[Ref, ...]:
        """Return the ConfigMaps and Secrets that do not exist."""
        return tuple(ref for ref, seen in self.digests.items() if seen.digest is None)


async def observe(
    app: App, manifest: Manifest, cluster: Cluster, cache: Cache, agents: "Agents"
) -> Observed:
    """Return what is seen of `app`, whose WsgiApp is `manifest`."""
    pods = [parse_pod(pod) for pod in cache.pods(AppKey(app.namespace, app.name))]
    asked, children, digests = await asyncio.gather(
        agents.ask_all(pods),
        read_children(app, cluster, cache),
        read_digests(app, cluster, cache),
    )
    return Observed(
        status=manifest.get("status") or {}, children=children, pods=tuple(asked), digests=digests
    )


async def read_children(app: App, cluster: Cluster, cache: Cache) -> dict[str, Manifest]:
    """Return the live children by kind.

    What the cache lacks is asked for: it may be another's, without our labels, and must not be taken.
    """
    children = {}
    for kind in CHILD_KINDS:
        live = cache.get(kind, app.namespace, app.name)
        if live is None and (kind != "Ingress" or app.ingress is not None):
            live = await cluster.get(kind, app.namespace, app.name)
        if live is not None:
            children[kind] = live
    return children


async def read_digests(app: App, cluster: Cluster, cache: Cache) -> dict[Ref, Digest]:
    """Return what each mounted ConfigMap and Secret holds; read once, then kept by watching."""
    refs = {content.ref for content in app.contents}
    cache.refer(AppKey(app.namespace, app.name), refs)
    digests = {}
    for ref in sorted(refs):
        if cache.digest(app.namespace, ref) is None:
            live = await cluster.get(ref.kind, app.namespace, ref.name)
            if live is None:
                cache.note_missing(app.namespace, ref)
            else:
                cache.note_content(live)
        digests[ref] = cache.digest(app.namespace, ref) or Digest(0, None)
    return digests


# -- pods -------------------------------------------------------------------------------------


def parse_pod(manifest: Manifest) -> Pod:
    metadata, status = manifest["metadata"], manifest.get("status", {})
    annotations = metadata.get("annotations") or {}
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    started = annotations.get(STARTED_ANNOTATION)
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        ip=status.get("podIP"),
        template=annotations.get(TEMPLATE_ANNOTATION),
        ready=conditions.get("Ready", {}).get("status") == "True",
        # An evicted pod stays as an object for long after another has taken its place.
        terminating="deletionTimestamp" in metadata or status.get("phase") in ENDED,
        wish=parse_wish(annotations.get(RELOAD_ANNOTATION)),
        wish_started=parse_time(started),
        trouble=find_trouble(status, conditions),
    )


def parse_wish(text: str | None) -> Wish | None:
    """Return the wish on a pod; one that somebody garbled counts as none and is written anew."""
    try:
        wish = json.loads(text or "")
        return Wish(str(wish["id"]), dict(wish["content"]))
    except (ValueError, KeyError, TypeError):
        return None


def parse_time(text: str | None) -> datetime | None:
    try:
        return datetime.fromisoformat(text or "")
    except ValueError:
        return None


def find_trouble(status: Manifest, conditions: Mapping[str, Manifest]) -> Trouble | None:
    """Return why a pod does not serve, as far as its status tells; the first thing counts."""
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return Trouble("Unschedulable", scheduled.get("message", "no node takes the pod"))
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    for container in containers:
        trouble = find_container_trouble(container)
        if trouble is not None:
            return trouble
    return None


def find_container_trouble(container: Manifest) -> Trouble | None:
    name, state = container["name"], container.get("state", {})
    waiting = state.get("waiting", {})
    if waiting.get("reason") in STUCK:
        return Trouble(
            waiting["reason"], f"container {name}: {waiting.get('message', waiting['reason'])}"
        )
    if container.get("ready") or ("running" in state and container.get("started")):
        return None
    ended = state.get("terminated") or container.get("lastState", {}).get("terminated")
    if ended is None or ended.get("exitCode") == 0:
        return None
    if ended.get("reason") == OUT_OF_MEMORY:
        return Trouble(
            "OutOfMemory",
            f"container {name} needed more memory than its limit; raise spec.resources.limits.memory or use fewer workers",
        )
    last_words = last_line(ended.get("message", ""))
    reason = "AppCrashed" if name == "app" else "ContainerCrashed"
    if not last_words:
        last_words = f"exit code {ended.get('exitCode')}; its log says more"
    return Trouble(reason, f"container {name} ended: {last_words}")


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


# -- agents -----------------------------------------------------------------------------------


class Agents:
    """Asks the agents in the pods, several at once."""

    def __init__(self, session: aiohttp.ClientSession, *, parallel: int = 64) -> None:
        self._session = session
        self._free = asyncio.Semaphore(parallel)

    async def ask_all(self, pods: Iterable[Pod]) -> list[Pod]:
        """Return the pods with what their agents say; None for one that does not answer."""
        return list(await asyncio.gather(*(self._ask(pod) for pod in pods)))

    async def _ask(self, pod: Pod) -> Pod:
        if pod.ip is None:
            return pod
        host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
        base = f"http://{host}:{AGENT_PORT}"
        try:
            async with self._free:
                status = json.loads((await self._fetch(f"{base}/status"))[1])
                unready = ""
                if not pod.ready:
                    code, text = await self._fetch(f"{base}/readyz")
                    unready = "" if code == 200 else last_line(text)
            agent = parse_agent_status(status, unready)
        except (aiohttp.ClientError, TimeoutError, ValueError, KeyError, TypeError):
            return pod  # booting, gone, or behind a network policy: planning treats it as unknown
        return replace(pod, agent=agent)

    async def _fetch(self, url: str) -> tuple[int, str]:
        timeout = aiohttp.ClientTimeout(total=AGENT_TIMEOUT_S)
        async with self._session.get(url, timeout=timeout) as answer:
            return answer.status, await answer.text()


def parse_agent_status(status: Mapping[str, Any], unready: str) -> AgentStatus:
    workers, reload = status["workers"], status.get("reload")
    return AgentStatus(
        state=str(status["state"]),
        content=dict(status.get("content") or {}),
        workers_desired=int(workers["desired"]),
        workers_ready=int(workers["ready"]),
        workers_busy=int(workers["busy"]),
        reload=AgentReload(
            str(reload["id"]), str(reload["result"]), str(reload.get("message") or "")
        )
        if reload
        else None,
        unready=unready,
    )
