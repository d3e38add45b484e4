"""All writes about apps: children, pruning, reload wishes, status, Events.

Writes only where something differs: a child that carries the hash of what is wanted, and still has
every wanted field, is left alone, so that a resync of a settled cluster writes nothing and an edit by
somebody else is put back.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from wsgiapp.digest import digest_json
from wsgiapp.resources.deployment import RELOAD_ANNOTATION
from wsgiapp.resources.owned import MANAGED_BY_LABEL, MANAGER
from wsgiapp.types import GROUP, KIND, VERSION, App, Manifest

from wsgiapp_operator.cache import Cache
from wsgiapp_operator.client import ApiError, Cluster
from wsgiapp_operator.events import Event
from wsgiapp_operator.metrics import Metrics
from wsgiapp_operator.observe import STARTED_ANNOTATION, Trouble
from wsgiapp_operator.reload import ReloadPlan
from wsgiapp_operator.status import show_time

logger = logging.getLogger(__name__)

NAMESPACE_GOES = "NamespaceTerminating"
APPLIED_ANNOTATION = "wsgi.dev/applied"  # hash of the manifest that was last applied
MERGE_KEYS = ("name", "mountPath", "containerPort", "port")
EXACT = frozenset({"selector", "matchLabels", "tls"})  # maps and lists that are replaced as a whole
SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    "k": Decimal("1e3"), "M": Decimal("1e6"), "G": Decimal("1e9"), "T": Decimal("1e12"),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40),
}  # fmt: skip


class Retry(Exception):  # noqa: N818 -- named for what is to be done
    """Nothing is wrong with the app, but it has to be looked at again soon."""

    def __init__(self, reason: str, after_s: float) -> None:
        super().__init__(reason)
        self.after_s = after_s


class Gone(Exception):  # noqa: N818 -- named for what has happened
    """The WsgiApp was deleted, and the cache was not told yet."""


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
        annotations = {RELOAD_ANNOTATION: wish, STARTED_ANNOTATION: show_time(now)}
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
            "source": {"component": MANAGER},
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }
        try:
            await self._cluster.create(body)
        except ApiError as error:
            logger.warning("event not posted: app=%s error=%s", metadata["name"], error)


# -- ownership --------------------------------------------------------------------------------


class Taken(Exception):  # noqa: N818 -- named for the state of the name
    """An object of the child's name belongs to somebody else."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.message)
        self.trouble = trouble


def is_owned(live: Manifest, app: App) -> bool:
    return any(owner["uid"] == app.uid for owner in live["metadata"].get("ownerReferences", ()))


def check_owner(app: App, live: Manifest) -> None:
    """Raise unless `live` is the app's, or an orphan of it that may be taken in.

    Raises Taken for another's object, Retry for one that is on its way out: deleted, or left over from a
    WsgiApp of the same name and about to be collected.
    """
    metadata = live["metadata"]
    if "deletionTimestamp" in metadata:
        raise Retry(f"{live['kind']} {metadata['name']} is being deleted", 1.0)
    if is_owned(live, app):
        return
    owners = [owner for owner in metadata.get("ownerReferences", ()) if owner.get("controller")]
    if owners and owners[0]["kind"] == KIND and owners[0]["name"] == app.name:
        raise Retry(
            f"{live['kind']} {metadata['name']} of the previous WsgiApp is being deleted", 1.0
        )
    is_ours = (metadata.get("labels") or {}).get(MANAGED_BY_LABEL) == MANAGER
    if owners or not is_ours:
        owner = (
            f"{owners[0]['kind']} {owners[0]['name']}" if owners else "nobody the operator knows"
        )
        raise Taken(
            Trouble(
                "NameTaken",
                f"{live['kind']} {metadata['name']} exists and belongs to {owner}; "
                "give the WsgiApp another name, or delete that object",
            )
        )


# -- what differs -----------------------------------------------------------------------------


def mark_applied(manifest: Manifest) -> Manifest:
    """Return the manifest with its own hash, which tells later whether the wanted object changed."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), APPLIED_ANNOTATION: digest_json(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def contains(live: Any, wanted: Any, key: str = "") -> bool:
    """Return whether `live` has every field of `wanted`, as server-side apply would leave it.

    Fields of other managers are theirs and do not count. What the API server leaves out when empty, and
    quantities that it writes in another form, count as equal.
    """
    if isinstance(wanted, dict) and isinstance(live, dict):
        if key in EXACT and wanted.keys() != live.keys():
            return False
        # Below requests and limits every value is a quantity, whatever its name.
        below = key if key in ("requests", "limits") else None
        return all(
            contains(live[name], value, below or name) if name in live else not value
            for name, value in wanted.items()
        )
    if isinstance(wanted, list) and isinstance(live, list):
        return contains_items(live, wanted, key)
    if key in ("requests", "limits", "sizeLimit", "divisor"):
        return parse_quantity(live) == parse_quantity(wanted)
    return bool(live == wanted)


def contains_items(live: list[Any], wanted: list[Any], key: str) -> bool:
    """Compare lists as apply merges them: by the items' key where there is one, else as a whole."""
    merge_key = next(
        (k for k in MERGE_KEYS if wanted and all(isinstance(i, dict) and k in i for i in wanted)),
        None,
    )
    if merge_key is None or key in EXACT:
        return len(live) == len(wanted) and all(map(contains, live, wanted))
    by_key = {item.get(merge_key): item for item in live}
    return all(
        item[merge_key] in by_key and contains(by_key[item[merge_key]], item) for item in wanted
    )


def parse_quantity(value: Any) -> Decimal | str:
    """Return a Kubernetes quantity as a number; what is none is returned as text."""
    text = str(value)
    digits = text.rstrip("numkKMGTPEi")
    try:
        return Decimal(digits) * SUFFIXES[text[len(digits) :]]
    except (InvalidOperation, KeyError):
        return text
