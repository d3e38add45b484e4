"""What `wsgiapp run` has to serve, from the manifests' text; pure."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from wsgiapp.names import SOURCE, config_variable
from wsgiapp.resources.server_args import health_host, server_arguments
from wsgiapp.types import App, Content, OnChange

from wsgiapp_cli.manifests import (
    Faults,
    Files,
    choose_app,
    read_app,
    read_documents,
    read_environment,
    read_folders,
)
from wsgiapp_cli.run.server import Launch
from wsgiapp_cli.run.watch import Snapshot

# What of a spec has a meaning without a cluster; the rest is named when the app starts.
SERVED_FIELDS = {"app", "source", "server", "env", "envFrom", "config", "healthCheck"}


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

    def versions(self, name: str) -> Path:
        """Return the folder with the versions of one content."""
        return self.root / "versions" / name


@dataclass(frozen=True)
class Folder:
    """One folder of the app: its files, and what their change asks for."""

    files: Files
    on_change: OnChange

    @property
    def is_pinned(self) -> bool:
        """Whether the server keeps to a version of it; else the app itself reads what changes."""
        return self.on_change is not OnChange.IGNORE


@dataclass(frozen=True)
class Plan:
    """Everything that one state of the files asks for."""

    app: App
    launch: Launch
    folders: Mapping[str, Folder]
    code: Snapshot  # of the code that is served from where it lies; empty with a `source`
    left_out: tuple[str, ...]


def make_plan(texts: Mapping[str, str], *, name: str | None, place: Place) -> Plan:
    """Return the plan for manifests given as file name → text; pure. The code's snapshot is left empty.

    Raises ManifestError or Invalid, each with the field, the value and the remedy.
    """
    documents = read_documents(texts)
    manifest = choose_app(documents, name=name)
    app = read_app(manifest)
    faults = Faults()
    with faults.gather():
        files = read_folders(documents, app)
    with faults.gather():
        environment = read_environment(documents, app)
    faults.refuse()
    folders = {
        content.name: Folder(files[content.name], content.on_change) for content in app.contents
    }
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
        server=replace(app.server, log_format="text"),  # a person reads it
        source=here(app.source) if app.source else None,
        config=tuple(here(content) for content in app.config),
        ingress=None,
    )
    metrics = [f"--metrics={place.metrics}"] if place.metrics else []
    # The app lives at / here, and is asked with the host that it is asked with in the cluster.
    path = local.health_check.path
    health = [f"--health-path={path}", f"--health-host={health_host(app)}"] if path else []
    return (
        *metrics,
        *server_arguments(local, bind=place.bind, run_dir=str(place.run_dir), further=health),
    )


class Step(enum.Enum):
    """What a new plan needs of the running server."""

    NOTHING = "nothing"
    RELOAD = "reload"
    RESTART = "restart"


def decide(serving: Plan, new: Plan) -> Step:
    """Return the least step that leads from the plan that is being served to `new`; pure."""
    changes = {
        folder.on_change
        for name, folder in new.folders.items()
        if name not in serving.folders or folder.files != serving.folders[name].files
    }
    if serving.launch != new.launch or OnChange.RESTART in changes:
        return Step.RESTART
    if OnChange.RELOAD in changes or serving.code != new.code:
        return Step.RELOAD
    return Step.NOTHING
