"""What was last seen of the cluster, small: objects as compressed JSON, contents as digests.

Filled by watch events, by listings, and by the answers to the operator's own writes, so that a
reconcile sees what the one before it wrote. Does no I/O and knows nothing of what objects mean.
"""

import json
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from wsgiapp.digest import digest_object
from wsgiapp.names import APP_LABEL, KIND
from wsgiapp.types import Manifest, Ref

REMEMBERED_GONE = 4096
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class AppKey(NamedTuple):
    """Names one WsgiApp; the key of the queue."""

    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class ObjectKey(NamedTuple):
    kind: str
    namespace: str
    name: str


class Entry(NamedTuple):
    version: int
    data: bytes


class Digest(NamedTuple):
    """What a ConfigMap or Secret holds: digest None where the object does not exist.

    `version` is the object's resourceVersion: comparable within a kind, unchanged by restarts.
    """

    version: int
    digest: str | None


class Cache:
    def __init__(self) -> None:
        self._objects: dict[ObjectKey, Entry] = {}
        self._of_app: dict[AppKey, set[ObjectKey]] = defaultdict(set)
        self._gone: OrderedDict[ObjectKey, int] = OrderedDict()
        self._digests: dict[ObjectKey, Digest] = {}
        self._users: dict[ObjectKey, set[AppKey]] = defaultdict(set)
        self._referred: dict[AppKey, frozenset[ObjectKey]] = {}

    # -- WsgiApps, owned resources and pods ------------------------------------------------------

    def put(self, manifest: Mapping[str, Any]) -> AppKey | None:
        """Remember an object; return the app it belongs to, or None where it is no news.

        The watch brings each of the operator's own writes once more: that is no news either.
        """
        app, key = app_of(manifest), key_of(manifest)
        version = int(manifest["metadata"]["resourceVersion"])
        known = self._objects.get(key)
        seen = max(known.version if known else -1, self._gone.get(key, -1))
        if app is None or seen >= version:
            return None
        self._objects[key] = Entry(version, pack(manifest))
        self._of_app[app].add(key)
        return app

    def forget(self, manifest: Mapping[str, Any]) -> AppKey | None:
        """Drop an object that is gone, unless a newer namesake is known."""
        app, key = app_of(manifest), key_of(manifest)
        known = self._objects.get(key)
        version = int(manifest["metadata"]["resourceVersion"])
        # The answer to a write of ours may come after the watch has told that the object is gone.
        self._gone[key] = version
        self._gone.move_to_end(key)
        if len(self._gone) > REMEMBERED_GONE:
            self._gone.popitem(last=False)
        if app is not None and known is not None and known.version <= version:
            self._drop(app, key)
        return app

    def forget_app(self, app: AppKey) -> None:
        """Drop a WsgiApp of which the API server says that it is gone."""
        self._drop(app, ObjectKey(KIND, app.namespace, app.name))

    def keep_only(self, kind: str, seen: Iterable[ObjectKey], before: int) -> set[AppKey]:
        """Drop objects of a kind that a complete listing did not show; return the apps concerned.

        A watch that was interrupted for long never tells of deletions meanwhile. Objects newer than
        `before`, the newest version known when the listing began, are spared.
        """
        alive = set(seen)
        gone = [
            k
            for k, e in self._objects.items()
            if k.kind == kind and k not in alive and e.version <= before
        ]
        apps = {app for app, keys in self._of_app.items() if keys.intersection(gone)}
        for app in apps:
            for key in self._of_app[app].intersection(gone):
                self._drop(app, key)
        return apps

    def newest_version(self) -> int:
        return max((entry.version for entry in self._objects.values()), default=0)

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        entry = self._objects.get(ObjectKey(kind, namespace, name))
        return unpack(entry.data) if entry is not None else None

    def pods(self, app: AppKey) -> list[Manifest]:
        keys = sorted(key for key in self._of_app.get(app, ()) if key.kind == "Pod")
        return [unpack(self._objects[key].data) for key in keys]

    def apps(self) -> list[AppKey]:
        return [AppKey(key.namespace, key.name) for key in self._objects if key.kind == KIND]

    def _drop(self, app: AppKey, key: ObjectKey) -> None:
        self._objects.pop(key, None)
        self._of_app[app].discard(key)
        if not self._of_app[app]:
            del self._of_app[app]

    # -- ConfigMaps and Secrets that apps refer to ------------------------------------------------

    def refer(self, app: AppKey, refs: Iterable[Ref]) -> None:
        """Note what `app` mounts; digests that nobody needs any more are dropped."""
        wanted = frozenset(ObjectKey(ref.kind, app.namespace, ref.name) for ref in refs)
        before = self._referred.pop(app, frozenset())
        if wanted:
            self._referred[app] = wanted
        for key in wanted - before:
            self._users[key].add(app)
        for key in before - wanted:
            self._users[key].discard(app)
            if not self._users[key]:
                del self._users[key]
                self._digests.pop(key, None)

    def record_content(self, manifest: Mapping[str, Any], *, deleted: bool = False) -> set[AppKey]:
        """Take the digest of a ConfigMap or Secret; return the apps for which it has changed."""
        key = key_of(manifest)
        users = self._users.get(key)
        if not users:
            return set()
        version = int(manifest["metadata"]["resourceVersion"])
        known = self._digests.get(key)
        if known is not None and known.version > version:
            return set()
        seen = Digest(version, None if deleted else digest_object(manifest))
        self._digests[key] = seen
        return set(users) if seen != known else set()

    def record_missing(self, namespace: str, ref: Ref) -> None:
        self._digests[ObjectKey(ref.kind, namespace, ref.name)] = Digest(0, None)

    def digest(self, namespace: str, ref: Ref) -> Digest | None:
        """Return what is known of a content; None: it has to be read."""
        return self._digests.get(ObjectKey(ref.kind, namespace, ref.name))

    def forget_contents(self) -> None:
        """Have all contents read anew: a watch that was interrupted tells of no deletions."""
        self._digests.clear()


def key_of(manifest: Mapping[str, Any]) -> ObjectKey:
    metadata = manifest["metadata"]
    return ObjectKey(manifest["kind"], metadata["namespace"], metadata["name"])


def app_of(manifest: Mapping[str, Any]) -> AppKey | None:
    """Return the app that an object is, or belongs to by its label."""
    metadata = manifest["metadata"]
    name = (
        metadata["name"]
        if manifest["kind"] == KIND
        else (metadata.get("labels") or {}).get(APP_LABEL)
    )
    return AppKey(metadata["namespace"], name) if name else None


def pack(manifest: Mapping[str, Any]) -> bytes:
    """Return the object without what nobody here reads; managedFields alone are half of it."""
    metadata = {k: v for k, v in manifest["metadata"].items() if k != "managedFields"}
    if LAST_APPLIED in (metadata.get("annotations") or {}):
        metadata["annotations"] = {
            k: v for k, v in metadata["annotations"].items() if k != LAST_APPLIED
        }
    text = json.dumps({**manifest, "metadata": metadata}, separators=(",", ":"))
    return zlib.compress(text.encode(), level=1)


def unpack(data: bytes) -> Manifest:
    manifest: Manifest = json.loads(zlib.decompress(data))
    return manifest
