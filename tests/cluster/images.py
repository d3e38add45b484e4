"""Makes the images of `images.toml` without a registry or a builder, layer by layer, from a cache.

A layer's name in the cache is a digest of all that goes into it, so what did not change is neither made
nor loaded again.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.cluster import rootfs
from tests.cluster.commands import ClusterError, run, step
from tests.cluster.contents import Contents, ImageSpec, LayerSpec
from tests.cluster.oci import Blob, Image, write_layer
from tests.cluster.packages import pip_install, unpack_debian
from tests.cluster.paths import TREE, Paths

IS_COMMAND = re.compile(r"(\.\./)*bin/").match
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def build_images(contents: Contents, paths: Paths) -> tuple[list[Image], list[str]]:
    """All images of the list, and why some could not be built."""
    builder = ImageBuilder(contents, paths)
    images, missing = [builder.base()], []
    for spec in contents.images:
        try:
            images.append(builder.build(spec))
        except ClusterError as error:
            missing.append(str(error))
    if not missing:
        builder.prune(images)
    return images, missing


class ImageBuilder:
    """Builds into `paths.images`; holds no state beside the cache on disk."""

    def __init__(self, contents: Contents, paths: Paths, *, tree: Path = TREE) -> None:
        self._contents = contents
        self._paths = paths
        self._tree = tree
        self._layers = paths.images / "layers"
        self._root = paths.images / "base"

    def base(self) -> Image:
        return Image(full_name(self._contents.base.name), _config_of_base(), [self._base_layer()])

    def build(self, spec: ImageSpec) -> Image:
        """Raises `ClusterError` when a part of it cannot be made."""
        prepare(spec, self._tree)
        blobs = [self._base_layer()] if spec.on_base else []
        blobs += [self._layer(layer, spec) for layer in spec.layers]
        return Image(full_name(spec.name), config_of(spec), blobs)

    def prune(self, images: Sequence[Image]) -> None:
        """Forget the cached layers that none of these images has."""
        used = {blob.file.stem for image in images for blob in image.layers}
        for file in self._layers.iterdir():
            if file.name.split(".")[0] not in used:
                file.unlink()

    def _base_layer(self) -> Blob:
        base = self._contents.base
        key = _key("base", repr(base), inspect.getsource(rootfs))
        blob = self._cached(key)
        if blob and self._root.is_dir():  # the folder serves the other layers, too
            return blob
        with step(f"image {base.name} from Debian {base.suite}"):
            shutil.rmtree(self._root, ignore_errors=True)
            self._root.mkdir(parents=True)
            rootfs.make_rootfs(base, self._root, self._paths)
            return self._write(key, [(self._root, "/")])

    def _layer(self, layer: LayerSpec, spec: ImageSpec) -> Blob:
        sources = [self._tree / what for what in layer.what]
        if layer.kind in ("pip", "copy"):
            for source in sources:
                if not source.exists():
                    raise ClusterError(f"image {spec.name}: {source} is missing (images.toml)")
        key = _key(layer.kind, layer.to, *self._inputs(layer))
        if blob := self._cached(key):
            return blob
        if layer.kind == "binary":
            return self._write(key, [(self._paths.bin / name, layer.to) for name in layer.what])
        if layer.kind == "copy":
            return self._write(key, self._copies(layer))
        with step(f"image {spec.name}: {' '.join(layer.what)}"), self._scratch() as scratch:
            if layer.kind == "pip":
                pip_install(sources[0], scratch, self._paths)
                leave_out_commands(scratch)
                folder = f"/tmp/{scratch.name}"
                rootfs.compile_python(self._root, folder, at=layer.to, skip=layer.source_only)
            else:
                unpack_debian(layer.what, self._contents.base.suite, scratch, self._paths)
            return self._write(key, [(scratch, layer.to)])

    def _inputs(self, layer: LayerSpec) -> Iterator[str]:
        """All that decides what is in the layer."""
        if layer.kind == "copy":
            for file, target in self._copies(layer):
                yield f"{target} {hashlib.sha256(file.read_bytes()).hexdigest()} {file.stat().st_mode & 0o100}"
        elif layer.kind == "binary":
            for name in layer.what:
                yield hashlib.sha256((self._paths.bin / name).read_bytes()).hexdigest()
        elif layer.kind == "pip":
            yield (self._tree / layer.what[0]).read_text()
            yield layer.source_only
            yield rootfs.COMPILE
            yield inspect.getsource(leave_out_commands)
        else:
            yield self._contents.base.suite
            yield from layer.what

    def _copies(self, layer: LayerSpec) -> list[tuple[Path, str]]:
        source = self._tree / layer.what[0]
        if source.is_file():
            return [(source, layer.to)]
        found = sorted(path for path in source.rglob("*") if path.is_file())
        inside = [(path, path.relative_to(source)) for path in found]
        return [
            (path, f"{layer.to.rstrip('/')}/{relative}")
            for path, relative in inside
            if not self._contents.is_ignored(relative)
        ]

    def _scratch(self) -> _Scratch:
        # Inside the base's file system: its Python compiles what lies there.
        return _Scratch(self._root / "tmp")

    def _cached(self, key: str) -> Blob | None:
        note = self._layers / f"{key}.json"
        file = self._layers / f"{key}.tar"
        if not (note.exists() and file.exists()):
            return None
        known = json.loads(note.read_text())
        return Blob(file, known["digest"], known["size"])

    def _write(self, key: str, content: list[tuple[Path, str]]) -> Blob:
        self._layers.mkdir(parents=True, exist_ok=True)
        file = self._layers / f"{key}.tar"
        write_layer(content, file)
        with file.open("rb") as data:
            digest = "sha256:" + hashlib.file_digest(data, "sha256").hexdigest()
        blob = Blob(file, digest, file.stat().st_size)
        note = {"digest": blob.digest, "size": blob.size}
        (self._layers / f"{key}.json").write_text(json.dumps(note))
        return blob


def leave_out_commands(site: Path) -> None:
    """Remove the packages' commands, and their lines in each RECORD.

    A command begins with the path of the pip that installed it, so the digest there would be another each time.
    """
    shutil.rmtree(site / "bin", ignore_errors=True)
    for record in site.glob("*.dist-info/RECORD"):
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if not IS_COMMAND(line)))


class _Scratch(tempfile.TemporaryDirectory[str]):
    """A temporary folder as a Path."""

    def __init__(self, parent: Path) -> None:
        super().__init__(dir=parent)

    def __enter__(self) -> Path:  # type: ignore[override]  # a Path serves as the str it stands for
        return Path(super().__enter__())


def prepare(spec: ImageSpec, tree: Path) -> None:
    """Run the image's script; it decides itself what is left to do. `ClusterError` with its last lines if it fails."""
    if spec.prepare:
        with step(f"image {spec.name}: {Path(spec.prepare[0]).name}"):
            run(["nice", "-n", "10", sys.executable, tree / spec.prepare[0], *spec.prepare[1:]])


def _key(*inputs: str) -> str:
    return hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:32]


def full_name(name: str) -> str:
    """The reference as runtimes list it: `python:3.13-slim` is `docker.io/library/python:3.13-slim`."""
    registry, slash, _ = name.partition("/")
    if not slash:
        return f"docker.io/library/{name}"
    if "." in registry or ":" in registry or registry == "localhost":
        return name
    return f"docker.io/{name}"


def config_of(spec: ImageSpec) -> dict[str, object]:
    """The `config` object of the OCI image configuration."""
    env = {"PATH": DEFAULT_PATH, **spec.env}
    fields = {
        "User": spec.user,
        "WorkingDir": spec.workdir,
        "Entrypoint": list(spec.entrypoint),
        # As the base image has it: without an entrypoint of its own a container starts Python.
        "Cmd": ["python3"] if spec.on_base and not spec.entrypoint else [],
    }
    config: dict[str, object] = {"Env": [f"{name}={value}" for name, value in env.items()]}
    return config | {name: value for name, value in fields.items() if value}


def _config_of_base() -> dict[str, object]:
    return {"Env": [f"PATH={DEFAULT_PATH}"], "Cmd": ["python3"]}
