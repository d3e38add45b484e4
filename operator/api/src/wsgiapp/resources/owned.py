"""What all owned resources have in common: name, labels, owner."""

from wsgiapp.names import (
    API_VERSION,
    APP_LABEL,
    KIND,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    NAME_LABEL,
)
from wsgiapp.types import App, Manifest


def selector(app: App) -> dict[str, str]:
    """Return the labels that select the app's pods."""
    return {APP_LABEL: app.name}


def labels(app: App) -> dict[str, str]:
    return {NAME_LABEL: app.name, MANAGED_BY_LABEL: MANAGED_BY, **selector(app)}


def build_owned(app: App, api_version: str, kind: str, **content: object) -> Manifest:
    """Return an object named like the app and owned by it, so that it goes when the app goes.

    The owner does not block: no finalizer is needed, and foreground deletion need not wait.
    """
    owner = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": app.name,
        "uid": app.uid,
        "controller": True,
    }
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {
            "name": app.name,
            "namespace": app.namespace,
            "labels": labels(app),
            "ownerReferences": [owner],
        },
        **content,
    }
