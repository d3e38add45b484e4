"""All writes about apps: children, pruning, reload wishes, status, Events.

Writes only where something differs: a child that carries the hash of what is wanted, and still has
every wanted field, is left alone, so that a resync of a settled cluster writes nothing and an edit by
somebody else is put back.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime

from wsgiapp.names import (
    FIELD_MANAGER,
    GROUP,
    KIND,
    RELOAD_ANNOTATION,
    RELOAD_STARTED_ANNOTATION,
    VERSION,
)
from wsgiapp.types import App, Manifest

from wsgiapp_operator.cache import Cache
from wsgiapp_operator.client import ApiError, Cluster
from wsgiapp_operator.diff import contains, mark_applied
from wsgiapp_operator.errors import Gone, Retry
from wsgiapp_operator.events import Event
from wsgiapp_operator.metrics import Metrics
from wsgiapp_operator.ownership import Taken, check_owner, is_owned
from wsgiapp_operator.reload import ReloadPlan
from wsgiapp_operator.state import Trouble
from wsgiapp_operator.status import show_time

logger = logging.getLogger(__name__)

NAMESPACE_GOES = "NamespaceTerminating"


class Writer:
    """Writes to one cluster and keeps the cache and the figures in step."""

    def __init__(self, cluster: Cluster, cache: Cache, metrics: Metrics) -> None:
        self._cluster = cluster
        self._cache = cache
        self._metrics = metrics

    async def apply_children(
        self, app: App, desired: Sequence[Manifest], live: Mapping[str, Manifest]
    ) -> tuple[dict[str, Manifest], list[Trouble]]:
        """Apply what differs, delete what is no longer wanted.

        Returns the children as they are now, by kind, and what could not be written: objects of that
        name that belong to somebody else, and refusals of the API server.
        """
        if any(manifest["kind"] not in live for manifest in desired):
            await self._check_alive(app)
        now, troubles = {}, []
        for manifest in desired:
            kind = manifest["kind"]
            try:
                now[kind] = await self._apply_child(app, manifest, live.get(kind))
            except Taken as taken:
                troubles.append(taken.trouble)
            except ApiError as error:
                if NAMESPACE_GOES in error.causes:
                    raise Retry(f"namespace {app.namespace} is being deleted", 10.0) from error
                if not error.is_refusal:
                    raise
                troubles.append(Trouble("ApplyRefused", f"{kind} {app.name}: {error.message}"))
                if kind in live:
                    now[kind] = live[kind]
        for kind in live.keys() - {manifest["kind"] for manifest in desired}:
            if is_owned(live[kind], app):
                logger.info(
                    "child is no longer wanted: app=%s/%s kind=%s", app.namespace, app.name, kind
                )
                await self._cluster.delete(live[kind])
                self._metrics.applies.labels(kind=kind, changed="deleted").inc()
        return now, troubles

    async def _check_alive(self, app: App) -> None:
        """Ask the API server itself before anything is created: children of a WsgiApp that is gone
        would come up only to be collected. Raises Gone."""
        alive = await self._cluster.get(KIND, app.namespace, app.name)
        if alive is None or alive["metadata"]["uid"] != app.uid:
            raise Gone(f"{app.namespace}/{app.name}")

    async def _apply_child(self, app: App, manifest: Manifest, live: Manifest | None) -> Manifest:
        kind = manifest["kind"]
        if live is not None:
            check_owner(app, live)
        wanted = mark_applied(manifest)
        if live is not None and contains(live, wanted):
            self._metrics.applies.labels(kind=kind, changed="false").inc()
            return live
        applied = await self._cluster.apply(wanted)
        self._cache.put(applied)
        self._metrics.applies.labels(kind=kind, changed="true").inc()
        logger.info("child applied: app=%s/%s kind=%s", app.namespace, app.name, kind)
        return applied

    async def ask_for_reload(self, app: App, plan: ReloadPlan, now: datetime) -> None:
        """Put the wish on the pods that are next; a pod that went meanwhile is passed over."""
        assert plan.wish is not None
        wish = json.dumps({"id": plan.wish.id, "content": dict(plan.wish.content)}, sort_keys=True)
        annotations = {RELOAD_ANNOTATION: wish, RELOAD_STARTED_ANNOTATION: show_time(now)}
        for pod in plan.ask:
            patch = {"metadata": {"uid": pod.uid, "annotations": annotations}}
            try:
                self._cache.put(await self._cluster.merge("Pod", app.namespace, pod.name, patch))
            except ApiError as error:
                if error.status not in (404, 409):
                    raise
                continue
            logger.info(
                "reload asked for: app=%s/%s pod=%s id=%s",
                app.namespace,
                app.name,
                pod.name,
                plan.wish.id,
            )

    async def write_status(self, manifest: Manifest, status: Manifest) -> None:
        """Write the status of a WsgiApp, given as it was read. Raises Gone where it was deleted."""
        metadata = manifest["metadata"]
        body = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
            },
            "status": status,
        }
        try:
            self._cache.put(await self._cluster.apply_status(body))
        except ApiError as error:
            if error.status not in (404, 409):  # 409: a namesake with another uid
                raise
            raise Gone(f"{metadata['namespace']}/{metadata['name']}") from error
        self._metrics.status_writes.inc()

    async def post_event(self, manifest: Manifest, event: Event, now: datetime) -> None:
        """Create an Event about a WsgiApp. An Event that is lost harms nothing."""
        metadata = manifest["metadata"]
        moment = show_time(now)
        about = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": KIND,
            **{key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")},
        }
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "generateName": f"{metadata['name']}.",
                "namespace": metadata["namespace"],
            },
            "involvedObject": about,
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:1024],
            "source": {"component": FIELD_MANAGER},
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
        try:
            await self._cluster.create(body)
        except ApiError as error:
            logger.warning("event not posted: app=%s error=%s", metadata["name"], error)
