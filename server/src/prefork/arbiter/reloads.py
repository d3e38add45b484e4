"""Which clients wait for which reload, and how the last one ended. How a reload proceeds is in `machine`."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from re import fullmatch
from typing import Any

from prefork.arbiter.actions import FinishReload
from prefork.arbiter.control import ControlServer, Request
from prefork.arbiter.events import Event, ReloadRequested
from prefork.arbiter.fleet import Fleet, ReloadRequest
from prefork.arbiter.resources import Resources
from prefork.base.tracebacks import last_line

ID_LIMIT = 128


@dataclass(frozen=True)
class LastReload:
    """The newest reload that has ended."""

    id: str
    result: str
    message: str
    traceback: str


class Reloads:
    """Requests for reloads, from the control socket and by signal, and their answers."""

    def __init__(
        self, own: Resources, control: ControlServer, dispatch: Callable[[Event], None]
    ) -> None:
        self.log = own.log
        self.table = own.table
        self.control = control
        self.dispatch = dispatch
        self.waiting: dict[str, list[Request]] = {}
        self.last: LastReload | None = None
        self.hups = 0

    def on_hangup(self) -> None:
        """HUP: a reload without anyone waiting for the result."""
        self.hups += 1
        self.dispatch(ReloadRequested(ReloadRequest(f"hup-{self.hups}")))

    def on_request(self, request: Request, fleet: Fleet) -> None:
        """A reload under way with the same id is waited for, not begun again."""
        id = request.body.get("id")
        if not (isinstance(id, str) and 0 < len(id) <= ID_LIMIT):
            message = f"reload needs an id, a text of 1 to {ID_LIMIT} characters"
            self.control.answer(request, {"error": message})
            return
        content = request.body.get("content", {})
        if not is_content(content):
            self.control.answer(request, {"error": "content is to be digests by name"})
            return
        self.waiting.setdefault(id, []).append(request)
        under_way = (fleet.running, fleet.finishing, fleet.queued)
        if not any(reload is not None and reload.id == id for reload in under_way):
            self.dispatch(ReloadRequested(ReloadRequest(id, content)))

    def finish(self, reloaded: FinishReload, fleet: Fleet) -> None:
        """Count, log and answer a reload that has ended."""
        result = "succeeded" if reloaded.succeeded else "failed"
        message = last_line(reloaded.traceback)
        self.last = LastReload(reloaded.request.id, result, message, reloaded.traceback)
        self.table.add_header("reloads_ok" if reloaded.succeeded else "reloads_failed")
        (self.log.info if reloaded.succeeded else self.log.error)(
            f"reload {result}", id=reloaded.request.id, generation=fleet.serving_number(),
            **({"error": message} if message else {}),
        )  # fmt: skip
        self._answer(self.last, fleet)

    def supersede(self, request: ReloadRequest, fleet: Fleet) -> None:
        """Answer a reload that never began."""
        self._answer(LastReload(request.id, "failed", "superseded by a newer reload", ""), fleet)

    def _answer(self, ended: LastReload, fleet: Fleet) -> None:
        """Send the result of a reload to all clients that requested it."""
        reply = {**dataclasses.asdict(ended), "generation": fleet.serving_number()}
        for request in self.waiting.pop(ended.id, []):
            self.control.answer(request, reply)


def is_content(value: Any) -> bool:
    """Return whether a request's content is what it must be; pure."""
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(digest, str) and fullmatch("[0-9a-f]{64}", digest)
        for name, digest in value.items()
    )
