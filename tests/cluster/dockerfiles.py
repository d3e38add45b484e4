"""Writes the Dockerfiles of `images.toml`, for people and for CLUSTER=kind; a stale copy fails a test."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster.contents import Contents, ImageSpec, LayerSpec, read_contents
from tests.cluster.paths import TREE

NOTE = "# Written from tests/cluster/images.toml by `make generate`; change it there.\n"
PIP = "pip install --no-cache-dir --no-compile --no-deps --require-hashes --only-binary=:all:"


def write_dockerfiles(tree: Path = TREE) -> list[Path]:
    """Write all of them; returns the paths, relative to the tree."""
    files = render_all(read_contents())
    for path, text in files.items():
        (tree / path).write_text(text)
    return list(files)


def render_all(contents: Contents) -> dict[Path, str]:
    """Path relative to the repository → text, the .dockerignore among them. Pure."""
    files = {
        Path(image.dockerfile): render_dockerfile(image, contents)
        for image in contents.images
        if image.dockerfile
    }
    return files | {Path(".dockerignore"): render_dockerignore(contents)}


def render_dockerfile(image: ImageSpec, contents: Contents) -> str:
    """One image's Dockerfile; its build context is the root of the repository."""
    lines = [NOTE.rstrip(), f"# {image.about}.", "#"]
    lines += [f"#   docker build -t {image.name} -f {image.dockerfile} ."]
    if image.prepare:
        lines.append(f"# Before that: python {' '.join(image.prepare)}")
    lines += [f"FROM {contents.base.name}"]
    for layer in image.layers:
        lines += _layer(layer)
    lines += [f"ENV {name}={value}" for name, value in image.env.items()]
    if image.workdir:
        lines.append(f"WORKDIR {image.workdir}")
    if image.user:
        lines.append(f"USER {image.user}")
    if image.entrypoint:
        lines.append(f"ENTRYPOINT {json.dumps(list(image.entrypoint))}")
    return "\n".join(lines) + "\n"


def _layer(layer: LayerSpec) -> list[str]:
    (source,) = layer.what
    if layer.kind == "copy":
        return [f"COPY {source} {layer.to}"]
    if layer.kind == "pip":
        skip = f" -x '{layer.source_only}'" if layer.source_only else ""
        return [
            f"RUN --mount=type=bind,source={source},target=/tmp/requirements.txt \\",
            f"    {PIP} --target {layer.to} -r /tmp/requirements.txt \\",
            f" && rm -rf {layer.to}/bin && python3 -m compileall -q{skip} {layer.to}",
        ]
    raise ValueError(f"a Dockerfile cannot have a layer of kind {layer.kind}")


def render_dockerignore(contents: Contents) -> str:
    """Lets through what the images copy, and nothing else: the context stays small, secrets stay out."""
    wanted = sorted(
        {
            source
            for image in contents.images
            if image.dockerfile
            for layer in image.layers
            for source in layer.what
        }
    )
    lines = [NOTE.rstrip(), "*", *(f"!{source}" for source in wanted)]
    return "\n".join([*lines, *(f"**/{pattern}" for pattern in contents.ignore)]) + "\n"
