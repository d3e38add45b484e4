"""The cluster's state for one app as one frozen value, `Observed`.

Objects come from the cache, or from the API server where the cache has none; contents as digests; and
each pod's own word from its agent. Reads only, decides nothing.
"""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import replace

from wsgiapp.names import OWNED_KINDS, last_good_name
from wsgiapp.types import App, Content, Manifest, Ref

from wsgiapp_operator.agents import Agents
from wsgiapp_operator.cache import AppKey, Cache, Digest
from wsgiapp_operator.client import ApiError, Cluster
from wsgiapp_operator.ingress_classes import IngressClasses
from wsgiapp_operator.named_secrets import NamedSecrets, key_ref, needs_key
from wsgiapp_operator.ownership import slot_of
from wsgiapp_operator.pods import is_of_deployment, parse_pod
from wsgiapp_operator.state import AgentStatus, Observed, Pod
from wsgiapp_operator.tls import find_tls_fault

FORBIDDEN = 403


def observe_pods(key: AppKey, cache: Cache) -> list[Pod]:
    """Return the pods that the app's Deployment made, as last seen, without their agents' word."""
    return [parse_pod(pod) for pod in cache.pods(key) if is_of_deployment(pod, key.name)]


async def ask_agents(key: AppKey, cache: Cache, agents: Agents) -> Mapping[str, AgentStatus]:
    """Return what the agents of an app's pods report, by the pods' uid; may take seconds."""
    asked = await agents.ask_all(observe_pods(key, cache))
    return {pod.uid: pod.agent for pod in asked if pod.agent is not None}


async def observe(
    app: App,
    manifest: Manifest,
    answers: Mapping[str, AgentStatus],
    cluster: Cluster,
    cache: Cache,
    secrets: NamedSecrets,
    ingress_classes: IngressClasses,
) -> Observed:
    """Return what is seen of `app`, whose WsgiApp is `manifest` and whose agents gave `answers`."""
    status = manifest.get("status") or {}
    is_new_spec = status.get("observedGeneration") != app.generation
    contents = {content.ref for content in app.contents}
    further = set(app.restart_refs.values()) - contents
    copy_refs = {content.name: copy_ref(app, content) for content in app.copied}
    config_maps = {ref for ref in contents | further if ref.kind == "ConfigMap"}
    refs = config_map_refs(app)
    if secrets.is_permitted:
        refs |= app.named_secrets | ({key_ref(app)} if needs_key(app) else set())
    cache.refer(AppKey(app.namespace, app.name), refs)
    owned, maps_seen, secrets_seen, copies, tls_fault, is_class_missing = await asyncio.gather(
        read_owned(app, cluster, cache, is_new_spec=is_new_spec),
        read_digests(app, config_maps, cluster, cache),
        secrets.read(app),
        read_digests(app, copy_refs.values(), cluster, cache),
        read_tls_fault(app, cluster, cache, secrets),
        ingress_classes.is_missing(app.ingress.class_name if app.ingress is not None else None),
    )
    seen = {**maps_seen, **secrets_seen.digests}
    pods = observe_pods(AppKey(app.namespace, app.name), cache)
    asked = tuple(replace(pod, agent=answers.get(pod.uid)) for pod in pods)
    return Observed(
        status=status,
        owned=owned,
        pods=asked,
        digests={ref: digest for ref, digest in seen.items() if ref in contents},
        env_digests={ref: digest for ref, digest in seen.items() if ref in further},
        plain_digests=secrets_seen.plain,
        secrets_issue=secrets_seen.issue,
        copies={name: copies[ref] for name, ref in copy_refs.items()},
        routes=cache.routes.route(app),
        tls_fault=tls_fault,
        is_class_missing=is_class_missing,
    )


async def read_owned(
    app: App, cluster: Cluster, cache: Cache, *, is_new_spec: bool
) -> dict[str, Manifest]:
    """Return the live owned resources by kind.

    Ingresses of shared hosts have names of their own, `slot_of` tells their keys.
    What the cache lacks is asked for: it may be another's, without our labels, and must not be taken. An
    Ingress that the spec does not ask for is looked for once per spec: it may have lost its labels.
    """
    owned = {}
    for kind in OWNED_KINDS:
        live = cache.get(kind, app.namespace, app.name)
        if live is None and (kind != "Ingress" or app.ingress is not None or is_new_spec):
            live = await cluster.get(kind, app.namespace, app.name)
        if live is not None:
            owned[kind] = live
    for name in cache.ingresses(AppKey(app.namespace, app.name)):
        live = cache.get("Ingress", app.namespace, name)
        if live is not None:
            owned[slot_of(app, live)] = live
    return owned


def config_map_refs(app: App) -> set[Ref]:
    """Return the ConfigMaps that count for an app: what it mounts, whose change restarts it, the last good copies."""
    named = {content.ref for content in app.contents} | set(app.restart_refs.values())
    copies = {copy_ref(app, content) for content in app.copied}
    return {ref for ref in named if ref.kind == "ConfigMap"} | copies


def copy_ref(app: App, content: Content) -> Ref:
    """Return the ConfigMap with the last good copy of a content."""
    return Ref("ConfigMap", last_good_name(app.name, content.name))


def tls_refs(app: App) -> set[Ref]:
    secret = app.ingress.tls_secret if app.ingress is not None else None
    return {Ref("Secret", secret)} if secret is not None else set()


async def read_tls_fault(
    app: App, cluster: Cluster, cache: Cache, secrets: NamedSecrets
) -> str | None:
    """Return what is the matter with the Secret of `spec.ingress.tls`; looked at once a change."""
    for ref in tls_refs(app) if secrets.is_permitted else ():
        known = cache.tls_fault(app.namespace, ref)
        if known is not None:
            return known[0]
        try:
            secret = await cluster.get(ref.kind, app.namespace, ref.name)
        except ApiError as error:
            if error.status != FORBIDDEN:
                raise
            return None  # what may not be read is not judged
        if secret is None:
            cache.record_missing(app.namespace, ref)
        else:
            cache.record_content(secret)
        fault = find_tls_fault(secret)
        cache.record_tls_fault(app.namespace, ref, fault)
        return fault
    return None


async def read_digests(
    app: App, refs: Iterable[Ref], cluster: Cluster, cache: Cache
) -> dict[Ref, Digest]:
    """Return what each of these ConfigMaps holds; read once, then kept by watching."""
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
