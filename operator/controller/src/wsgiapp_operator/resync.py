"""Complete listings of what the operator keeps in its cache.

Made before the first reconcile, or owned resources would look missing, and from time to time after: a watch
that was interrupted for long never tells what was deleted meanwhile.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from wsgiapp.names import KIND, OWNED_KINDS, OWNED_SELECTOR
from wsgiapp.parse import parse_app
from wsgiapp.schema import Invalid
from wsgiapp.types import Manifest, Ref

from wsgiapp_operator.cache import AppKey, Cache, ObjectKey, identity_of, key_of
from wsgiapp_operator.client import ApiError, Cluster
from wsgiapp_operator.observe import config_map_refs

logger = logging.getLogger(__name__)

FORBIDDEN = 403
PARALLEL = 8
WORTH_A_LISTING = 100  # ConfigMaps: a page of a listing has 50, perhaps of others


async def list_everything(
    cluster: Cluster,
    cache: Cache,
    namespaces: Sequence[str],
    changed: set[AppKey] | None = None,
) -> set[AppKey]:
    """Bring the cache in step with the cluster; return the apps about which there was news.

    They are also put into `changed`, as they are found: what the cache has learned before a listing fails is no
    news to the next one. A namespace that is named but may not be listed, as one that was deleted with its
    RoleBinding, is left out with a warning: the others go on. Raises ApiError for everything else.
    """
    changed = set() if changed is None else changed
    for kind in (*OWNED_KINDS, "Pod", KIND):
        await list_kind(kind, cluster, cache, namespaces, changed)
    changed |= await compare_contents(cluster, cache, namespaces)
    return changed


async def list_kind(
    kind: str, cluster: Cluster, cache: Cache, namespaces: Sequence[str], changed: set[AppKey]
) -> None:
    before = cache.newest_version()
    seen: set[ObjectKey] = set()

    def take(manifest: Manifest) -> None:
        seen.add(key_of(manifest))
        changed.update(cache.put(manifest, listed_after=before))

    # Any Ingress may have a host that an app asks for.
    selector = None if kind in (KIND, "Ingress") else OWNED_SELECTOR
    listed = await list_namespaces(kind, cluster, namespaces, take, selector=selector)
    if listed is not None:
        changed |= cache.keep_only(kind, seen, before, listed)


async def read_contents(cluster: Cluster, cache: Cache, namespaces: Sequence[str]) -> None:
    """Read the ConfigMaps that apps refer to, by listing all of them where these are many.

    For an operator that has just begun: it sees which have changed while none ran. An app that cannot be parsed refers
    to nothing yet.
    """
    for app in cache.apps():
        cache.refer(app, find_refs(cache.get(KIND, app.namespace, app.name) or {}))
        await asyncio.sleep(0)  # with thousands of apps this takes seconds
    wanted = cache.referred("ConfigMap")
    if len(wanted) < WORTH_A_LISTING:
        await read_each(wanted, cluster, cache)
        return

    def take(manifest: Manifest) -> None:
        cache.record_content(manifest)

    listed = await list_namespaces("ConfigMap", cluster, namespaces, take)
    for key in wanted:
        if listed is not None and (not listed or key.namespace in listed):
            cache.record_missing(key.namespace, Ref("ConfigMap", key.name))


async def read_each(keys: Sequence[ObjectKey], cluster: Cluster, cache: Cache) -> None:
    """Read a few objects by name; those that may not be read stay unknown, and each app says so."""
    free = asyncio.Semaphore(PARALLEL)

    async def read(key: ObjectKey) -> None:
        async with free:
            try:
                live = await cluster.get(key.kind, key.namespace, key.name)
            except ApiError as error:
                if error.status != FORBIDDEN:
                    raise
                return
        if live is None:
            cache.record_missing(key.namespace, Ref(key.kind, key.name))
        else:
            cache.record_content(live)

    await asyncio.gather(*map(read, keys))


def find_refs(manifest: Manifest) -> set[Ref]:
    try:
        return config_map_refs(parse_app(manifest))
    except Invalid:
        return set()


async def compare_contents(
    cluster: Cluster, cache: Cache, namespaces: Sequence[str]
) -> set[AppKey]:
    """Have ConfigMaps known as deleted, or read anew, where the cluster has not what is known of them.

    Their names and versions tell; what they hold, perhaps a megabyte each, is not sent.
    """
    before = cache.contents("ConfigMap")
    if not before:
        return set()
    versions: dict[ObjectKey, int] = {}

    def take(manifest: Manifest) -> None:
        versions[key_of(manifest)] = identity_of(manifest)[1]

    listed = await list_namespaces("ConfigMap", cluster, namespaces, take, metadata_only=True)
    if listed is None:
        return set()
    return cache.compare_contents(versions, before, listed)


async def list_namespaces(
    kind: str,
    cluster: Cluster,
    namespaces: Sequence[str],
    take: Callable[[Manifest], None],
    *,
    selector: str | None = None,
    metadata_only: bool = False,
) -> Sequence[str] | None:
    """Give `take` each object; return those of `namespaces` that were listed, None where none was."""
    listed = []
    for namespace in namespaces or (None,):
        try:
            async for manifest in cluster.list(
                kind, namespace, selector, metadata_only=metadata_only
            ):
                take(manifest)
        except ApiError as error:
            if namespace is None or error.status != FORBIDDEN:
                raise
            logger.warning(
                "namespace not listed: namespace=%s kind=%s error=%s", namespace, kind, error
            )
            continue
        if namespace is not None:
            listed.append(namespace)
    return None if namespaces and not listed else listed
