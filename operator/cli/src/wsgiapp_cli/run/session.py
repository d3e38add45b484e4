"""`wsgiapp run`: serve a WsgiApp manifest on this machine with prefork, no cluster needed.

A plan (pure, from the manifests' text) says what to run: prefork's arguments, the environment and
the folders of source and config. A change of the manifests gives a new plan; what differs decides
whether the server reloads, restarts, or goes on. A plan that cannot be made, or code that does not
start, is reported and harms nothing that serves.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from wsgiapp.schema import Invalid

from wsgiapp_cli.manifests import ManifestError, read_texts
from wsgiapp_cli.run.folder import VersionedFolder
from wsgiapp_cli.run.plan import Place, Plan, Step, decide, make_plan
from wsgiapp_cli.run.server import LocalServer, ServerExitedError, check
from wsgiapp_cli.run.watch import Watch

BOOT_FAILED = 3  # exit code of a server whose first boot failed (docs/contracts.md, section 5)


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    files: tuple[Path, ...]
    app: str | None
    port: int
    metrics: str  # HOST:PORT of the agent; empty: none


class Session:
    """One `wsgiapp run`: the server that serves, and the plan it serves."""

    def __init__(self, request: Request, place: Place, listener: socket.socket) -> None:
        self._request = request
        self._place = place
        self._listener = listener
        self._folders: dict[str, VersionedFolder] = {}
        self._server: LocalServer | None = None
        self._serving: dict[str, str] = {}  # digests of the pinned contents that serve

    async def serve(self) -> int:
        """Serve, and follow the manifests, until the server ends; return its exit code."""
        watch = Watch(self._request.files)
        plan = self._read_plan(watch)
        content = self._write(plan)
        try:
            await self._start(plan, content)
            self._announce(plan)
            while True:
                await self._wait_change(watch)
                plan = await self._follow(plan, watch)
        except ServerExitedError as ended:
            self._server = None
            say(explain_exit(ended.code, None if plan.app.source else self._place.here))
            return ended.code if ended.code > 0 else 1

    def _read_plan(self, watch: Watch) -> Plan:
        plan = make_plan(read_texts(self._request.files), name=self._request.app, place=self._place)
        watch.watch_code(None if plan.app.source else self._place.here)
        return replace(plan, code=watch.code)

    def _write(self, plan: Plan) -> dict[str, str]:
        """Write what the plan serves; return the digests of the pinned contents, by name.

        These are kept next to the versions that serve; what the app itself reads changes at once.
        """
        content = {}
        for name, folder in plan.folders.items():
            if name not in self._folders:
                place = self._place
                self._folders[name] = VersionedFolder(place.folder(name), place.versions(name))
            if folder.is_pinned:
                content[name] = self._folders[name].keep(folder.files)
            else:
                self._folders[name].write(folder.files)
        return content

    def _link_boot(self, content: Mapping[str, str]) -> None:
        for name, digest in content.items():
            self._folders[name].link_boot(digest)

    async def _settle(self, content: Mapping[str, str]) -> None:
        """Let paths and the next start follow what serves, and remove what no generation has loaded."""
        assert self._server is not None
        self._serving = dict(content)
        self._link_boot(content)
        in_use = await self._server.find_versions_in_use()
        for name, digest in content.items():
            self._folders[name].link_serving(digest)
            self._folders[name].remove_others({digest, *in_use.get(name, ())})

    async def _start(self, plan: Plan, content: Mapping[str, str]) -> None:
        self._link_boot(content)
        for name, digest in content.items():
            self._folders[name].link_serving(digest)
        self._server = await LocalServer.start(
            plan.launch, run_dir=self._place.run_dir, listener=self._listener
        )
        await self._server.wait_serving()
        await self._settle(content)

    async def _wait_change(self, watch: Watch) -> None:
        assert self._server is not None
        changed = asyncio.ensure_future(watch.changed())
        ended = asyncio.ensure_future(self._server.wait_exit())
        try:
            await asyncio.wait({changed, ended}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                raise ServerExitedError(ended.result())
        finally:
            changed.cancel()
            ended.cancel()

    async def _follow(self, serving: Plan, watch: Watch) -> Plan:
        """Bring what the manifests say now; return the plan that serves afterwards."""
        try:
            new = self._read_plan(watch)
        except (ManifestError, Invalid) as error:
            for line in error.lines:
                say(line)
            say("the version before keeps serving")
            return serving
        content = self._write(new)
        match decide(serving, new):
            case Step.RELOAD:
                return await self._reload(serving, new, content)
            case Step.RESTART:
                return await self._restart(serving, new, content)
            case Step.NOTHING:
                say("changed, but in nothing that a reload or restart would bring")
                return new

    async def _reload(self, serving: Plan, new: Plan, content: Mapping[str, str]) -> Plan:
        assert self._server is not None
        began = time.monotonic()
        try:
            outcome = await self._server.reload(content)
            await self._settle(content if outcome.succeeded else self._serving)
        except (OSError, EOFError):  # it went while it was asked
            raise ServerExitedError(await self._server.stop()) from None
        if outcome.succeeded:
            say(f"reloaded in {time.monotonic() - began:.1f} s, generation {outcome.generation}")
            return new
        say(f"reload failed: {outcome.message}; generation {outcome.generation} keeps serving")
        return serving

    async def _restart(self, serving: Plan, new: Plan, content: Mapping[str, str]) -> Plan:
        """Replace the server; meanwhile new connections wait at the listener, which stays open."""
        assert self._server is not None
        began = time.monotonic()
        self._link_boot(content)
        if not await check(new.launch, listener=self._listener):
            self._link_boot(self._serving)
            say("the new settings do not start (see above); the old ones go on serving")
            return serving
        await self._server.stop()
        await self._start(new, content)
        say(f"restarted in {time.monotonic() - began:.1f} s with new settings")
        return new

    def _announce(self, plan: Plan) -> None:
        say(f"serving {plan.app.name} on http://127.0.0.1:{self._listener.getsockname()[1]}")
        if self._request.metrics:
            say(f"metrics on http://{self._request.metrics}/metrics")
        if plan.left_out:
            say(f"ignored here, cluster only: {', '.join(plan.left_out)}")
        say(f"packages come from {sys.prefix}")
        files = ", ".join(str(path) for path in self._request.files)
        code = "" if plan.app.source else f" and *.py below {self._place.here}"
        say(f"watching {files}{code}; Ctrl-C stops")

    async def stop(self) -> None:
        """Let the server finish what is in flight, and end."""
        if self._server is not None:
            say("stopping")
            await self._server.stop()

    def stop_now(self) -> None:
        """End the server without waiting for what is in flight."""
        if self._server is not None:
            self._server.stop_now()


# --- words ------------------------------------------------------------------------------


def say(text: str) -> None:
    print(f"wsgiapp: {text}", flush=True)


def explain_exit(code: int, folder: Path | None) -> str:
    """Return what the end of the server means and what to do; the server has said why.

    `folder` is where code was looked for; None: it comes from the manifest.
    """
    if code == BOOT_FAILED:
        place = (
            f" Modules are looked for in {folder}: call wsgiapp where your app is."
            if folder
            else ""
        )
        return (
            f"the app did not start; see the error above.{place} If a package is missing, install it into this"
            f" environment: {sys.executable} -m pip install PACKAGE"
        )
    how = (
        f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    )
    return f"the server {how}; its last lines are above"
