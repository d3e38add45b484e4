"""An API server in memory: what the operator's `Cluster` promises, without a network.

It keeps objects with resourceVersion, uid and generation, refuses stale replacements, merges applied
fields into what is there, and notes each write.
"""

import copy
import itertools
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

from wsgiapp.types import Manifest
from wsgiapp_operator.client import ApiError


class FakeCluster:
    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Manifest] = {}
        self.writes: list[tuple[str, str, str]] = []  # verb, kind, name
        self.refusals: dict[str, ApiError] = {}  # by kind: what a write of it gets
        self._versions = itertools.count(1)

    def put(self, manifest: Mapping[str, Any]) -> Manifest:
        """Store an object as somebody else would; return it as stored."""
        return self._store(copy.deepcopy(dict(manifest)))

    def remove(self, kind: str, namespace: str, name: str) -> Manifest:
        return self.objects.pop((kind, namespace, name))

    async def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
        return copy.deepcopy(self.objects.get((kind, namespace, name)))

    async def list(
        self, kind: str, namespace: str | None, label_selector: str | None = None
    ) -> AsyncIterator[Manifest]:
        for key, manifest in list(self.objects.items()):
            if key[0] == kind and namespace in (None, key[1]):
                yield copy.deepcopy(manifest)

    async def apply(self, manifest: Manifest) -> Manifest:
        self._note("apply", manifest)
        live = self.objects.get(key_of(manifest), {})
        return self._store(merge(live, manifest))

    async def apply_status(self, manifest: Manifest) -> Manifest:
        self._note("status", manifest)
        live = self.objects.get(key_of(manifest))
        if live is None:
            raise ApiError(404, "not found")
        if live["metadata"]["uid"] != manifest["metadata"]["uid"]:
            raise ApiError(409, "uid mismatch")
        return self._store({**live, "status": copy.deepcopy(manifest["status"])})

    async def merge(self, kind: str, namespace: str, name: str, patch: Manifest) -> Manifest:
        self.writes.append(("merge", kind, name))
        live = self.objects.get((kind, namespace, name))
        if live is None:
            raise ApiError(404, "not found")
        return self._store(merge(live, patch))

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
        metadata["resourceVersion"] = str(next(self._versions))
        self.objects[key] = manifest
        return copy.deepcopy(manifest)


def key_of(manifest: Mapping[str, Any]) -> tuple[str, str, str]:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata["namespace"], metadata["name"]


def merge(live: Any, wanted: Any) -> Any:
    """Merge maps, replace everything else."""
    if isinstance(live, dict) and isinstance(wanted, dict):
        merged = copy.deepcopy(live)
        for name, value in wanted.items():
            merged[name] = merge(live.get(name), value)
        return merged
    return copy.deepcopy(wanted)
