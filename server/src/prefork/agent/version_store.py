"""The versions of the pod's contents, in a volume in memory that the app sees read-only.

    ROOT/source/3f9a1c0b2d4e5f60/app.py   a version, by the first digits of its digest
    ROOT/source/live/..boot               → the version that a start of the server loads
    ROOT/source/live/..data               → the version that the serving generation has loaded
    ROOT/source/live/app.py               → ..data/app.py; mounted at the content's mountPath

The links are absolute: the app sees `live` at another place, and ROOT at the same one. App and agent may
have different uids, so everything can be read by all. Knows nothing of when a version is needed.
"""

import errno
import json
import os
import shutil
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from prefork.base.digest import KEY, digest_directory, digest_files, with_key
from prefork.base.versions import BOOT, DIGITS, SERVING

LIVE = "live"
STATE = "agent.json"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class DoesNotFitError(Exception):
    """The volume has no room for a version; `str()` says what to do."""


class VersionStore:
    """Writes one volume; `root` is its path, the same in the agent and in the app."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def keep(self, name: str, files: Mapping[str, bytes], key: bytes = b"") -> str:
        """Make a version of a content's files unless it is there; return its digest, keyed by `key`.

        It appears as a whole. Raises DoesNotFitError.
        """
        digest = with_key(digest_files(files), key)
        folder = self._version(name, digest)
        if self.has(name, digest):
            return digest
        draft = folder.with_name(f"{folder.name}.new")
        try:
            shutil.rmtree(draft, ignore_errors=True)
            shutil.rmtree(folder, ignore_errors=True)
            make_folder(draft)
            for file, content in files.items():
                write_file(draft / file, content)
            if key:
                write_file(draft / KEY, key)
            draft.rename(folder)
        except OSError as error:
            shutil.rmtree(draft, ignore_errors=True)
            if error.errno not in FULL:
                raise
            raise DoesNotFitError(explain_full(self.root, name, files)) from None
        return digest

    def has(self, name: str, digest: str) -> bool:
        """Return whether this version is there, and whole."""
        try:
            return digest_directory(self._version(name, digest)) == digest
        except OSError:
            return False

    def link_boot(self, name: str, digest: str) -> None:
        """Let a start of the server load this version."""
        live = self._live(name)
        put_link(live / BOOT, self._version(name, digest))

    def link_serving(self, name: str, digest: str) -> None:
        """Let the content's mountPath lead to this version.

        As the kubelet does it: all files change at once with the link `..data`, and are read through it.
        """
        live, version = self._live(name), self._version(name, digest)
        files = {entry.name for entry in version.iterdir()} - {KEY}
        for file in files:
            if not (live / file).is_symlink():
                put_link(live / file, Path(SERVING, file))
        put_link(live / SERVING, version)
        for entry in live.iterdir():
            if entry.name not in files and entry.name not in (BOOT, SERVING):
                entry.unlink()

    def versions(self, name: str) -> set[str]:
        """Return the names of the versions that there are."""
        try:
            return {entry.name for entry in (self.root / name).iterdir() if entry.name != LIVE}
        except FileNotFoundError:
            return set()

    def remove_others(self, name: str, kept: Collection[str]) -> None:
        """Remove all versions but those of these digests."""
        for version in self.versions(name) - short(kept):
            shutil.rmtree(self.root / name / version, ignore_errors=True)

    def read_state(self) -> dict[str, Any]:
        """Return what was kept for an agent that is started anew; empty at first."""
        try:
            state = json.loads((self.root / STATE).read_bytes())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def write_state(self, state: Mapping[str, Any]) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        draft = self.root / f"{STATE}.new"
        draft.write_text(json.dumps(state))
        draft.replace(self.root / STATE)

    def _version(self, name: str, digest: str) -> Path:
        return self.root / name / digest[:DIGITS]

    def _live(self, name: str) -> Path:
        live = self.root / name / LIVE
        if not live.is_dir():
            make_folder(live)
        return live


def short(digests: Iterable[str]) -> set[str]:
    """Return the names of the versions of these digests."""
    return {digest[:DIGITS] for digest in digests}


def make_folder(path: Path) -> None:
    """Make a folder that all may read, whatever the umask; those above it too."""
    if not path.parent.is_dir():
        make_folder(path.parent)
    path.mkdir()
    path.chmod(0o755)


def write_file(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o644)


def put_link(path: Path, target: Path) -> None:
    """Make `path` a link to `target`, in one step where there is one already; one that leads there is left alone."""
    if path.is_symlink() and path.readlink() == target:
        return
    draft = path.with_name("..new")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(path)


def explain_full(root: Path, name: str, files: Mapping[str, bytes]) -> str:
    """Return why a version does not fit, and what to do."""
    volume = os.statvfs(root)
    size, room = sum(map(len, files.values())), volume.f_frsize * volume.f_blocks
    return (
        f"content {name} ({len(files)} files, {size} bytes) does not fit next to the versions in use: the "
        f"pod keeps all versions of its contents in {room // 2**20} MiB of memory; move large files into the "
        "image or a volume, and merge small ones (each takes at least 4 KiB)"
    )
