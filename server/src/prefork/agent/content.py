"""Whether the content that a reload request names is there for the server: as it is mounted, or pinned.

Outside a pod the server reads the folders themselves (`MountedContents`). In a pod the agent pins them
(`PinnedContents`, docs/decisions/0017): the kubelet refreshes mounted files under all pods at once, so it
copies each version into a folder of its own, decides which one a start of the server loads, and keeps the
mount path on the version that serves.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from prefork.agent.content_key import ContentKey
from prefork.agent.control import ControlClient, Rejected, Unreachable
from prefork.agent.last_good import Copy, choose_boot, read_last_good
from prefork.agent.table import TableFile
from prefork.agent.version_store import DoesNotFitError, VersionStore, short
from prefork.base.digest import (
    LAST_GOOD,
    data_version,
    digest_directory,
    digest_files,
    read_directory,
    with_key,
)
from prefork.base.log import Log
from prefork.errors import Exit, StartupError

PERIOD_S = 0.1
CLEAN_UP_PERIOD_S = 1.0
# A server that ends so soon after a reload may have ended of what it has loaded.
BLAME_S = 120.0
# A pod may start without its ConfigMaps, as the last good copies are what it boots: their mounts are empty then.
EMPTY = digest_files({})


class ChangedError(Exception):
    """A mount was changed while it was read."""


class AbsentError(Exception):
    """A content is neither mounted nor kept; `str()` says what to do."""


class Contents(Protocol):
    """What a reload request needs of the contents."""

    def find_missing(self, wanted: Mapping[str, str]) -> str:
        """Return why the server cannot load this content yet; empty when it can. Raises DoesNotFitError."""

    def question(self, wanted: Mapping[str, str]) -> dict[str, Any]:
        """Return what to add to the server's reload, so that it loads exactly this content."""

    def find_failure(self, request_id: str) -> str:
        """Return why the server is not to be asked this again; empty when it may be."""

    def note_try(self, request_id: str) -> None:
        """Remember that the server is asked this now."""

    async def follow_reload(self) -> None:
        """Let what a reload has brought be seen at the mount paths, before anyone hears that it has succeeded."""

    def note_end(self, request_id: str, failure: str) -> None:
        """Remember how it ended; what it named is needed only where the server has loaded it."""


class MountedContents:
    """Folders that the server reads itself."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.folders = folders

    def find_missing(self, wanted: Mapping[str, str]) -> str:
        for name, digest in wanted.items():
            if name not in self.folders:
                return explain_unmounted(name)
            try:
                found = digest_directory(self.folders[name])
            except OSError as error:
                return f"content {name} cannot be read: {error.strerror}"
            if found != digest:
                return explain_late(name, found, digest)
        return ""

    def question(self, wanted: Mapping[str, str]) -> dict[str, Any]:
        return {}

    def find_failure(self, request_id: str) -> str:
        return ""  # a server that is started anew has loaded the newest content

    def note_try(self, request_id: str) -> None:
        """Nothing is kept here."""

    async def follow_reload(self) -> None:
        """The server reads the folders themselves."""

    def note_end(self, request_id: str, failure: str) -> None:
        """Nothing is kept here."""


class PinnedContents:
    """The pod's contents by version. `prepare`, then `run`.

    `mounted` and `copies` are the folders of the contents and of their last good copies, as the kubelet
    refreshes them; `revision` names what the copies have to be good for; `key` keys the digests of contents
    that are Secrets.
    """

    def __init__(
        self,
        store: VersionStore,
        mounted: Mapping[str, Path],
        copies: Mapping[str, Path],
        revision: str,
        key: ContentKey,
        control: ControlClient,
        table: TableFile,
        log: Log,
    ) -> None:
        self.store = store
        self.mounted = mounted
        self.copies = copies
        self.revision = revision
        self.key = key
        self.control = control
        self.table = table
        self.log = log
        state = store.read_state()
        self.served: dict[str, str] = state.get("served", {})
        self.tried: dict[str, Any] = state.get("tried", {})
        self.boot: dict[str, str] = {}
        self.loaded = dict(self.served)  # by the server's serving generation, or its first
        self.wanted: dict[str, str] = {}  # by the reload request under way
        self.seen: list[str] = []  # the state of the mounts that `boot` follows from
        self.followed = (0, 0)
        self.following = (
            asyncio.Lock()
        )  # an older answer of the server must not come after a newer one
        self.clean_up_at = 0.0

    def prepare(self) -> None:
        """Pin what a start of the server loads: before this, the app's container must not start.

        Raises StartupError when the contents are not there, cannot be read, or do not fit.
        """
        try:
            while not self.boot and self.mounted:
                with contextlib.suppress(ChangedError):
                    self.choose_boot()
        except (AbsentError, DoesNotFitError) as error:
            raise StartupError(str(error), Exit.ENVIRONMENT) from None
        except OSError as error:
            why = f"{error.filename}: {error.strerror}"
            raise StartupError(f"contents cannot be read: {why}", Exit.ENVIRONMENT) from None

    async def run(self) -> None:
        """Follow the mounts and the server."""
        while True:
            await asyncio.sleep(PERIOD_S)
            if self.look() != self.seen:
                self.refresh()
            current = self.current_generation()
            if not current[0]:
                # The server has ended: what is to be seen at its mount paths is what it starts with.
                self.followed = current
                self.link_loaded(self.boot)
            elif current != self.followed or self.is_clean_up_due():
                await self.follow_server()

    # -- what a reload request needs -----------------------------------------------------------

    def find_missing(self, wanted: Mapping[str, str]) -> str:
        self.wanted = dict(wanted)
        for name, digest in wanted.items():
            if name not in self.mounted:
                return explain_unmounted(name)
            if self.store.has(name, digest):
                continue
            try:
                files = read_directory(self.mounted[name])
            except OSError as error:
                return f"content {name} cannot be read: {error.strerror}"
            key = self.key.of(name)
            if (found := with_key(digest_files(files), key)) != digest:
                return explain_late(name, found, digest)
            try:
                self.store.keep(name, files, key)
            except OSError as error:
                # Tried again: the volume may be read-only for a moment, or another agent be at work on it.
                return f"content {name} cannot be pinned: {error.filename}: {error.strerror}"
        return ""

    def question(self, wanted: Mapping[str, str]) -> dict[str, Any]:
        return {"content": dict(wanted)}

    def find_failure(self, request_id: str) -> str:
        if self.tried.get("id") != request_id:
            return ""
        if failure := self.tried.get("failure"):
            return str(failure)
        if self.tried.get("is_second") and self.has_ended_soon():
            return (
                "the server ended twice during or right after the reload, and has started with older content; if "
                "something else than the content is the reason, add an annotation to the ConfigMap or Secret, and the "
                "same content is tried again"
            )
        return ""

    def has_ended_soon(self) -> bool:
        """Return whether the server that was asked last ended during the reload, or soon after it.

        Not always the content has ended it: the kubelet stops servers, a node shuts down, a neighbour takes all memory.
        So the content is loaded once more, and what ends its server twice is not loaded again.
        """
        ended_at = self.tried.get("ended_at")
        is_another_run = self.tried.get("boot_id") != self.table.boot_id()
        return is_another_run and (ended_at is None or time.monotonic() - ended_at < BLAME_S)

    def note_try(self, request_id: str) -> None:
        is_second = self.tried.get("id") == request_id and self.has_ended_soon()
        self.tried = {"id": request_id, "boot_id": self.table.boot_id(), "is_second": is_second}
        self.save()

    async def follow_reload(self) -> None:
        await self.follow_server()

    def note_end(self, request_id: str, failure: str) -> None:
        self.wanted = {}
        before = self.tried if self.tried.get("id") == request_id else {}
        boot_id = self.tried.get("boot_id", 0)
        self.tried = {
            "id": request_id, "boot_id": boot_id, "failure": failure, "ended_at": time.monotonic(),
            "is_second": bool(before.get("is_second")),
        }  # fmt: skip
        self.save()

    # -- what a start of the server loads ------------------------------------------------------

    def look(self) -> list[str]:
        mounts = (*self.mounted.values(), *self.copies.values())
        return [*(data_version(path) for path in mounts), self.key.version()]

    def refresh(self) -> None:
        """Choose again; what is not to be had now leaves the choice as it was."""
        try:
            self.choose_boot()
        except ChangedError:
            return  # looked at again
        except (AbsentError, DoesNotFitError, OSError) as error:
            self.seen = self.look()
            self.log.error("new content not pinned, what is pinned stays", why=error)

    def choose_boot(self) -> None:
        """Pin and link what a start of the server loads, by what is mounted now."""
        seen = self.look()
        digests = {
            name: with_key(digest_directory(path), self.key.of(name))
            for name, path in self.mounted.items()
        }
        copies = {name: read_copy(path) for name, path in self.copies.items()}
        good = read_last_good(copies, self.revision)
        served = {n: digest for n, digest in self.served.items() if self.store.has(n, digest)}
        there = {n: digest for n, digest in digests.items() if not self.is_absent(n, digest)}
        boot = choose_boot(good, served, there, self.copies)
        if absent := self.mounted.keys() - boot.keys():
            raise AbsentError(explain_absent(min(absent)))
        for name, digest in boot.items():
            self.fetch(name, digest, is_mounted=digest == digests[name])
        for name, digest in boot.items():
            self.store.link_boot(name, digest)
            if name not in self.loaded:
                self.store.link_serving(name, digest)
        if boot != self.boot:
            self.log.info("content for the next start of the server", is_last_good=good is not None,
                          **{name: digest[:12] for name, digest in boot.items()})  # fmt: skip
        self.boot, self.seen = boot, seen

    def is_absent(self, name: str, digest: str) -> bool:
        """Return whether the mount of a content that has copies is empty: its ConfigMap does not exist."""
        return name in self.copies and digest == EMPTY

    def fetch(self, name: str, digest: str, *, is_mounted: bool) -> None:
        """Have a version in the store. Raises ChangedError where the mount has another one meanwhile."""
        if self.store.has(name, digest):
            return
        folder = self.mounted[name] if is_mounted else self.copies[name]
        if self.store.keep(name, read_directory(folder), self.key.of(name)) != digest:
            raise ChangedError

    # -- what the server has loaded ------------------------------------------------------------

    def current_generation(self) -> tuple[int, int]:
        """Return what names the server's run and its serving generation; zeros where there is none."""
        table = self.table.get()
        return (table.header("boot_id"), table.header("generation")) if table else (0, 0)

    async def follow_server(self) -> None:
        """Keep the mount path on what serves, and remove what no generation needs."""
        async with self.following:
            current = self.current_generation()
            self.clean_up_at = time.monotonic() + CLEAN_UP_PERIOD_S
            try:
                status = await self.control.ask({"op": "status"})
                generations = [dict(one["content"]) for one in status["generations"]]
                serving = dict(status["content"]) if status["generation"] else {}
            except (Unreachable, Rejected, KeyError, TypeError, ValueError):
                return
            if not generations:
                return
            self.link_loaded(serving or generations[0])
            if serving and serving != self.served:
                self.served = serving
                self.save()
                self.refresh()
            if current[1] or not serving:
                self.followed = current
            self.clean_up(generations)

    def link_loaded(self, loaded: Mapping[str, str]) -> None:
        for name, digest in loaded.items():
            if self.loaded.get(name) != digest and self.store.has(name, digest):
                self.store.link_serving(name, digest)
        self.loaded = dict(loaded)

    def is_clean_up_due(self) -> bool:
        """Return whether there are versions that may be of no use any more."""
        if time.monotonic() < self.clean_up_at:
            return False
        return any(self.store.versions(name) - short(self.needed(name)) for name in self.mounted)

    def needed(self, name: str) -> set[str]:
        needs = (self.boot, self.loaded, self.served, self.wanted)
        return {digests[name] for digests in needs if name in digests}

    def clean_up(self, generations: list[dict[str, str]]) -> None:
        for name in self.mounted:
            in_use = {content[name] for content in generations if name in content}
            self.store.remove_others(name, self.needed(name) | in_use)

    def save(self) -> None:
        state = self.store.read_state()
        self.store.write_state({**state, "served": self.served, "tried": self.tried})


def read_copy(folder: Path) -> Copy:
    """Return digest and mark of a last good copy; an empty mark where there is no copy yet."""
    try:
        return Copy(digest_directory(folder), (folder / LAST_GOOD).read_bytes())
    except OSError:
        return Copy("", b"")


def explain_absent(name: str) -> str:
    return f"content {name} is not there: its ConfigMap does not exist, or is empty; create it"


def explain_unmounted(name: str) -> str:
    return f"content {name} is not mounted in the agent"


def explain_late(name: str, found: str, wanted: str) -> str:
    return f"content {name} has not arrived: its digest is {found[:12]}, {wanted[:12]} is requested"
