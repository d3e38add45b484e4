"""`make sbom`: what is in the two images for users, as CycloneDX lists in dist/sbom.

    python -m tests.support.image_sbom                                          # the local images, as `make images` makes them
    python -m tests.support.image_sbom prefork --root rootfs.tar --python 3.13.9   # one that another builder made (docker export)

An image's list is merged of three: its Debian packages (debsbom, from the image's own dpkg status), its Python packages
(cyclonedx-bom, from the hashed requirements) and the engine's crates (maturin's list, from the wheel); the latter two
are parts that `make packages` has left in dist/sbom. What else the image's files show (Python packages of the base
image, a Python that is not Debian's) is added. Equal inputs give equal bytes: times are the commit's.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.cluster.contents import read_contents
from tests.cluster.images import ImageBuilder
from tests.cluster.paths import TREE, Paths

TOOL = Paths.from_environ().cache / "packages" / "bin" / "debsbom"
PARTS = {"prefork": ("prefork-python", "prefork-crates"), "operator": ("operator-python",)}
REQUIREMENTS = {
    "prefork-python": "server/requirements-agent.txt",
    "operator-python": "operator/controller/requirements.txt",
}
IS_METADATA = re.compile(r".*\.dist-info/METADATA$").match
Component = dict[str, Any]


def main() -> int:
    """Write and check the lists of the images named, or of all; 0 when nothing is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("image", nargs="*", choices=[*PARTS, []], help="default: all")
    parser.add_argument("--root", type=Path, help="its files, as a tar file")
    parser.add_argument("--python", help="version of a Python that is not a Debian package")
    parser.add_argument("--out", type=Path, default=TREE / "dist" / "sbom")
    given = parser.parse_args()
    for image in given.image or PARTS:
        root = given.root or local_root()
        file = write_list(image, root, given.out.resolve(), interpreter=given.python)
        components = json.loads(file.read_text())["components"]
        if missing := expected(image, interpreter=given.python) - present(components):
            raise SystemExit(f"{file} does not list {', '.join(sorted(missing))}")
        print(f"  ok {file.name}: {count(components)}", flush=True)
    return 0


def local_root() -> Path:
    """The files of the base image, on which both images are; made where they are not in the cache."""
    return ImageBuilder(read_contents(), Paths.from_environ()).base().layers[0].file


def write_list(image: str, root: Path, folder: Path, *, interpreter: str | None) -> Path:
    """Merge the parts of an image's list; SystemExit where a part is missing or the tool fails."""
    parts = [folder / f"{part}.cdx.json" for part in PARTS[image]]
    if absent := [str(part) for part in parts if not part.exists()]:
        raise SystemExit(f"{', '.join(absent)} missing: run `make packages` first")
    with tempfile.TemporaryDirectory() as scratch:
        debian = Path(scratch, "debian")
        system = ("-t", "cdx", "--root", root, "--distro-name", "debian")
        debsbom("generate", *system, "-o", debian, about=image)
        parts.insert(0, debian.with_suffix(".cdx.json"))
        parts.append(Path(scratch, "found.cdx.json"))
        parts[-1].write_text(json.dumps(describe(find_distributions(root), interpreter)))
        name = f"{image}-image"
        merged = ("--distro-name", name, "-o", folder / name, *parts)
        debsbom("merge", *merged, about=image)
    return folder / f"{name}.cdx.json"


def debsbom(command: str, *arguments: object, about: str) -> None:
    """Run debsbom so that its output depends on its input alone."""
    moment = datetime.fromtimestamp(commit_time_s(), UTC).isoformat()
    serial = uuid.uuid5(uuid.NAMESPACE_URL, f"{about} {moment}")
    fixed = ("--timestamp", moment, "--cdx-serialnumber", serial, "--cdx-schema-version", "1.6")
    words = [str(word) for word in (TOOL, command, *fixed, *arguments)]
    # What it warns of is one list's dependencies being apart from another's.
    quiet = os.environ | {"PYTHONWARNINGS": "ignore"}
    if subprocess.run(words, env=quiet, check=False).returncode != 0:
        raise SystemExit(f"debsbom {command} failed")


def commit_time_s() -> int:
    """When the tree was committed: the time that a build of it is of, whenever it is built."""
    return int(subprocess.check_output(["git", "log", "-1", "--format=%ct"], cwd=TREE, text=True))


def find_distributions(root: Path) -> dict[str, str]:
    """Name and version of each Python distribution in a tar file of an image's files."""
    with tarfile.open(root) as archive:
        folders = {Path(member).parent.name for member in archive.getnames() if IS_METADATA(member)}
    return dict(folder.removesuffix(".dist-info").split("-", 1) for folder in sorted(folders))


def describe(distributions: Mapping[str, str], interpreter: str | None) -> dict[str, Any]:
    """A CycloneDX list of Python distributions and, where given, CPython; pure."""
    purls = {f"pkg:pypi/{normal(name)}@{version}": name for name, version in distributions.items()}
    if interpreter:
        purls[f"pkg:generic/cpython@{interpreter}"] = "cpython"
    components = [
        {"type": "library", "name": name, "version": purl.rpartition("@")[2], "bom-ref": purl}
        | {"purl": purl}
        for purl, name in purls.items()
    ]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "metadata": {"component": {"type": "platform", "name": "python", "bom-ref": "python"}},
        "components": components,
    }


def expected(image: str, *, interpreter: str | None) -> set[str]:
    """`kind/name` of all that has to be in the image's list."""
    (requirements,) = (REQUIREMENTS[part] for part in PARTS[image] if part in REQUIREMENTS)
    pinned = re.findall(r"^([\w.-]+)==", (TREE / requirements).read_text(), re.MULTILINE)
    names = {f"pypi/{normal(name)}" for name in pinned}
    if interpreter:
        names.add("generic/cpython")
    else:
        names |= {f"deb/{name}" for name in read_contents().base.debian}
    if image == "prefork":
        names |= {f"cargo/{name}" for name in ("pyo3", "libc")}
    return names


def present(components: Iterable[Component]) -> set[str]:
    """`kind/name` of the components, without Debian's source packages; pure."""
    named = ((str(each.get("purl", "")), str(each["name"])) for each in components)
    return {
        f"{kind[1]}/{normal(name) if kind[1] == 'pypi' else name}"
        for purl, name in named
        if (kind := re.match(r"pkg:(\w+)/", purl)) and "arch=source" not in purl
    }


def normal(name: str) -> str:
    """A distribution's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def count(components: Sequence[Component]) -> str:
    """How many components of each kind, for people."""
    kinds = [name.partition("/")[0] for name in present(components)]
    names = {"deb": "Debian packages", "pypi": "Python packages", "cargo": "crates"}
    return ", ".join(f"{kinds.count(kind)} {name}" for kind, name in names.items() if kind in kinds)


if __name__ == "__main__":
    sys.exit(main())
