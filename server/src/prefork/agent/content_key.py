"""The key of the digests by which contents that are Secrets are named (docs/decisions/0025).

The operator makes it, one for each app, and knows the same digests by it. Without it, where an operator may
not read Secrets, the agent makes one for its pod: the digests say nothing then but what is the same here.
"""

import os
from collections.abc import Collection
from pathlib import Path

from prefork.agent.version_store import VersionStore
from prefork.base.digest import data_version

BYTES = 32


class ContentKey:
    """Gives the key of each content; empty for those that are not `secret`."""

    def __init__(self, secret: Collection[str], file: Path | None, store: VersionStore) -> None:
        self._secret = frozenset(secret)
        self._file = file
        self._store = store
        self._key = b""

    def of(self, name: str) -> bytes:
        return self._read() if name in self._secret else b""

    def version(self) -> str:
        """Return what changes when the kubelet brings another key."""
        return data_version(self._file.parent) if self._file is not None else ""

    def _read(self) -> bytes:
        """Return the key as the kubelet has brought it, or else the last one."""
        try:
            found = self._file.read_bytes() if self._file is not None else b""
        except OSError:
            found = b""
        self._key = found or self._key or self._make()
        return self._key

    def _make(self) -> bytes:
        """Return the pod's own key; kept, so that an agent that is started anew names things alike."""
        state = self._store.read_state()
        try:
            return bytes.fromhex(state["key"])
        except (KeyError, TypeError, ValueError):
            key = os.urandom(BYTES)
            self._store.write_state({**state, "key": key.hex()})
            return key
