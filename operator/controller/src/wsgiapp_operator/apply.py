"""All writes about apps: owned resources, pruning, reload requests, status, Events.

Writes only where something differs: a resource that carries the hash of what is wanted, and still has
every wanted field, is left alone, so that a resync of a settled cluster writes nothing and an edit by
anyone else is put back.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime

import aiohttp
from wsgiapp.names import (
    API_VERSION,
    APP_LABEL,
    FIELD_MANAGER,
    KIND,
    RELOAD_ANNOTATION,
    RELOAD_BEFORE_ANNOTATION,
    RELOAD_STARTED_ANNOTATION,
)
from wsgiapp.types import App, Manifest

from wsgiapp_operator.cache import Cache
from wsgiapp_operator.client import ApiError, Cluster
from wsgiapp_operator.diff import is_subset, with_applied_hash
from wsgiapp_operator.errors import OwnerDeleted, RequeueAfter
from wsgiapp_operator.events import Event
from wsgiapp_operator.metrics import Metrics
from wsgiapp_operator.ownership import explain_refusal, find_obstacle, is_owned, slot_of
from wsgiapp_operator.pods import show_before
from wsgiapp_operator.reload import ReloadPlan
from wsgiapp_operator.state import Issue
from wsgiapp_operator.status import show_time

logger = logging.getLogger(__name__)

NAMESPACE_GOES = "NamespaceTerminating"
CONFLICT = 409
REMEMBERED_EVENTS = 2048
NOT_POSTED = (ApiError, aiohttp.ClientError, TimeoutError)


class Writer:
    """Writes to one cluster and keeps the cache and the figures in step."""

    def __init__(self, cluster: Cluster, cache: Cache, metrics: Metrics) -> None:
        self._cluster = cluster
        self._cache = cache
        self._metrics = metrics
        # Events of this operator: name and count, by app and text. The API server drops them after an hour.
        self._events: dict[tuple[str, ...], tuple[str, int]] = {}

    async def apply_owned(
        self,
        app: App,
        desired: Sequence[Manifest],
        live: Mapping[str, Manifest],
        *,
        keep_template: bool = False,
    ) -> tuple[dict[str, Manifest], list[Issue]]:
        """Apply what differs, delete what is no longer wanted.

        Returns the owned resources as they are now, by `slot_of`, and what could not be written: objects of
        that name that belong to another owner or are being deleted, and refusals of the API server. While
        the ServiceAccount or the Service is another's, nothing is written that would use it. With
        `keep_template` the Deployment's pods stay as they are, whatever is wanted of them.
        """
        if any(slot_of(app, manifest) not in live for manifest in desired):
            await self._check_alive(app)
        now: dict[str, Manifest] = {}
        issues: list[Issue] = []
        for manifest in desired:
            slot = slot_of(app, manifest)
            issue = find_obstacle(app, live[slot]) if slot in live else None
            if issue is None and slot == "Deployment" and keep_template:
                issue = await self._apply_all_but_template(app, manifest, live[slot], now)
            elif issue is None and not is_blocked(manifest["kind"], issues):
                issue = await self._apply_one(app, manifest, live.get(slot), now)
            elif slot in live:
                now[slot] = live[slot]
            if issue is not None:
                issues.append(issue)
        for slot in live.keys() - {slot_of(app, manifest) for manifest in desired}:
            issues += await self._prune(app, live[slot])
        return {k: m for k, m in now.items() if is_owned(m, app)}, issues

    async def _prune(self, app: App, live: Manifest) -> list[Issue]:
        """Delete a resource that is no longer wanted; return why not, where that was refused."""
        kind = live["kind"]
        if not is_owned(live, app) or "deletionTimestamp" in live["metadata"]:
            return []
        logger.info(
            "resource is no longer wanted: app=%s/%s kind=%s", app.namespace, app.name, kind
        )
        try:
            await self._cluster.delete(live)
        except ApiError as error:
            if not error.is_refusal:
                raise
            name = live["metadata"]["name"]
            return [
                explain_refusal(
                    f"the deletion of {kind} {name}, which is not wanted any more", error
                )
            ]
        self._metrics.applies.labels(kind=kind, changed="deleted").inc()
        return []

    async def _check_alive(self, app: App) -> None:
        """Ask the API server itself before anything is created: resources of a WsgiApp that is gone
        would come up only to be collected. Raises OwnerDeleted."""
        alive = await self._cluster.get(KIND, app.namespace, app.name)
        if alive is None or alive["metadata"]["uid"] != app.uid:
            raise OwnerDeleted(f"{app.namespace}/{app.name}", app.uid)

    async def _apply_one(
        self, app: App, manifest: Manifest, live: Manifest | None, now: dict[str, Manifest]
    ) -> Issue | None:
        """Apply one resource where it differs and put it into `now`; return why it was refused."""
        kind, slot = manifest["kind"], slot_of(app, manifest)
        wanted = with_applied_hash(manifest)
        if live is not None and is_subset(live, wanted):
            self._metrics.applies.labels(kind=kind, changed="false").inc()
            now[slot] = live
            return None
        try:
            now[slot] = await self._cluster.apply(at(wanted, live), force=live is not None)
        except ApiError as error:
            return await self._explain_refusal(app, manifest, live, now, error)
        self._cache.put(now[slot])
        self._metrics.applies.labels(kind=kind, changed="true").inc()
        logger.info("resource applied: app=%s/%s kind=%s", app.namespace, app.name, kind)
        return None

    async def _apply_all_but_template(
        self, app: App, manifest: Manifest, live: Manifest, now: dict[str, Manifest]
    ) -> Issue | None:
        """Change what the spec asks of the Deployment beside its pods, such as their number, and put it
        into `now`; return why it was refused."""
        spec = {name: value for name, value in manifest["spec"].items() if name != "template"}
        if is_subset(live, {"spec": spec}):
            now["Deployment"] = live
            return None
        patch = {"metadata": {"uid": live["metadata"]["uid"]}, "spec": spec}
        try:
            now["Deployment"] = await self._cluster.merge(
                "Deployment", app.namespace, app.name, patch
            )
        except ApiError as error:
            return await self._explain_refusal(app, manifest, live, now, error)
        self._cache.put(now["Deployment"])
        self._metrics.applies.labels(kind="Deployment", changed="true").inc()
        return None

    async def _explain_refusal(
        self,
        app: App,
        manifest: Manifest,
        live: Manifest | None,
        now: dict[str, Manifest],
        error: ApiError,
    ) -> Issue:
        """Return the API server's refusal as an issue.

        Raises RequeueAfter where it is about another object than the one that was seen, or about a
        namespace on its way out, and the error itself where repeating it may help.
        """
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        if NAMESPACE_GOES in error.causes:
            raise RequeueAfter(f"namespace {app.namespace} is being deleted", 10.0) from error
        if error.status != CONFLICT and not error.is_refusal:
            raise error
        there = await self._cluster.get(kind, app.namespace, name)
        if error.status == CONFLICT or uid_of(there) != uid_of(live):
            if live is not None:
                self._cache.forget(live)
            if there is not None and APP_LABEL in (there["metadata"].get("labels") or {}):
                self._cache.put(there)
            raise RequeueAfter(f"{kind} {name} has changed meanwhile", 0.5) from error
        if live is not None:
            now[slot_of(app, manifest)] = live
        return explain_refusal(f"{kind} {name}", error)

    async def request_reload(self, app: App, plan: ReloadPlan, now: datetime) -> Issue | None:
        """Put the request on the pods that are next; return why that was refused, where it was.

        A pod that went meanwhile is passed over.
        """
        refused = None
        for pod, request in plan.ask:
            text = json.dumps({"id": request.id, "content": dict(request.content)}, sort_keys=True)
            annotations = {
                RELOAD_ANNOTATION: text,
                RELOAD_STARTED_ANNOTATION: show_time(now),
                RELOAD_BEFORE_ANNOTATION: show_before(pod, request),
            }
            patch = {"metadata": {"uid": pod.uid, "annotations": annotations}}
            name = f"{app.namespace}/{app.name}"
            try:
                self._cache.put(await self._cluster.merge("Pod", app.namespace, pod.name, patch))
            except ApiError as error:
                if error.status in (404, CONFLICT) or is_namesake(error):
                    logger.info("pod passed over: app=%s pod=%s error=%s", name, pod.name, error)
                elif error.is_refusal:
                    refused = refused or explain_refusal(
                        f"the annotation {RELOAD_ANNOTATION} on Pod {pod.name}",
                        error,
                        "ReloadRefused",
                    )
                else:
                    raise
                continue
            logger.info("reload requested: app=%s pod=%s id=%s", name, pod.name, request.id)
        return refused

    async def write_status(
        self, manifest: Manifest, status: Manifest, now: datetime
    ) -> Issue | None:
        """Write the status of a WsgiApp, given as it was read; return why that was refused, where it was.

        Only its resourceVersion keeps the status off a namesake: the API server ignores a wrong uid
        there. What cannot be said in the status is said in an Event. Raises OwnerDeleted where the WsgiApp was
        deleted, RequeueAfter where it was changed.
        """
        metadata = manifest["metadata"]
        named = {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")}
        body = {"apiVersion": API_VERSION, "kind": KIND, "metadata": named, "status": status}
        try:
            self._cache.put(await self._cluster.apply_status(body))
        except ApiError as error:
            key = f"{metadata['namespace']}/{metadata['name']}"
            if error.is_refusal:
                issue = explain_refusal(
                    f"the status of WsgiApp {metadata['name']}", error, "StatusRefused"
                )
                logger.warning("status not written: app=%s error=%s", key, error)
                await self.post_event(manifest, Event("Warning", *issue), now)
                return issue
            if error.status not in (404, CONFLICT):
                raise
            there = await self._cluster.get(KIND, metadata["namespace"], metadata["name"])
            if uid_of(there) != metadata["uid"] or there is None:
                raise OwnerDeleted(key, metadata["uid"]) from error
            self._cache.put(there)
            raise RequeueAfter(f"WsgiApp {key} has changed meanwhile", 0.1) from error
        self._metrics.status_writes.inc()
        return None

    async def post_event(self, manifest: Manifest, event: Event, now: datetime) -> None:
        """Create an Event about a WsgiApp, or count one up that this operator made of the same text.

        A failure is logged, for nothing depends on Events.
        """
        metadata = manifest["metadata"]
        moment = show_time(now)
        key = (metadata["uid"], *event)
        name, count = self._events.pop(key, ("", 0))
        if name and await self._count_event(metadata["namespace"], name, count + 1, moment):
            self._events[key] = name, count + 1
            return
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
            made = await self._cluster.create(body)
        except NOT_POSTED as error:
            logger.warning("event not posted: app=%s error=%r", metadata["name"], error)
            return
        self._events[key] = made["metadata"]["name"], 1
        if len(self._events) > REMEMBERED_EVENTS:
            self._events.pop(next(iter(self._events)))

    async def _count_event(self, namespace: str, name: str, count: int, moment: str) -> bool:
        """Return whether the Event is still there, and says now how often it happened."""
        patch = {"metadata": {}, "count": count, "lastTimestamp": moment}
        try:
            await self._cluster.merge("Event", namespace, name, patch)
        except NOT_POSTED as error:
            logger.debug("event not counted: name=%s error=%r", name, error)
            return False
        return True


def is_blocked(kind: str, issues: Sequence[Issue]) -> bool:
    """Return whether `kind` would use a ServiceAccount or Service that is another's."""
    return kind in ("Deployment", "Ingress") and any(i.reason == "NameConflict" for i in issues)


def is_namesake(error: ApiError) -> bool:
    """Return whether a patch met another object of the same name: its uid, which was given, is immutable."""
    return error.status == 422 and "metadata.uid" in error.message


def uid_of(manifest: Manifest | None) -> str | None:
    return manifest["metadata"]["uid"] if manifest is not None else None


def at(wanted: Manifest, live: Manifest | None) -> Manifest:
    """Return `wanted` as meant for exactly the object that was seen: another uid is refused."""
    if live is None:
        return wanted
    return {**wanted, "metadata": {**wanted["metadata"], "uid": live["metadata"]["uid"]}}
