"""`make reproducible`: builds the two images for users twice, in different folders, and compares layer by layer.

    python -m tests.support.reproducible [--python 3.13]

Each time all of it is made anew: the Debian base, the engine, the Python packages; only what was downloaded is shared.
The tree is HEAD's. Fails where a layer differs, and names the files that do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from tests.cluster.contents import Contents, ImageSpec, read_contents
from tests.cluster.images import ImageBuilder
from tests.cluster.oci import Image
from tests.cluster.paths import TREE, Paths

WANTED = ("wsgiapp/prefork", "wsgiapp/operator")
Layers = dict[
    str, list[dict[str, str]]
]  # image -> its layers: what they are, their digest and file


def main() -> int:
    """Build twice and compare; 0 when every layer is the same."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", nargs="+", default=["3.11", "3.12", "3.13", "3.14"])
    parser.add_argument("--build", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.build:
        print(json.dumps(build_here(given.python)))
        return 0
    # Of different lengths: a path that gets into a file moves what follows.
    commit = git("rev-parse", "HEAD").decode().strip()
    with tempfile.TemporaryDirectory(prefix="a-") as one, tempfile.TemporaryDirectory() as other:
        first, second = (build_in(Path(each), commit, given.python) for each in (one, other))
        return compare(first, second)


def build_in(folder: Path, commit: str, versions: list[str]) -> Layers:
    """Build the commit's tree in `folder`, with a cache of its own; SystemExit when that fails."""
    began = time.monotonic()
    tree = folder / "tree"
    tree.mkdir()
    subprocess.run(["tar", "-x", "-C", tree], input=git("archive", commit), check=True)
    command = [sys.executable, "-m", "tests.support.reproducible", "--build", "--python", *versions]
    environ = os.environ | {"WSGIAPP_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=tree, env=environ, stdout=subprocess.PIPE, check=False)
    if done.returncode != 0:
        raise SystemExit(f"the build in {folder} failed with {done.returncode}")
    print(f"  ok built in {folder}: {time.monotonic() - began:.0f} s", flush=True)
    layers: Layers = json.loads(done.stdout.splitlines()[-1])
    return layers


def git(*arguments: str) -> bytes:
    """What git prints about this tree."""
    return subprocess.run(["git", *arguments], cwd=TREE, stdout=subprocess.PIPE, check=True).stdout


def build_here(versions: list[str]) -> Layers:
    """Build the images of this tree into this cache."""
    contents, paths = read_contents(), Paths.from_environ()
    builder = ImageBuilder(contents, paths)
    specs = [spec for spec in contents.images if spec.name.partition(":")[0] in WANTED]
    # What is shown of one engine holds for the others: they are built alike.
    built = {spec.name: builder.build(with_versions(spec, versions)) for spec in specs}
    return {spec.name: describe(built[spec.name], spec, contents) for spec in specs}


def with_versions(spec: ImageSpec, versions: list[str]) -> ImageSpec:
    """The image with engines for these Pythons only; pure."""
    if "--python" not in spec.prepare:
        return spec
    script = spec.prepare[: spec.prepare.index("--python") + 1]
    return replace(spec, prepare=(*script, *versions))


def describe(image: Image, spec: ImageSpec, contents: Contents) -> list[dict[str, str]]:
    """Its layers; pure."""
    names = [contents.base.name, *(" ".join(layer.what) for layer in spec.layers)]
    return [
        {"what": name, "digest": blob.digest, "file": str(blob.file)}
        for name, blob in zip(names, image.layers, strict=True)
    ] + [{"what": "the image", "digest": image.digest, "file": ""}]


def compare(first: Layers, second: Layers) -> int:
    """Print a line for each layer and each file that differs; 0 when none does."""
    differing = 0
    for image in first:
        for one, other in zip(first[image], second[image], strict=True):
            is_same = one["digest"] == other["digest"]
            differing += not is_same
            print(
                f"  {'same  ' if is_same else 'DIFFERS'} {image}  {one['what']}  {one['digest'][:19]}"
            )
            if not is_same and one["file"]:
                print(
                    "".join(f"          {name}\n" for name in differing_files(one, other)), end=""
                )
    return 1 if differing else 0


def differing_files(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """The members of two layers that are not the same."""
    a, b = members(Path(one["file"])), members(Path(other["file"]))
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def members(layer: Path) -> dict[str, str]:
    """Each member of a layer with a digest of its header and content."""
    found = {}
    with tarfile.open(layer) as archive:
        for member in archive:
            data = archive.extractfile(member) if member.isreg() else None
            digest = hashlib.sha256(data.read() if data else member.linkname.encode()).hexdigest()
            found[member.name] = f"{member.type!r} {member.mode:o} {member.mtime} {digest}"
    return found


if __name__ == "__main__":
    sys.exit(main())
