"""Watch events into the cache and the queue: the only importer of kopf.

kopf does one thing here: watch. It writes to no object and keeps no state.
"""

import asyncio
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import kopf
from kopf._core.reactor.inventory import ResourceMemories, ResourceMemory
from wsgiapp.names import GROUP, OWNED_KINDS, OWNED_SELECTOR, VERSION

from wsgiapp_operator.cache import AppKey, Cache
from wsgiapp_operator.client import KINDS
from wsgiapp_operator.workqueue import KeyedQueue

PEERING_IDENTITY: Any = "wsgiapp-operator"
DEBOUNCE_S = 0.05  # one change of an app brings several events
POD_DEBOUNCE_S = 1.0  # a rollout of many pods brings events all the time, and each asks agents
END_S = 10.0  # for what is under way when watching ends
# One in each namespace, which no app mounts: never even sent to us. Secrets are not watched at all.
UNMOUNTED_CONFIG_MAPS = "metadata.name!=kube-root-ca.crt"


async def watch(
    namespaces: Sequence[str],
    cache: Cache,
    queue: KeyedQueue[AppKey],
    stop: asyncio.Event,
    on_spawned: Callable[[], None],
    on_listed: Callable[[], None],
) -> None:
    """Keep the cache in step and mark apps as due, until cancelled or `stop`.

    Raises ConnectionError when watching has ended by itself.

    kopf installs its own signal handlers; `on_spawned` is called right after, to replace them. `on_listed`
    is called for each object of a list that kopf begins a watch with: what was deleted before is not in it.
    """
    registry = kopf.OperatorRegistry()
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # no watching of CRDs and namespaces: fewer permissions
    settings.peering.standalone = True
    settings.watching.server_timeout = 300
    settings.watching.reconnect_backoff = 0.1
    settings.watching.chunk_size = 50  # a page lies in memory whole, and parsed: ten times as large
    settings.networking.error_backoffs = Backoffs()
    settings.queueing.idle_timeout = 0.2  # each object with an event holds a task for as long
    settings.persistence.diffbase_storage = NoDiffs()

    async def notice(event: Any, **_: Any) -> None:
        manifest = event["object"]
        if event["type"] is None:
            on_listed()
        is_gone = event["type"] == "DELETED"
        pause_s = POD_DEBOUNCE_S if manifest["kind"] == "Pod" else DEBOUNCE_S
        for app in cache.forget(manifest) if is_gone else cache.put(manifest):
            queue.add(app, pause_s)
        empty(manifest)

    async def notice_content(event: Any, **_: Any) -> None:
        if event["type"] is None:
            on_listed()
        for app in cache.record_content(event["object"], deleted=event["type"] == "DELETED"):
            queue.add(app, DEBOUNCE_S)
        empty(event["object"])

    kopf.on.event(GROUP, VERSION, "wsgiapps", registry=registry)(notice)
    for kind in (*OWNED_KINDS, "Pod"):
        _, group, version, plural = KINDS[kind]
        kopf.on.event(group or "", version, plural, registry=registry)(notice)
        if kind != "Ingress":  # any of them may have a host that an app asks for
            settings.watching.label_selectors[group or "", version, plural] = OWNED_SELECTOR
    kopf.on.event("", "v1", "configmaps", registry=registry)(notice_content)
    settings.watching.field_selectors["", "v1", "configmaps"] = UNMOUNTED_CONFIG_MAPS
    kopf.on.login(registry=registry)(log_in)
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=settings,
        memories=NoMemories(),
        # Only for peering, which is off; found by kopf itself it needs the user's name, and the
        # uid of a container has none.
        identity=PEERING_IDENTITY,
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        stop_flag=stop,
    )
    on_spawned()
    await run_until_one_ends(tasks, stop)


async def run_until_one_ends(tasks: Collection["asyncio.Task[Any]"], stop: asyncio.Event) -> None:
    """Run kopf's tasks, of which none ends by itself; when one does, end the others.

    kopf.run_tasks would first wait until every task of the process has ended, and ours wait for this one.
    """
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=END_S)
    if stop.is_set():
        return
    reasons = [task.exception() for task in done if not task.cancelled()]
    raise ConnectionError(f"watching has ended: {reasons}")


def empty(manifest: dict[str, Any]) -> None:
    """Take out of an object what kopf, which holds it for a while yet, does not need: all but what names it."""
    for name in manifest.keys() - {"apiVersion", "kind", "metadata"}:
        del manifest[name]
    manifest["metadata"].pop("managedFields", None)


class Backoffs(Iterable[float]):
    """Pauses between tries of a watch, in seconds, without an end.

    An API server that is away for minutes, or a namespace that was deleted together with the RoleBinding in
    it, would otherwise end the operator, and with it the work on all other namespaces.
    """

    def __iter__(self) -> Iterator[float]:
        yield from (0.2, 0.5, 1, 1, 2, 2, 3, 3)
        yield from itertools.repeat(5.0)


class NoDiffs(kopf.DiffBaseStorage):
    """Spares a deep copy of each object at each event: only kopf's handlers of changes compare."""

    def build(self, *, body: Any, extra_fields: Any = None) -> Any:
        return {}

    def fetch(self, *, body: Any) -> Any:
        return {}

    def store(self, *, body: Any, patch: Any, essence: Any) -> None:
        raise NotImplementedError("the operator has no handlers of changes")


class NoMemories(ResourceMemories):
    """Spares about 1 KiB for each object: only kopf's handlers of changes, daemons and indices remember."""

    async def recall(self, raw_body: Any, **options: Any) -> ResourceMemory:
        return await super().recall(raw_body, **{**options, "ephemeral": True})


def log_in(**arguments: Any) -> Any:
    return kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(**arguments)
