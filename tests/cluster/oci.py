"""Writes OCI images: deterministic layers from files, and one archive of several images.

Equal content gives equal digests, so "has it changed" is a comparison of names. Format: the OCI image
specification 1.1 (image layout, manifest, configuration), layers uncompressed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
INDEX = "application/vnd.oci.image.index.v1+json"


@dataclass(frozen=True)
class Blob:
    """A layer on disk; `digest` is `sha256:…` of the file."""

    file: Path
    digest: str
    size: int


@dataclass(frozen=True)
class Image:
    """`name` is the full reference; `config` the `config` object of the OCI image configuration."""

    name: str
    config: Mapping[str, object]
    layers: Sequence[Blob]

    def configuration(self) -> bytes:
        return _encode(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": self.config,
                "rootfs": {"type": "layers", "diff_ids": [blob.digest for blob in self.layers]},
            }
        )

    def manifest(self) -> bytes:
        layers = [_descriptor(LAYER, blob.digest, blob.size) for blob in self.layers]
        configuration = self.configuration()
        return _encode(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": _descriptor(CONFIG, digest_of(configuration), len(configuration)),
                "layers": layers,
            }
        )

    @property
    def image_id(self) -> str:
        """What the kubelet calls the image: the digest of its configuration."""
        return digest_of(self.configuration())

    @property
    def digest(self) -> str:
        """What a runtime lists as the image's digest."""
        return digest_of(self.manifest())


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _encode(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def write_layer(content: Iterable[tuple[Path, str]], out: Path) -> None:
    """Write a layer of (file or folder, absolute path in the image) pairs; folders recursively.

    Owner, times and order are fixed, so that the bytes depend on the content alone.
    """
    temporary = out.with_suffix(".part")
    with tarfile.open(temporary, "w", format=tarfile.PAX_FORMAT) as archive:
        seen: set[str] = set()
        for source, target in content:
            _add_parents(archive, target, seen)
            _add(archive, source, target.strip("/"), seen)
    temporary.replace(out)


def _add_parents(archive: tarfile.TarFile, target: str, seen: set[str]) -> None:
    parts = target.strip("/").split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        name = "/".join(parts[:depth])
        if name not in seen:
            seen.add(name)
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)


def _add(archive: tarfile.TarFile, source: Path, name: str, seen: set[str]) -> None:
    if name and name not in seen:
        seen.add(name)
        member = archive.gettarinfo(source, name)
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        if member.isreg():
            # A checkout's umask is not content.
            member.mode = 0o755 if member.mode & 0o100 else 0o644
            with source.open("rb") as data:
                archive.addfile(member, data)
        else:
            if member.isdir():
                member.mode = 0o1777 if member.mode & 0o1000 else 0o755
            archive.addfile(member)
    if source.is_dir() and not source.is_symlink():
        for child in sorted(os.listdir(source)):
            _add(archive, source / child, f"{name}/{child}".strip("/"), seen)


def write_archive(images: Sequence[Image], out: Path) -> None:
    """Write an OCI image layout as one tar file; layers that images share are in it once."""
    manifests = []
    with tarfile.open(out, "w", format=tarfile.PAX_FORMAT) as archive:
        _add_bytes(archive, "oci-layout", _encode({"imageLayoutVersion": "1.0.0"}))
        written: set[str] = set()
        for image in images:
            for blob in image.layers:
                if blob.digest not in written:
                    written.add(blob.digest)
                    archive.add(blob.file, _blob_name(blob.digest))
            for data in (image.configuration(), image.manifest()):
                if (digest := digest_of(data)) not in written:
                    written.add(digest)
                    _add_bytes(archive, _blob_name(digest), data)
            descriptor = _descriptor(MANIFEST, image.digest, len(image.manifest()))
            # Under its id, too: containerd makes that name itself only for a new image, not for new content
            # under an old name, and the kubelet mounts image volumes by id. First, or containerd, told of
            # the new image, would make it while the import does.
            for name in (image.image_id, image.name):
                annotations = {"annotations": {"io.containerd.image.name": name}}
                manifests.append(descriptor | annotations)
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
        _add_bytes(archive, "index.json", _encode(index))


def _blob_name(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def _add_bytes(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))
