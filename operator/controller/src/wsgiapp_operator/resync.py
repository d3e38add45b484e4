"""Complete listings of what the operator keeps in its cache.

Made before the first reconcile, or owned resources would look missing, and from time to time after: a watch
that was interrupted for long never tells what was deleted meanwhile.
"""

import logging
from collections.abc import Sequence

from wsgiapp.names import KIND, OWNED_KINDS, OWNED_SELECTOR

from wsgiapp_operator.cache import AppKey, Cache, ObjectKey, key_of
from wsgiapp_operator.client import ApiError, Cluster

logger = logging.getLogger(__name__)

FORBIDDEN = 403


async def list_everything(cluster: Cluster, cache: Cache, namespaces: Sequence[str]) -> set[AppKey]:
    """Bring the cache in step with the cluster; return the apps about which there was news.

    A namespace that is named but may not be listed, as one that was deleted with its RoleBinding, is
    left out with a warning: the others go on. Raises ApiError for everything else.
    """
    changed: set[AppKey] = set()
    for kind in (*OWNED_KINDS, "Pod", KIND):
        before = cache.newest_version()
        seen: set[ObjectKey] = set()
        listed = []
        for namespace in namespaces or (None,):
            # Any Ingress may have a host that an app asks for.
            selector = None if kind in (KIND, "Ingress") else OWNED_SELECTOR
            try:
                async for manifest in cluster.list(kind, namespace, selector):
                    seen.add(key_of(manifest))
                    changed |= cache.put(manifest, listed_after=before)
            except ApiError as error:
                if namespace is None or error.status != FORBIDDEN:
                    raise
                logger.warning(
                    "namespace not listed: namespace=%s kind=%s error=%s", namespace, kind, error
                )
                continue
            if namespace is not None:
                listed.append(namespace)
        if namespaces and not listed:
            continue
        changed |= cache.keep_only(kind, seen, before, listed)
    return changed
