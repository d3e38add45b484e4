"""What was last seen of the cluster, small: objects as compressed JSON, contents as digests.

Filled by watch events, by listings, and by the answers to the operator's own writes, so that a
reconcile sees what the one before it wrote. Does no I/O and knows nothing of what objects mean.
"""

import json
import sys
import zlib
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from wsgiapp.digest import digest_object
from wsgiapp.names import APP_LABEL, KIND, LAST_GOOD_KEY, MANAGED_BY, MANAGED_BY_LABEL
from wsgiapp.types import Manifest, Ref

from wsgiapp_operator.routes import RouteTable

REMEMBERED_GONE = 4096
LONGEST_MARK = 8192  # of a last good copy, in characters; the names and digests of all contents have room in it
ROUTED = frozenset({KIND, "Ingress"})  # what names hosts
LEVEL = 1  # of zlib: a higher one takes twice the time for a tenth of the room
WINDOW_BYTES = 32 * 1024  # so much of a dictionary does zlib use
LONGER = 1.25
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
    """An object as last seen; `app` is the app under which it is filed."""

    version: int
    uid: str
    app: AppKey
    packed: "Packed"


class Digest(NamedTuple):
    """What a ConfigMap or Secret holds: digest None where the object does not exist.

    `version` is the object's resourceVersion: comparable within a kind, unchanged by restarts. `mark` is
    what a last good copy says that it is good for.
    """

    version: int
    digest: str | None
    mark: str = ""
    immutable: bool = (
        False  # made anew it does not reach running pods: the kubelet no longer looks at it
    )


class Cache:
    def __init__(self) -> None:
        self._objects: dict[ObjectKey, Entry] = {}
        self._of_app: dict[AppKey, list[ObjectKey]] = {}  # a set takes eight times as much
        self._packer = Packer()
        self._gone: OrderedDict[str, int] = OrderedDict()  # uid: version of its deletion
        self._digests: dict[ObjectKey, Digest] = {}
        self._users: dict[ObjectKey, set[AppKey]] = defaultdict(set)
        self._copies: dict[AppKey, set[str]] = defaultdict(set)  # names of ConfigMaps
        self._tls_faults: dict[ObjectKey, tuple[Digest, str | None]] = {}
        self._referred: dict[AppKey, frozenset[ObjectKey]] = {}
        self.routes = RouteTable()

    # -- WsgiApps, owned resources and pods ------------------------------------------------------

    def put(self, manifest: Mapping[str, Any], *, listed_after: int = -1) -> set[AppKey]:
        """Remember an object; return the apps for which that is news.

        These are two when a label was changed from one app to another. The watch brings each of the
        operator's own writes once more: that is not news. `listed_after` is the newest version known
        when a complete listing began; a listed object that is older than what was known by then means
        that history went back (a restored backup), and the listing counts; so does one of what had been deleted.
        """
        app, key = app_of(manifest), key_of(manifest)
        uid, version = identity_of(manifest)
        known = self._objects.get(key)
        if version <= (gone := self._gone.get(uid, -1)):
            if gone > listed_after:
                return set()
            del self._gone[uid]
        if known is not None and known.version >= version:
            is_older_history = known.version > version and known.version <= listed_after
            if not is_older_history:
                return set()
        before = self._drop(key)
        if manifest["kind"] in ROUTED:
            news = self.routes.put(manifest, listed_after=listed_after)
            before |= {AppKey(*each) for each in news}
        if app is None:
            return before
        self._objects[key] = Entry(version, uid, app, self._packer.pack(manifest))
        self._of_app.setdefault(app, []).append(key)
        return before | {app}

    def forget(self, manifest: Mapping[str, Any]) -> set[AppKey]:
        """Drop an object that is gone, unless a namesake is known; return the apps concerned.

        Also called for one whose labels no longer match: it may come back with a newer version.
        """
        key = key_of(manifest)
        uid, version = identity_of(manifest)
        # The answer to a write of ours may come after the watch has reported that the object is gone.
        self._gone[uid] = max(version, self._gone.get(uid, -1))
        self._gone.move_to_end(uid)
        if len(self._gone) > REMEMBERED_GONE:
            self._gone.popitem(last=False)
        known = self._objects.get(key)
        if known is not None and known.uid == uid and known.version > version:
            return set()
        rivals = self._free_routes(manifest)
        if known is None or known.uid != uid:
            return rivals
        return self._drop(key) | rivals

    def _free_routes(self, manifest: Mapping[str, Any]) -> set[AppKey]:
        """Give up the hosts of an object that is gone; return the apps that may have them now."""
        if manifest["kind"] not in ROUTED:
            return set()
        return {AppKey(*each) for each in self.routes.forget(manifest)}

    def forget_app(self, app: AppKey, uid: str) -> bool:
        """Drop a WsgiApp that the API server no longer has; return whether it was still known.

        A namesake with another uid stays: the watch has brought it meanwhile.
        """
        key = ObjectKey(KIND, app.namespace, app.name)
        known = self._objects.get(key)
        if known is None or known.uid != uid:
            return False
        self.routes.forget(
            {"kind": KIND, "metadata": {"namespace": app.namespace, "name": app.name, "uid": uid}}
        )
        self._drop(key)
        return True

    def keep_only(
        self, kind: str, seen: Iterable[ObjectKey], before: int, namespaces: Iterable[str] = ()
    ) -> set[AppKey]:
        """Drop objects of a kind that a complete listing did not show; return the apps concerned.

        A watch that was interrupted for long never reports deletions meanwhile. Objects newer than
        `before`, the newest version known when the listing began, are spared, and so are those outside
        `namespaces` where these are given: they were not listed.
        """
        alive, listed = set(seen), set(namespaces)
        gone = [
            key
            for key, entry in self._objects.items()
            if key.kind == kind
            and key not in alive
            and entry.version <= before
            and (not listed or key.namespace in listed)
        ]
        freed = self.routes.keep_only(kind, alive, before, listed) if kind in ROUTED else ()
        return {app for key in gone for app in self._drop(key)} | {AppKey(*each) for each in freed}

    def newest_version(self) -> int:
        newest = max((entry.version for entry in self._objects.values()), default=0)
        return max(newest, self.routes.newest_version(), *self._gone.values())

    def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        entry = self._objects.get(ObjectKey(kind, namespace, name))
        return entry.packed.unpack() if entry is not None else None

    def pods(self, app: AppKey) -> list[Manifest]:
        keys = sorted(key for key in self._of_app.get(app, ()) if key.kind == "Pod")
        return [self._objects[key].packed.unpack() for key in keys]

    def ingresses(self, app: AppKey) -> list[str]:
        """Return the names of the Ingresses that are filed under an app."""
        return sorted(key.name for key in self._of_app.get(app, ()) if key.kind == "Ingress")

    def apps(self) -> list[AppKey]:
        return [AppKey(key.namespace, key.name) for key in self._objects if key.kind == KIND]

    def _drop(self, key: ObjectKey) -> set[AppKey]:
        """Take an object out, also of its app's list; return that app."""
        entry = self._objects.pop(key, None)
        if entry is None:
            return set()
        filed = self._of_app[entry.app]
        filed.remove(key)
        if not filed:
            del self._of_app[entry.app]
        return {entry.app}

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
                self._tls_faults.pop(key, None)

    def record_content(
        self,
        manifest: Mapping[str, Any],
        *,
        deleted: bool = False,
        asked_after: Digest | None = None,
    ) -> set[AppKey]:
        """Take the digest of a ConfigMap or Secret; return the apps for which it has changed.

        One that is older than what is known is left out, unless that was known when it was asked for, as
        `asked_after`: then history went back (a restored backup).
        """
        key = key_of(manifest)
        self._note_copy(key, manifest, deleted=deleted)
        users = self._users.get(key)
        if not users:
            return set()
        version = int(manifest["metadata"]["resourceVersion"])
        known = self._digests.get(key)
        if known is not None and known.version > version and known != asked_after:
            return set()
        mark = (manifest.get("data") or {}).get(LAST_GOOD_KEY, "")
        mark = mark if len(mark) <= LONGEST_MARK else ""  # not one that an operator wrote
        seen = (
            Digest(version, None)
            if deleted
            else Digest(version, digest_object(manifest), mark, bool(manifest.get("immutable")))
        )
        self._digests[key] = seen
        return set(users) if seen != known else set()

    def _note_copy(self, key: ObjectKey, manifest: Mapping[str, Any], *, deleted: bool) -> None:
        app = app_of(manifest)
        labels = manifest["metadata"].get("labels") or {}
        is_copy = LAST_GOOD_KEY in (manifest.get("data") or {})
        if key.kind != "ConfigMap" or app is None or labels.get(MANAGED_BY_LABEL) != MANAGED_BY:
            return
        if is_copy and not deleted:
            self._copies[app].add(key.name)
        elif app in self._copies:
            self.forget_copy(app, key.name)

    def copies(self, app: AppKey) -> frozenset[str]:
        """Return the names of the ConfigMaps that look like last good copies of an app's contents."""
        return frozenset(self._copies.get(app, ()))

    def forget_copy(self, app: AppKey, name: str) -> None:
        self._copies[app].discard(name)
        if not self._copies[app]:
            del self._copies[app]

    def record_missing(self, namespace: str, ref: Ref) -> None:
        """Note that a content does not exist, unless the watch has brought it while that was asked."""
        self._digests.setdefault(ObjectKey(ref.kind, namespace, ref.name), Digest(0, None))

    def digest(self, namespace: str, ref: Ref) -> Digest | None:
        """Return what is known of a content; None: it has to be read."""
        return self._digests.get(ObjectKey(ref.kind, namespace, ref.name))

    def record_tls_fault(self, namespace: str, ref: Ref, fault: str | None) -> None:
        """Note what is the matter with a Secret as it is known now."""
        digest = self.digest(namespace, ref)
        if digest is not None:
            self._tls_faults[ObjectKey(ref.kind, namespace, ref.name)] = (digest, fault)

    def tls_fault(self, namespace: str, ref: Ref) -> tuple[str | None] | None:
        """Return what was found of a Secret that has not changed since; None: it has to be looked at."""
        known = self._tls_faults.get(ObjectKey(ref.kind, namespace, ref.name))
        is_fresh = known is not None and known[0] == self.digest(namespace, ref)
        return (known[1],) if known is not None and is_fresh else None

    def referred(self, kind: str) -> list[ObjectKey]:
        """Return the objects of a kind that apps refer to."""
        return [key for key in self._users if key.kind == kind]

    def is_referred(self, key: ObjectKey) -> bool:
        return key in self._users

    def record_gone(self, key: ObjectKey, before: Digest | None) -> set[AppKey]:
        """Note that a content was asked for and is not there, unless it is another than `before` meanwhile."""
        is_known = before is not None and before.digest is None
        if is_known or self._digests.get(key) != before or key not in self._users:
            return set()
        self._digests[key] = Digest(before.version if before is not None else 0, None)
        return set(self._users[key])

    def forget_content(self, key: ObjectKey) -> set[AppKey]:
        """Have a content read anew; return the apps that refer to it."""
        self._digests.pop(key, None)
        return set(self._users.get(key, ()))

    def contents(self, kind: str) -> dict[ObjectKey, Digest]:
        """Return what is known of the contents of a kind."""
        return {key: seen for key, seen in self._digests.items() if key.kind == kind}

    def compare_contents(
        self,
        versions: Mapping[ObjectKey, int],
        before: Mapping[ObjectKey, Digest],
        namespaces: Iterable[str] = (),
    ) -> set[AppKey]:
        """Note which contents a complete listing did not show, and have those read anew that it showed in another
        version; return the apps concerned.

        A watch that was interrupted for long never reports deletions meanwhile. `before` is what was known when
        the listing began: of what has changed since, the listing tells nothing. Nor does it of other namespaces
        than `namespaces`, where these are given.
        """
        listed, changed = set(namespaces), set()
        for key, known in before.items():
            if self._digests.get(key) != known or (listed and key.namespace not in listed):
                continue
            if key not in versions:
                changed |= self.record_gone(key, known)
            elif versions[key] != known.version:
                changed |= self.forget_content(key)
        return changed


def key_of(manifest: Mapping[str, Any]) -> ObjectKey:
    """Return what names the object; its texts are shared by all keys of an app, and by all of a kind."""
    metadata = manifest["metadata"]
    return ObjectKey(*map(sys.intern, (manifest["kind"], metadata["namespace"], metadata["name"])))


def identity_of(manifest: Mapping[str, Any]) -> tuple[str, int]:
    """Return uid and resourceVersion."""
    metadata = manifest["metadata"]
    return metadata["uid"], int(metadata["resourceVersion"])


def app_of(manifest: Mapping[str, Any]) -> AppKey | None:
    """Return the app that an object is, or belongs to by its label."""
    metadata = manifest["metadata"]
    name = (
        metadata["name"]
        if manifest["kind"] == KIND
        else (metadata.get("labels") or {}).get(APP_LABEL)
    )
    return AppKey(sys.intern(metadata["namespace"]), sys.intern(name)) if name else None


class Packed(NamedTuple):
    """An object, compressed with another one of its kind, `sample`, as dictionary."""

    data: bytes
    sample: bytes

    def unpack(self) -> Manifest:
        text = zlib.decompressobj(zdict=self.sample).decompress(self.data)
        manifest: Manifest = json.loads(text)
        return manifest


class Packer:
    """Packs objects so that what those of a kind have alike, which is most of them, takes no room.

    The first object of a kind serves as sample until a longer one comes: the first are without a status.
    """

    def __init__(self) -> None:
        self._samples: dict[str, bytes] = {}

    def pack(self, manifest: Mapping[str, Any]) -> Packed:
        kind, text = manifest["kind"], write_read_parts(manifest)
        sample = self._samples.setdefault(kind, text)
        if LONGER * len(sample) < len(text) <= WINDOW_BYTES:
            sample = self._samples[kind] = text
        compressor = zlib.compressobj(LEVEL, zdict=sample)
        return Packed(compressor.compress(text) + compressor.flush(), sample)


def write_read_parts(manifest: Mapping[str, Any]) -> bytes:
    """Return the object without what nobody here reads; managedFields alone are half of it."""
    metadata = {k: v for k, v in manifest["metadata"].items() if k != "managedFields"}
    if LAST_APPLIED in (metadata.get("annotations") or {}):
        metadata["annotations"] = {
            k: v for k, v in metadata["annotations"].items() if k != LAST_APPLIED
        }
    return json.dumps({**manifest, "metadata": metadata}, separators=(",", ":")).encode()
