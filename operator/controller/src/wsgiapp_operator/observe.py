"""The cluster's state for one app as one frozen value, `Observed`.

Objects come from the cache, or from the API server where the cache has none; contents as digests; and
each pod's own word from its agent. Reads only, decides nothing.
"""

import asyncio

from wsgiapp.names import OWNED_KINDS
from wsgiapp.types import App, Manifest, Ref

from wsgiapp_operator.agents import Agents
from wsgiapp_operator.cache import AppKey, Cache, Digest
from wsgiapp_operator.client import Cluster
from wsgiapp_operator.pods import parse_pod
from wsgiapp_operator.state import Observed


async def observe(
    app: App, manifest: Manifest, cluster: Cluster, cache: Cache, agents: "Agents"
) -> Observed:
    """Return what is seen of `app`, whose WsgiApp is `manifest`."""
    pods = [parse_pod(pod) for pod in cache.pods(AppKey(app.namespace, app.name))]
    asked, owned, digests = await asyncio.gather(
        agents.ask_all(pods),
        read_owned(app, cluster, cache),
        read_digests(app, cluster, cache),
    )
    return Observed(
        status=manifest.get("status") or {}, owned=owned, pods=tuple(asked), digests=digests
    )


async def read_owned(app: App, cluster: Cluster, cache: Cache) -> dict[str, Manifest]:
    """Return the live owned resources by kind.

    What the cache lacks is asked for: it may be another's, without our labels, and must not be taken.
    """
    owned = {}
    for kind in OWNED_KINDS:
        live = cache.get(kind, app.namespace, app.name)
        if live is None and (kind != "Ingress" or app.ingress is not None):
            live = await cluster.get(kind, app.namespace, app.name)
        if live is not None:
            owned[kind] = live
    return owned


async def read_digests(app: App, cluster: Cluster, cache: Cache) -> dict[Ref, Digest]:
    """Return what each mounted ConfigMap and Secret holds; read once, then kept by watching."""
    refs = {content.ref for content in app.contents}
    cache.refer(AppKey(app.namespace, app.name), refs)
    digests = {}
    for ref in sorted(refs):
        if cache.digest(app.namespace, ref) is None:
            live = await cluster.get(ref.kind, app.namespace, ref.name)
            if live is None:
                cache.record_missing(app.namespace, ref)
            else:
                cache.record_content(live)
        digests[ref] = cache.digest(app.namespace, ref) or Digest(0, None)
    return digests
