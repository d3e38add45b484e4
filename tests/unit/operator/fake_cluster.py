"""An API server in memory: what the operator's `Cluster` promises, without a network.

It keeps objects with resourceVersion, uid and generation, refuses stale replacements, merges applied
fields into what is there, and notes each write. Refusals are those of the real API server: a wrong uid is
422 on an object, 409 where there is no object, and ignored on `/status`; a stale resourceVersion is 409.
"""

import copy
import itertools
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

from wsgiapp.types import Manifest
from wsgiapp_operator.client import ApiError

PARTIAL = ("kind", "metadata")  # what a listing of metadata only has of an object


class FakeCluster:
    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Manifest] = {}
        self.writes: list[tuple[str, str, str]] = []  # verb, kind, name
        self.refusals: dict[str, ApiError] = {}  # by kind: what a write of it gets
        self.forbidden: set[str] = set()  # namespaces that may not be listed
        self._versions = itertools.count(1)

    def put(self, manifest: Mapping[str, Any]) -> Manifest:
        """Store an object as somebody else would; return it as stored."""
        return self._store(copy.deepcopy(dict(manifest)))

    def remove(self, kind: str, namespace: str, name: str) -> Manifest:
        return self.objects.pop((kind, namespace, name))

    async def get(self, kind: str, namespace: str | None, name: str) -> Manifest | None:
        return copy.deepcopy(self.objects.get((kind, namespace or "", name)))

    async def list(
        self,
        kind: str,
        namespace: str | None,
        label_selector: str | None = None,
        *,
        metadata_only: bool = False,
    ) -> AsyncIterator[Manifest]:
        if namespace in self.forbidden:
            raise ApiError(403, f"cannot list {kind} in namespace {namespace}")
        for key, manifest in list(self.objects.items()):
            if key[0] == kind and namespace in (None, key[1]) and fits(manifest, label_selector):
                shown = PARTIAL if metadata_only else manifest.keys()
                yield copy.deepcopy({name: manifest[name] for name in shown})

    async def apply(self, manifest: Manifest, *, force: bool) -> Manifest:
        self._note("apply", manifest)
        live = self.objects.get(key_of(manifest))
        self._check(live, manifest)
        if live is not None and not force and differs(live.get("spec"), manifest.get("spec")):
            raise ApiError(409, "Apply failed with 1 conflict", ("FieldManagerConflict",))
        return self._store(merge(live or {}, manifest))

    async def apply_status(self, manifest: Manifest) -> Manifest:
        self._note("status", manifest)
        live = self.objects.get(key_of(manifest))
        if live is None:
            raise ApiError(404, "not found")
        self._check_version(live, manifest)
        return self._store({**live, "status": copy.deepcopy(manifest["status"])})

    async def merge(self, kind: str, namespace: str, name: str, patch: Manifest) -> Manifest:
        if kind in self.refusals:
            raise self.refusals[kind]
        self.writes.append(("merge", kind, name))
        live = self.objects.get((kind, namespace, name))
        if live is None:
            raise ApiError(404, "not found")
        self._check(live, patch)
        return self._store(merge(live, patch))

    def _check(self, live: Manifest | None, wanted: Manifest) -> None:
        uid = wanted["metadata"].get("uid")
        if live is None and uid is not None:
            raise ApiError(409, f"uid mismatch: {uid}, and no existing object was found")
        if live is not None and uid not in (None, live["metadata"]["uid"]):
            raise ApiError(422, "metadata.uid: field is immutable", ("FieldValueInvalid",))
        if live is not None:
            self._check_version(live, wanted)

    def _check_version(self, live: Manifest, wanted: Manifest) -> None:
        version = wanted["metadata"].get("resourceVersion")
        if version not in (None, live["metadata"]["resourceVersion"]):
            raise ApiError(409, "the object has been modified")

    async def create(self, manifest: Manifest) -> Manifest:
        named = copy.deepcopy(manifest)
        metadata = named["metadata"]
        metadata.setdefault("name", metadata.get("generateName", "") + uuid.uuid4().hex[:8])
        self._note("create", named)
        if key_of(named) in self.objects:
            raise ApiError(409, "already exists")
        return self._store(named)

    async def replace(self, manifest: Manifest) -> Manifest:
        self._note("replace", manifest)
        live = self.objects.get(key_of(manifest))
        if live is None:
            raise ApiError(404, "not found")
        if live["metadata"]["resourceVersion"] != manifest["metadata"]["resourceVersion"]:
            raise ApiError(409, "the object has been modified")
        return self._store(copy.deepcopy(manifest))

    async def delete(self, manifest: Manifest) -> None:
        self._note("delete", manifest)
        self.objects.pop(key_of(manifest), None)

    def _note(self, verb: str, manifest: Manifest) -> None:
        kind = manifest["kind"]
        if kind in self.refusals:
            raise self.refusals[kind]
        self.writes.append((verb, kind, manifest["metadata"]["name"]))

    def _store(self, manifest: Manifest) -> Manifest:
        key = key_of(manifest)
        live = self.objects.get(key)
        metadata = manifest["metadata"]
        metadata.setdefault("uid", str(uuid.uuid4()))
        generation = live["metadata"]["generation"] if live else 0
        is_changed = live is None or live.get("spec") != manifest.get("spec")
        metadata["generation"] = generation + int(is_changed)
        version = next(self._versions)
        metadata["resourceVersion"] = str(version)
        made = f"2026-11-22T12:{version // 60:02d}:{version % 60:02d}Z"
        metadata.setdefault("creationTimestamp", made)
        self.objects[key] = manifest
        return copy.deepcopy(manifest)


def key_of(manifest: Mapping[str, Any]) -> tuple[str, str, str]:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata["namespace"], metadata["name"]


def fits(manifest: Mapping[str, Any], selector: str | None) -> bool:
    """Return whether an object has the labels of `key=value` and `key` terms."""
    labels = manifest["metadata"].get("labels") or {}
    terms = [term.partition("=") for term in (selector or "").split(",") if term]
    return all(key in labels and (not sign or labels[key] == value) for key, sign, value in terms)


def differs(live: Any, wanted: Any) -> bool:
    return merge(live, wanted) != live


def merge(live: Any, wanted: Any) -> Any:
    """Merge maps, replace everything else."""
    if isinstance(live, dict) and isinstance(wanted, dict):
        merged = copy.deepcopy(live)
        for name, value in wanted.items():
            merged[name] = merge(live.get(name), value)
        return merged
    return copy.deepcopy(wanted)
