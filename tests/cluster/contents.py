"""Reads `images.toml`, the one list of what is in each image. Pure but for reading that file."""

from __future__ import annotations

import fnmatch
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.commands import ClusterError
from tests.cluster.paths import HERE

SOURCE = HERE / "images.toml"


@dataclass(frozen=True)
class LayerSpec:
    """One layer: `kind` is pip, copy, binary or debian; `what` its source, `to` its place.

    `source_only` (a regular expression on paths) names Python files that are seldom imported: their byte
    code would only make the image bigger.
    """

    kind: str
    what: tuple[str, ...]
    to: str = "/"
    source_only: str = ""


@dataclass(frozen=True)
class Base:
    """The base image; `site` is where its Python looks for installed packages."""

    name: str
    site: str
    suite: str
    debian: tuple[str, ...]


@dataclass(frozen=True)
class ImageSpec:
    """One image of the list; `prepare` is a Python script of the tree, with arguments, to run before it is built."""

    name: str
    about: str
    layers: tuple[LayerSpec, ...]
    on_base: bool
    dockerfile: str | None
    user: str
    workdir: str
    entrypoint: tuple[str, ...]
    env: Mapping[str, str]
    prepare: tuple[str, ...]


@dataclass(frozen=True)
class Contents:
    base: Base
    images: tuple[ImageSpec, ...]
    ignore: tuple[str, ...]

    def is_ignored(self, path: Path) -> bool:
        """Whether a path, relative to the copied folder, stays out of the image."""
        return any(fnmatch.fnmatch(part, pattern) for part in path.parts for pattern in self.ignore)


def read_contents(source: Path = SOURCE) -> Contents:
    """Raises `ClusterError` naming the image and the key that is not understood."""
    table = tomllib.loads(source.read_text())
    base = table["base"]
    return Contents(
        base=Base(base["name"], base["site"], base["suite"], tuple(base["debian"])),
        images=tuple(_image(entry, table["version"], base["site"]) for entry in table["image"]),
        ignore=tuple(table["ignore"]),
    )


_KEYS = set(
    [
        "name",
        "about",
        "version",
        "dockerfile",
        "from",
        "user",
        "workdir",
        "entrypoint",
        "env",
        "layers",
        "prepare",
    ]
)


def _image(entry: Mapping[str, Any], version: str, site: str) -> ImageSpec:
    if unknown := set(entry) - _KEYS:
        raise ClusterError(
            f"images.toml: {entry['name']}: unknown {sorted(unknown)}; use {sorted(_KEYS)}"
        )
    return ImageSpec(
        name=f"{entry['name']}:{entry.get('version', version)}",
        about=entry["about"],
        layers=tuple(_layer(layer, entry["name"], site) for layer in entry["layers"]),
        on_base=entry.get("from") == "base",
        dockerfile=entry.get("dockerfile"),
        user=entry.get("user", ""),
        workdir=entry.get("workdir", ""),
        entrypoint=tuple(entry.get("entrypoint", ())),
        env=entry.get("env", {}),
        prepare=tuple(entry.get("prepare", ())),
    )


def _layer(layer: Mapping[str, Any], image: str, site: str) -> LayerSpec:
    kinds = set(layer) - {"to", "source_only"}
    if len(kinds) != 1 or not kinds <= {"pip", "copy", "binary", "debian"}:
        raise ClusterError(
            f"images.toml: {image}: a layer is one of pip, copy, binary, debian: {layer}"
        )
    kind = kinds.pop()
    what = layer[kind]
    to = layer.get("to", "/")
    return LayerSpec(
        kind,
        (what,) if isinstance(what, str) else tuple(what),
        site if to == "site" else to,
        layer.get("source_only", ""),
    )
