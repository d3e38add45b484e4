"""Carries out the reload request of the Pod annotation (docs/contracts.md, section 5).

The request names content by digest. The kubelet brings annotation and mounted files in no promised
order, so the files are waited for; then the server is asked to reload under the request's id.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefork.agent.content import Contents
from prefork.agent.control import ControlClient, Rejected, Unreachable
from prefork.agent.table import TableFile
from prefork.agent.version_store import DoesNotFitError
from prefork.base.log import Log
from prefork.base.messages import STOPPING

PERIOD_S = 0.1


@dataclass(frozen=True)
class ReloadRequest:
    """A parsed annotation."""

    id: str
    content: Mapping[str, str]


@dataclass(frozen=True)
class Progress:
    """How far the newest request has got."""

    id: str
    result: str  # pending, running, succeeded, failed
    message: str = ""


def parse_reload_request(text: str) -> ReloadRequest | None:
    """Return the request, None when the annotation is absent; pure. Raises ValueError."""
    if not text.strip():
        return None
    match json.loads(text):
        case {"id": str(id), "content": dict(content)} if id and all(
            isinstance(name, str) and isinstance(digest, str) for name, digest in content.items()
        ):
            return ReloadRequest(id, content)
    raise ValueError('it is not {"id": …, "content": {NAME: DIGEST}}')


@dataclass(frozen=True)
class ServerStatus:
    """What a reload request has to know of the server's status."""

    is_booting: bool
    content: Mapping[str, Any]
    last: Progress | None  # how the last reload ended; None: there was none
    is_reloading: bool = False  # what serves may be another content in a moment


def parse_status(answer: Mapping[str, Any]) -> ServerStatus:
    """Return the status as the control socket has it; pure. Raises Rejected."""
    is_reloading = bool(answer.get("reloading"))
    match answer:
        case {"state": str(state), "content": dict(content), "reload": None}:
            return ServerStatus(state == "booting", content, None, is_reloading)
        case {"state": str(state), "content": dict(content), "reload": dict(last)}:
            return ServerStatus(state == "booting", content, parse_result(last), is_reloading)
    raise Rejected(f"the server's status cannot be read: {str(answer)[:80]}")


def parse_result(answer: Mapping[str, Any]) -> Progress:
    """Return how a reload ended; pure. Raises Rejected."""
    match answer:
        case {"id": str(id), "result": "succeeded" | "failed" as result, "message": str(message)}:
            return Progress(id, result, message)
    raise Rejected(f"the server's answer to a reload cannot be read: {str(answer)[:80]}")


def leave_to_next(ended: Progress) -> Progress:
    """Return how a reload ended. Raises Unreachable where a stop of the server ended it: the next one is asked."""
    if ended.result == "failed" and ended.message == STOPPING:
        raise Unreachable(STOPPING)
    return ended


class ReloadWatcher:
    """Follows the file; one request at a time, the newest."""

    def __init__(
        self,
        path: Path,
        contents: Contents,
        control: ControlClient,
        table: TableFile,
        log: Log,
    ) -> None:
        self.path = path
        self.contents = contents
        self.control = control
        self.table = table
        self.log = log
        self.progress: Progress | None = None

    def report(self) -> dict[str, str] | None:
        """Return the newest request's progress as /status shows it."""
        if self.progress is None:
            return None
        return {
            "id": self.progress.id,
            "result": self.progress.result,
            "message": self.progress.message,
        }

    async def run(self) -> None:
        """Begin a task for each new request, and again for each new run of the server.

        A server that has started anew knows no reload; what it loaded decides then.
        """
        seen: tuple[str, int] = ("", 0)
        task: asyncio.Task[None] | None = None
        while True:
            text = self.read()
            current = (text, self.table.boot_id() or seen[1])
            if current != seen:
                seen = current
                if task is not None:
                    task.cancel()
                request = self.parse(text)
                task = asyncio.create_task(self.carry_out(request)) if request is not None else None
            if task is not None and task.done() and not task.cancelled():
                task.result()  # a bug's exception must not get lost
            await asyncio.sleep(PERIOD_S)

    def read(self) -> str:
        try:
            return self.path.read_text()
        except OSError:
            return ""

    def parse(self, text: str) -> ReloadRequest | None:
        try:
            return parse_reload_request(text)
        except ValueError as error:
            self.log.error("reload request is not valid", file=self.path, why=error)
            return None

    async def carry_out(self, request: ReloadRequest) -> None:
        """Bring the request to its end: succeeded or failed."""
        self.set_progress(request, "pending", "")
        try:
            await self.wait_content(request)
            ended = await self.reload(request)
        except (Rejected, DoesNotFitError) as error:
            ended = Progress(request.id, "failed", str(error))
        if ended.result == "succeeded":
            await self.contents.follow_reload()
        self.contents.note_end(request.id, ended.message if ended.result == "failed" else "")
        self.set_progress(request, ended.result, ended.message)
        self.log.info("reload request done", id=request.id, result=ended.result)

    async def wait_content(self, request: ReloadRequest) -> None:
        while why := self.contents.find_missing(request.content):
            self.set_progress(request, "pending", why)
            await asyncio.sleep(PERIOD_S)

    async def reload(self, request: ReloadRequest) -> Progress:
        """Return how the reload ended, however often the server was started meanwhile."""
        while True:
            try:
                return await self.reload_once(request)
            except Unreachable as error:
                self.set_progress(request, "pending", str(error))
                await asyncio.sleep(PERIOD_S)

    async def reload_once(self, request: ReloadRequest) -> Progress:
        """Ask the server, unless it has loaded that already; return how it ended."""
        while (status := await self.ask_status()).is_booting:
            self.set_progress(request, "pending", "the server is booting")
            await asyncio.sleep(PERIOD_S)
        if status.last is not None and status.last.id == request.id:
            return leave_to_next(status.last)
        loaded = {name: status.content.get(name) for name in request.content}
        is_first = status.last is None and not status.is_reloading
        if is_first and loaded == dict(request.content):
            return Progress(request.id, "succeeded")
        if why := self.contents.find_failure(request.id):
            return Progress(request.id, "failed", why)
        self.set_progress(request, "running", "")
        self.contents.note_try(request.id)
        question = {"op": "reload", "id": request.id, **self.contents.question(request.content)}
        return leave_to_next(parse_result(await self.control.ask(question)))

    async def ask_status(self) -> ServerStatus:
        return parse_status(await self.control.ask({"op": "status"}))

    def set_progress(self, request: ReloadRequest, result: str, message: str) -> None:
        self.progress = Progress(request.id, result, message)
