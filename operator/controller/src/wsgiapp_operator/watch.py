"""Watch events into the cache and the queue: the only importer of kopf.

kopf does one thing here: watch. It writes to no object and keeps no state.
"""

import asyncio
import itertools
import logging
import re
import ssl
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import kopf
from kopf._cogs.clients.errors import APIError
from kopf._cogs.clients.watching import Bookmark, WatchingError, infinite_watch
from kopf._cogs.structs.references import NamespaceName, Resource
from wsgiapp.names import KIND, OWNED_KINDS, OWNED_SELECTOR

from wsgiapp_operator.cache import AppKey, Cache
from wsgiapp_operator.client import KINDS, PAGE, SHRINK, BoundedResponse, PageTooLargeError
from wsgiapp_operator.workqueue import FIRST, KeyedQueue

logger = logging.getLogger(__name__)

PEERING_IDENTITY: Any = "wsgiapp-operator"
DEBOUNCE_S = 0.05  # one change of an app brings several events
FOLLOWING_S = 1.0  # pods, and what only says that a controller has followed a change
NEVER = timedelta(days=36500)
BEGIN_ANEW_S = 2.0  # after a watch that has broken for a reason that kopf does not know, and between two logins
# Such as an error in the stream, half an event, a proxy's page, a list whose rest has expired, a CRD that is away:
# the other kinds are watched meanwhile, and a new process would see the same.
BROKEN = (APIError, WatchingError, aiohttp.ClientError, ValueError, LookupError)
END_S = 10.0  # for what is under way when watching ends
# Of kopf's tries of one request the first is worth a line, and from this one on those that are powers of two.
RARE_FROM = 16
KOPFS_TRIES = logging.getLogger("kopf._cogs.clients.watching")
FAILED_TRY = re.compile(
    r"Request attempt #(\d+) failed; will retry: GET [^ ?]*?/v[^/ ?]+/(?:namespaces/([^/ ?]+)/)?(\w+)(?:\?\S*)? -> (.*)",
    re.DOTALL,
)
# One in each namespace, which no app mounts: never even sent to us. Secrets are not watched at all.
UNMOUNTED_CONFIG_MAPS = "metadata.name!=kube-root-ca.crt"


async def watch(
    namespaces: Sequence[str],
    cache: Cache,
    queue: KeyedQueue[AppKey],
    stop: asyncio.Event,
    on_spawned: Callable[[], None],
    on_listed: Callable[[], None],
    *,
    ssl_context: ssl.SSLContext,
) -> None:
    """Keep the cache in step and mark apps as due, until cancelled or `stop`; connect by `ssl_context`.

    Raises ConnectionError when watching has ended by itself.

    kopf installs its own signal handlers; `on_spawned` is called right after, to replace them. `on_listed`
    is called after each list that kopf begins a watch with: what was deleted before is not in it.
    """
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True  # no watching of CRDs and namespaces: fewer permissions
    settings.peering.standalone = True
    settings.watching.server_timeout = 300
    settings.watching.reconnect_backoff = 0.1
    settings.networking.error_backoffs = Backoffs()
    for kind in (*OWNED_KINDS, "Pod"):
        if kind != "Ingress":  # any of them may have a host that an app asks for
            settings.watching.label_selectors[name_of(kind)] = OWNED_SELECTOR
    settings.watching.field_selectors[name_of("ConfigMap")] = UNMOUNTED_CONFIG_MAPS

    def notice(event: Any) -> None:
        manifest, is_gone = event["object"], event["type"] == "DELETED"
        for app in cache.forget(manifest) if is_gone else cache.put(manifest):
            queue.add(app, choose_pause_s(manifest))

    def notice_content(event: Any) -> None:
        for app in cache.record_content(event["object"], deleted=event["type"] == "DELETED"):
            queue.add(app, FIRST)

    async def follow(kind: str, namespace: NamespaceName | None) -> None:
        take = notice_content if kind == "ConfigMap" else notice
        group, version, plural = name_of(kind)
        resource = Resource(group, version, plural, kind=kind, namespaced=True)
        async for event in watch_on(settings, resource, namespace):
            if event is Bookmark.LISTED:
                on_listed()
            elif event["type"] != "BOOKMARK":
                take(event)
            await asyncio.sleep(0)  # a long list holds up nothing else

    async def follow_all() -> None:
        watches = [
            asyncio.create_task(follow(kind, namespace), name=f"watch {kind}")
            for kind in (KIND, *OWNED_KINDS, "Pod", "ConfigMap")
            for namespace in (map(NamespaceName, namespaces) if namespaces else (None,))
        ]
        await run_until_one_ends(watches, stop)

    registry = kopf.OperatorRegistry()
    kopf.on.login(registry=registry)(make_log_in(ssl_context))
    KOPFS_TRIES.addFilter(say_tries)
    tasks = await kopf.spawn_tasks(
        registry=registry,
        settings=settings,
        # Only for peering, which is off; found by kopf itself it needs the user's name, and the
        # uid of a container has none.
        identity=PEERING_IDENTITY,
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        stop_flag=stop,
        _command=follow_all(),
    )
    on_spawned()
    await run_until_one_ends(tasks, stop)


async def watch_on(
    settings: kopf.OperatorSettings, resource: Resource, namespace: NamespaceName | None
) -> AsyncIterator[Any]:
    """Yield the events of one kind without an end; a watch that breaks is begun anew, with a list.

    Where a page of the list is too large, that is at once and with smaller ones.
    """
    page = PAGE
    while True:
        try:
            async for event in infinite_watch(
                settings=with_page(settings, page), resource=resource, namespace=namespace
            ):
                yield event
        except PageTooLargeError:
            page = max(1, page // SHRINK)
            continue
        except BROKEN as error:
            logger.warning(
                "watch begins anew: kind=%s namespace=%s error=%r",
                resource.kind, namespace or "all", error,
            )  # fmt: skip
        await asyncio.sleep(BEGIN_ANEW_S)


def with_page(settings: kopf.OperatorSettings, page: int) -> kopf.OperatorSettings:
    """Return the settings for lists of so many objects a page."""
    return replace(settings, watching=replace(settings.watching, chunk_size=page))


def name_of(kind: str) -> tuple[str, str, str]:
    """Return (group, version, plural) as kopf names it."""
    _, group, version, plural = KINDS[kind]
    return group or "", version, plural


def choose_pause_s(manifest: Mapping[str, Any]) -> float:
    """Return for how long to wait for further events about the same app.

    A user's change goes before all that only follows: rollouts bring events all the time, each look asks agents.
    """
    kind, generation = manifest["kind"], manifest["metadata"].get("generation")
    is_seen = (manifest.get("status") or {}).get("observedGeneration") == generation is not None
    if kind == KIND:
        return DEBOUNCE_S if is_seen else FIRST
    return FOLLOWING_S if is_seen or kind == "Pod" else DEBOUNCE_S


async def run_until_one_ends(tasks: Collection["asyncio.Task[Any]"], stop: asyncio.Event) -> None:
    """Run tasks of which none ends by itself; when one does, also by being cancelled, end the others.

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


class Backoffs(Iterable[float]):
    """Pauses between tries of a watch, in seconds, without an end.

    An API server that is away for minutes, or a namespace that was deleted together with the RoleBinding in
    it, would otherwise end the operator, and with it the work on all other namespaces.
    """

    def __iter__(self) -> Iterator[float]:
        yield from (0.2, 0.5, 1, 1, 2, 2, 3, 3)
        yield from itertools.repeat(5.0)


def say_tries(record: logging.LogRecord) -> bool:
    """Put what kopf logs of each try of a request in words with a remedy, at the first try and then ever more rarely.

    For a namespace without permission kopf has an error for each kind each five seconds.
    """
    found = FAILED_TRY.search(record.getMessage())
    if found is None:
        return True
    tries, namespace, plural, error = found.groups()
    number = int(tries)
    if number != 1 and (number < RARE_FROM or number & (number - 1)):
        return False
    record.args = (plural, namespace or "all", number, error)
    if "APIForbiddenError" in error:
        record.msg = (
            "watching is refused, will be repeated; give the operator's ServiceAccount list and watch there, by the chart's "
            "RoleBinding, or take the namespace out of watchNamespaces: resource=%s namespace=%s tries=%d error=%s"
        )
        return True
    record.levelno, record.levelname = logging.WARNING, "WARNING"
    record.msg = "watching waits for the API server: resource=%s namespace=%s tries=%d error=%s"
    return True


def make_log_in(ssl_context: ssl.SSLContext) -> Callable[..., Awaitable[Any]]:
    """Return how kopf gets its credentials: at the start, and after each 401, such as from a token that has expired.

    kopf takes none again that were refused once, but an API server that has just started may know nobody yet:
    so each time they are others, by an expiry that is never reached, and after a pause.
    """
    clock = asyncio.get_running_loop().time
    earliest = clock()

    async def log_in(**arguments: Any) -> Any:
        nonlocal earliest
        await asyncio.sleep(max(earliest - clock(), 0.0))
        earliest = clock() + BEGIN_ANEW_S
        found = kopf.login_with_service_account(**arguments) or kopf.login_with_kubeconfig(
            **arguments
        )
        return found and open_session(found, ssl_context)

    return log_in


def open_session(found: kopf.ConnectionInfo, ssl_context: ssl.SSLContext) -> kopf.AiohttpSession:
    """Return a session as kopf would open it, but for lists, of which it reads only what has room, and for the SSL
    context: one of its own would not learn of a CA that is rotated."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=ssl_context),
        headers=found.as_http_headers(),
        proxy=found.proxy_url,
        trust_env=found.trust_env,
        response_class=BoundedResponse,
    )
    return kopf.AiohttpSession(
        server=found.server,
        default_namespace=found.default_namespace,
        priority=found.priority,
        expiration=datetime.now(UTC) + NEVER,
        aiohttp_session=session,
    )
