"""All writes about apps: owned resources, pruning, reload requests, status, Events.

Writes only where something differs: a resource that carries the hash of what is wanted, and still has
every wanted field, is left alone, so that a resync of a settled cluster writes nothing and an edit by
somebody else is put back.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime

from wsgiapp.names import (
    API_VERSION,
    FIELD_MANAGER,
    KIND,
    RELOAD_ANNOTATION,
    RELOAD_STARTED_ANNOTATION,
)
from wsgiapp.types import App, Manifest

from wsgiapp_operator.cache import Cache
from wsgiapp_operator.client import ApiError, Cluster
from wsgiapp_operator.diff import is_subset, with_applied_hash
from wsgiapp_operator.errors import OwnerDeleted, RequeueAfter
from wsgiapp_operator.events import Event
from wsgiapp_operator.metrics import Metrics
from wsgiapp_operator.ownership import OwnershipConflict, check_owner, is_owned
from wsgiapp_operator.reload import ReloadPlan
from wsgiapp_operator.state import Issue
from wsgiapp_operator.status import show_time

logger = logging.getLogger(__name__)

NAMESPACE_GOES = "NamespaceTerminating"


class Writer:
    """Writes to one cluster and keeps the cache and the figures in step."""

    def __init__(self, cluster: Cluster, cache: Cache, metrics: Metrics) -> None:
        self._cluster = cluster
        self._cache = cache
        self._metrics = metrics

    async def apply_owned(
        self, app: App, desired: Sequence[Manifest], live: Mapping[str, Manifest]
    ) -> tuple[dict[str, Manifest], list[Issue]]:
        """Apply what differs, delete what is no longer wanted.

        Returns the owned resources as they are now, by kind, and what could not be written: objects of that
        name that belong to somebody else, and refusals of the API server.
        """
        if any(manifest["kind"] not in live for manifest in desired):
            await self._check_alive(app)
        now, issues = {}, []
        for manifest in desired:
            kind = manifest["kind"]
            try:
                now[kind] = await self._apply_one(app, manifest, live.get(kind))
            except OwnershipConflict as taken:
                issues.append(taken.issue)
            except ApiError as error:
                if NAMESPACE_GOES in error.causes:
                    raise RequeueAfter(
                        f"namespace {app.namespace} is being deleted", 10.0
                    ) from error
                if not error.is_refusal:
                    raise
                issues.append(Issue("ApplyRefused", f"{kind} {app.name}: {error.message}"))
                if kind in live:
                    now[kind] = live[kind]
        for kind in live.keys() - {manifest["kind"] for manifest in desired}:
            if is_owned(live[kind], app):
                logger.info(
                    "resource is no longer wanted: app=%s/%s kind=%s", app.namespace, app.name, kind
                )
                await self._cluster.delete(live[kind])
                self._metrics.applies.labels(kind=kind, changed="deleted").inc()
        return now, issues

    async def _check_alive(self, app: App) -> None:
        """Ask the API server itself before anything is created: resources of a WsgiApp that is gone
        would come up only to be collected. Raises OwnerDeleted."""
        alive = await self._cluster.get(KIND, app.namespace, app.name)
        if alive is None or alive["metadata"]["uid"] != app.uid:
            raise OwnerDeleted(f"{app.namespace}/{app.name}")

    async def _apply_one(self, app: App, manifest: Manifest, live: Manifest | None) -> Manifest:
        kind = manifest["kind"]
        if live is not None:
            check_owner(app, live)
        wanted = with_applied_hash(manifest)
        if live is not None and is_subset(live, wanted):
            self._metrics.applies.labels(kind=kind, changed="false").inc()
            return live
        applied = await self._cluster.apply(wanted)
        self._cache.put(applied)
        self._metrics.applies.labels(kind=kind, changed="true").inc()
        logger.info("resource applied: app=%s/%s kind=%s", app.namespace, app.name, kind)
        return applied

    async def request_reload(self, app: App, plan: ReloadPlan, now: datetime) -> None:
        """Put the request on the pods that are next; a pod that went meanwhile is passed over."""
        assert plan.request is not None
        request = json.dumps(
            {"id": plan.request.id, "content": dict(plan.request.content)}, sort_keys=True
        )
        annotations = {RELOAD_ANNOTATION: request, RELOAD_STARTED_ANNOTATION: show_time(now)}
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
                plan.request.id,
            )

    async def write_status(self, manifest: Manifest, status: Manifest) -> None:
        """Write the status of a WsgiApp, given as it was read. Raises OwnerDeleted where it was deleted."""
        metadata = manifest["metadata"]
        body = {
            "apiVersion": API_VERSION,
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
            raise OwnerDeleted(f"{metadata['namespace']}/{metadata['name']}") from error
        self._metrics.status_writes.inc()

    async def post_event(self, manifest: Manifest, event: Event, now: datetime) -> None:
        """Create an Event about a WsgiApp. An Event that is lost harms nothing."""
        metadata = manifest["metadata"]
        moment = show_time(now)
        about = {
            "apiVersion": API_VERSION,
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
