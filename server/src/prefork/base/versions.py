"""A content folder and its versions (docs/contracts.md, section 4).

Whoever pins a content keeps its versions next to each other, each in a folder named by the first digits
of its digest, and two links in the content's own folder: `..boot` to the version that a start of the
server loads, `..data` to the one that the serving generation has loaded. The folder's other entries lead
through `..data`. A folder without `..boot` is not pinned: it is its own only version.
"""

import os
from collections.abc import Mapping
from pathlib import Path

BOOT = "..boot"
SERVING = "..data"
DIGITS = 16


def is_pinned(folder: Path) -> bool:
    """Return whether a folder's versions are kept apart."""
    return (folder / BOOT).is_symlink()


def boot_version(folder: Path) -> Path:
    """Return the real path of the version that a start of the server loads."""
    return Path(os.path.realpath(folder / BOOT if is_pinned(folder) else folder))


def version_with(folder: Path, digest: str) -> Path:
    """Return the real path of the version that has this digest, whether it exists or not."""
    return boot_version(folder).with_name(digest[:DIGITS]) if is_pinned(folder) else folder


def follow(path: str, versions: Mapping[Path, Path]) -> str:
    """Return the version of the content folder that `path` is; any other path as it is.

    `versions` has the real path of each content's version, by the content's folder.
    """
    real = os.path.realpath(path) if path else path
    for folder, version in versions.items():
        if real == os.path.realpath(folder):
            return str(version)
    return path
