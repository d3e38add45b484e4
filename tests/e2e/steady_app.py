"""Manifests of the app under load (`apps/steady.py`); pure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

PLAIN_IMAGE = "python:3.13-slim"
FLASK_IMAGE = "wsgiapp/example-flask:0.1.0"
NAME = "steady"
_SOURCE = Path(__file__).with_name("apps") / "steady.py"


def host_of(namespace: str) -> str:
    """Return the app's host name; one of its own for each namespace."""
    return f"{NAME}.{namespace}.example.com"


def build_code(release: str, *, own: str = "1") -> dict[str, Any]:
    """Return the ConfigMap with the app's code; `release` is the text of release.py.

    `own` is the version of what the app reads and imports while it serves.
    """
    data = {
        "main.py": _SOURCE.read_text(),
        "release.py": release,
        "late.py": f"VERSION = 'late {own}'\n",
        "page.txt": f"page {own}",
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{NAME}-code"},
        "data": data,
    }


def build_release(version: str) -> str:
    """Return a good release.py."""
    return f"VERSION = {version!r}\n"


def build_secret(version: str) -> dict[str, Any]:
    """Return the Secret that the app reads when it is imported."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": f"{NAME}-settings"},
        "stringData": {"version": version},
    }


def build_app(
    namespace: str,
    *,
    image: str = PLAIN_IMAGE,
    replicas: int = 2,
    import_s: float = 0,
    settings: bool = False,
    **spec: object,
) -> dict[str, Any]:
    """Return the WsgiApp; further fields of the spec by keyword."""
    config = {
        "name": "settings",
        "secret": {"name": f"{NAME}-settings"},
        "mountPath": "/etc/steady",
        "onChange": "Reload",
    }
    return {
        "apiVersion": "wsgi.dev/v1alpha1",
        "kind": "WsgiApp",
        "metadata": {"name": NAME},
        "spec": {
            "image": image,
            "app": "main:application",
            "source": {"configMap": {"name": f"{NAME}-code"}, "mountPath": "/app"},
            "replicas": replicas,
            "server": {"workers": 2, "threads": 2, "accessLog": "None"},
            "env": [{"name": "IMPORT_SECONDS", "value": str(import_s)}],
            "config": [config] if settings else [],
            "healthCheck": {"path": "/healthz"},
            "resources": {
                "requests": {"cpu": "20m", "memory": "64Mi"},
                "limits": {"memory": "256Mi"},
            },
            "rollout": {"minReadySeconds": 2},
            "ingress": {"className": "nginx", "hosts": [host_of(namespace)]},
        }
        | spec,
    }
