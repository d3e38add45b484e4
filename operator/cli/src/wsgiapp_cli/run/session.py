"""`wsgiapp run`: serve a WsgiApp manifest on this machine with prefork, no cluster needed.

A plan (pure, from the manifests' text) says what to run: prefork's arguments, the environment and
the folders of source and config. A change of the manifests gives a new plan; what differs decides
whether the server reloads, restarts, or goes on. A plan that cannot be made, or code that does not
start, is reported and harms nothing that serves.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import importlib.util
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from wsgiapp.resources.deployment import config_variable, server_arguments
from wsgiapp.schema import Invalid
from wsgiapp.types import SOURCE, App, Content, OnChange

from wsgiapp_cli.manifests import (
    Files,
    ManifestError,
    choose_app,
    read_app,
    read_documents,
    read_environment,
    read_folder,
    read_text,
)
from wsgiapp_cli.run.folder import AtomicFolder
from wsgiapp_cli.run.server import Launch, LocalServer, ServerExitedError, check
from wsgiapp_cli.run.watch import Sight, Watch

BACKLOG = 2048
BOOT_FAILED = 3  # exit code of a server whose first boot failed (docs/contracts.md, section 5)
# What of a spec has a meaning without a cluster; the rest is named when the app starts.
SERVED_FIELDS = {"app", "source", "server", "env", "envFrom", "config"}


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    files: tuple[Path, ...]
    app: str | None
    port: int
    metrics: str  # HOST:PORT of the agent; empty: none


# --- plan -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Where the pod's parts lie on this machine."""

    root: Path  # private: run directory and folders
    here: Path  # the folder `wsgiapp run` was called in, where code without a `source` is
    bind: str
    metrics: str
    environment: Mapping[str, str]  # of `wsgiapp run`; the manifest's own comes on top

    @property
    def run_dir(self) -> Path:
        return self.root / "run"

    def folder(self, name: str) -> Path:
        """Return the folder of one content: the source, or an entry of config."""
        return self.root / (SOURCE if name == SOURCE else f"config/{name}")


@dataclass(frozen=True)
class Folder:
    """One folder of the app: its files, and what their change asks for."""

    files: Files
    on_change: OnChange


@dataclass(frozen=True)
class Plan:
    """Everything that one state of the files asks for."""

    app: App
    launch: Launch
    folders: Mapping[str, Folder]
    code: Sight  # of the code that is served from where it lies; empty with a `source`
    left_out: tuple[str, ...]


def make_plan(texts: Mapping[str, str], *, name: str | None, place: Place) -> Plan:
    """Return the plan for manifests given as file name → text; pure. The code's sight is left empty.

    Raises ManifestError or Invalid, each with the field, the value and the remedy.
    """
    documents = read_documents(texts)
    manifest = choose_app(documents, name=name)
    app = read_app(manifest)
    folders = {
        content.name: Folder(read_folder(documents, app, content), content.on_change)
        for content in app.contents
    }
    environment = read_environment(documents, app)
    launch = Launch(
        arguments=server_command_line(app, place),
        environment={
            **place.environment,
            "PYTHONUNBUFFERED": "1",
            # A .pyc is matched by second and size: too coarse for code that changes under a server.
            "PYTHONDONTWRITEBYTECODE": "1",
            **{config_variable(c.name): str(place.folder(c.name)) for c in app.config},
            **environment.values,
        },
        directory=place.folder(SOURCE) if app.source else place.here,
    )
    left_out = sorted(manifest["spec"].keys() - SERVED_FIELDS)
    return Plan(
        app=app,
        launch=launch,
        folders=folders,
        code={},
        left_out=(*left_out, *(f"env {name}" for name in environment.left_out)),
    )


def server_command_line(app: App, place: Place) -> tuple[str, ...]:
    """Return prefork's arguments as in the pod, but for addresses and folders, and no ingress."""

    def here(content: Content) -> Content:
        return replace(content, mount_path=str(place.folder(content.name)))

    local = replace(
        app,
        source=here(app.source) if app.source else None,
        config=tuple(here(content) for content in app.config),
        ingress=None,
    )
    metrics = [f"--metrics={place.metrics}"] if place.metrics else []
    return (*metrics, *server_arguments(local, bind=place.bind, run_dir=str(place.run_dir)))


class Step(enum.Enum):
    """What a new plan needs of the running server."""

    NOTHING = "nothing"
    RELOAD = "reload"
    RESTART = "restart"


def decide(serving: Plan, new: Plan) -> Step:
    """Return the least step that leads from the plan that is being served to `new`; pure."""
    wishes = {
        folder.on_change
        for name, folder in new.folders.items()
        if name not in serving.folders or folder.files != serving.folders[name].files
    }
    if serving.launch != new.launch or OnChange.RESTART in wishes:
        return Step.RESTART
    if OnChange.RELOAD in wishes or serving.code != new.code:
        return Step.RELOAD
    return Step.NOTHING


# --- session --------------------------------------------------------------------------------------


class Session:
    """One `wsgiapp run`: the server that serves, and the plan it serves."""

    def __init__(self, request: Request, place: Place, listener: socket.socket) -> None:
        self._request = request
        self._place = place
        self._listener = listener
        self._folders: dict[str, AtomicFolder] = {}
        self._server: LocalServer | None = None

    async def serve(self) -> int:
        """Serve, and follow the manifests, until the server ends; return its exit code."""
        watch = Watch(self._request.files)
        plan = self._read_plan(watch)
        self._write(plan)
        try:
            await self._start(plan)
            self._announce(plan)
            while True:
                await self._wait_change(watch)
                plan = await self._follow(plan, watch)
        except ServerExitedError as ended:
            self._server = None
            say(explain_exit(ended.code))
            return ended.code if ended.code > 0 else 1

    def _read_plan(self, watch: Watch) -> Plan:
        texts = {str(path): read_text(path) for path in self._request.files}
        plan = make_plan(texts, name=self._request.app, place=self._place)
        watch.watch_code(None if plan.app.source else self._place.here)
        return replace(plan, code=watch.code)

    def _write(self, plan: Plan) -> None:
        for name, folder in plan.folders.items():
            if name not in self._folders:
                self._folders[name] = AtomicFolder(self._place.folder(name))
            self._folders[name].write(folder.files)

    async def _start(self, plan: Plan) -> None:
        self._server = await LocalServer.start(
            plan.launch, run_dir=self._place.run_dir, listener=self._listener
        )
        await self._server.wait_serving()

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
            say(f"{error}; what was there before goes on serving")
            return serving
        self._write(new)
        match decide(serving, new):
            case Step.RELOAD:
                return await self._reload(serving, new)
            case Step.RESTART:
                return await self._restart(serving, new)
            case Step.NOTHING:
                say("changed, but in nothing that a reload or restart would bring")
                return new

    async def _reload(self, serving: Plan, new: Plan) -> Plan:
        assert self._server is not None
        began = time.monotonic()
        try:
            outcome = await self._server.reload()
        except (OSError, EOFError):  # it went while it was asked
            raise ServerExitedError(await self._server.stop()) from None
        if outcome.succeeded:
            say(f"reloaded in {time.monotonic() - began:.1f} s, generation {outcome.generation}")
            return new
        say(f"reload failed: {outcome.message}; generation {outcome.generation} goes on serving")
        return serving

    async def _restart(self, serving: Plan, new: Plan) -> Plan:
        """Replace the server; meanwhile new connections wait at the listener, which stays open."""
        assert self._server is not None
        began = time.monotonic()
        if not await check(new.launch, listener=self._listener):
            say("the new settings do not start (see above); the old ones go on serving")
            return serving
        await self._server.stop()
        await self._start(new)
        say(f"restarted in {time.monotonic() - began:.1f} s with new settings")
        return new

    def _announce(self, plan: Plan) -> None:
        say(f"{plan.app.name} serves on http://127.0.0.1:{self._listener.getsockname()[1]}")
        if self._request.metrics:
            say(f"metrics on http://{self._request.metrics}/metrics")
        if plan.left_out:
            say(f"left out on this machine: {', '.join(plan.left_out)}")
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


def explain_exit(code: int) -> str:
    """Return what the end of the server means and what to do; the server has said why."""
    if code == BOOT_FAILED:
        return (
            "the app did not start: the traceback is above. A package that is missing goes into this"
            f" environment: {sys.executable} -m pip install PACKAGE"
        )
    how = (
        f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    )
    return f"the server {how}; its last lines are above"


# --- entry ----------------------------------------------------------------------------------------


def run(request: Request) -> int:
    """Serve until Ctrl-C (exit code 0) or until the server ends (its exit code).

    Raises ManifestError or Invalid when the manifests cannot be served.
    """
    if importlib.util.find_spec("prefork") is None:
        raise ManifestError(
            f"the server is not installed here; use {sys.executable} -m pip install 'prefork[agent]'"
        )
    if request.metrics:  # the agent would say so too, but much later
        host, port = parse_address(request.metrics)
        open_listener(host, port, option="--metrics").close()
    with (
        # It is inherited by the server and outlives its restarts: clients wait meanwhile.
        open_listener("127.0.0.1", request.port, option="--port") as listener,
        tempfile.TemporaryDirectory("", "wsgiapp-") as root,
    ):
        place = Place(
            root=Path(root),
            here=Path.cwd(),
            bind=f"fd://{listener.fileno()}",
            metrics=request.metrics,
            environment=dict(os.environ),
        )
        place.run_dir.mkdir(mode=0o700)
        return asyncio.run(run_until_stopped(Session(request, place, listener)))


def parse_address(text: str) -> tuple[str, int]:
    """Return (host, port) of HOST:PORT or [IPV6]:PORT; raises ManifestError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ManifestError(f"--metrics is {text!r}; use HOST:PORT, or '' for none")
    return host.strip("[]"), int(port)


async def run_until_stopped(session: Session) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP; the first stops softly, a second one at once."""
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            session.stop_now()
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    serving = asyncio.ensure_future(session.serve())
    stop_wish = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({serving, stop_wish}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        stop_wish.cancel()
        return serving.result()
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    await session.stop()
    return 0


def open_listener(host: str, port: int, *, option: str) -> socket.socket:
    """Return a listening socket; `option` is the one to change when the address is not to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:  # also: a host that is no address of this machine
        raise ManifestError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with {option}"
        ) from None
