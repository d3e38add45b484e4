"""A content's folder and its versions, laid out as in a pod (docs/contracts.md, section 5).

    VERSIONS/3f9a1c0b2d4e5f60/app.py   a version, by the first digits of its digest
    FOLDER/..boot  → the version that a start of the server loads
    FOLDER/..data  → the version that serves
    FOLDER/app.py  → ..data/app.py

A generation of the server works in its version; who reads through the folder sees the files of one version
or of the other, never a mixture.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from wsgiapp.digest import digest_files

DIGITS = 16


class VersionedFolder:
    """The writer of one such folder; it is created empty, and readable by its owner only."""

    def __init__(self, path: Path, versions: Path) -> None:
        self.path = path
        self._versions = versions
        for folder in (path, versions):
            folder.mkdir(mode=0o700, parents=True)

    def write(self, files: Mapping[str, bytes]) -> None:
        """Make `files` (name → bytes; names without `/`) the folder's whole content, at once."""
        digest = self.keep(files)
        self.link_boot(digest)
        self.link_serving(digest)
        self.remove_others({digest})

    def keep(self, files: Mapping[str, bytes]) -> str:
        """Make a version of `files` unless it is there; return its digest."""
        digest = digest_files({name.encode(): content for name, content in files.items()})
        version = self._version(digest)
        if not version.is_dir():
            draft = version.with_name("new")
            draft.mkdir(mode=0o700)
            for name, content in files.items():
                (draft / name).write_bytes(content)
            draft.rename(version)
        return digest

    def link_boot(self, digest: str) -> None:
        """Let a start of the server load this version."""
        _link(self._version(digest), self.path / "..boot")

    def link_serving(self, digest: str) -> None:
        """Let the folder show this version."""
        names = {entry.name for entry in self._version(digest).iterdir()}
        for name in names:
            if not (self.path / name).is_symlink():
                _link(Path("..data", name), self.path / name)
        _link(self._version(digest), self.path / "..data")
        for entry in self.path.iterdir():
            if not entry.name.startswith("..") and entry.name not in names:
                entry.unlink()

    def remove_others(self, digests: Collection[str]) -> None:
        """Remove all versions but these."""
        kept = {digest[:DIGITS] for digest in digests}
        for version in self._versions.iterdir():
            if version.name not in kept:
                shutil.rmtree(version)

    def _version(self, digest: str) -> Path:
        return self._versions / digest[:DIGITS]


def _link(target: Path, path: Path) -> None:
    new = path.with_name("..new")
    new.symlink_to(target)
    new.replace(path)
