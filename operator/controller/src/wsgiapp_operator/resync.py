"""Complete listings of what the operator keeps in its cache.

Made before the first reconcile, or owned resources would look missing, and from time to time after: a watch
that was interrupted for long never tells what was deleted meanwhile.
"""

from collections.abc import Sequence

from wsgiapp.names import KIND, OWNED_KINDS, OWNED_SELECTOR

from wsgiapp_operator.cache import AppKey, Cache, ObjectKey, key_of
from wsgiapp_operator.client import Cluster


async def list_everything(cluster: Cluster, cache: Cache, namespaces: Sequence[str]) -> set[AppKey]:
    """Bring the cache in step with the cluster; return the apps about which there was news."""
    changed: set[AppKey] = set()
    for kind in (*OWNED_KINDS, "Pod", KIND):
        before = cache.newest_version()
        seen: set[ObjectKey] = set()
        for namespace in namespaces or (None,):
            selector = None if kind == KIND else OWNED_SELECTOR
            async for manifest in cluster.list(kind, namespace, selector):
                seen.add(key_of(manifest))
                app = cache.put(manifest)
                if app is not None:
                    changed.add(app)
        changed |= cache.keep_only(kind, seen, before)
    return changed
