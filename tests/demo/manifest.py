"""The Flask example's manifest and the changed copies that the demo applies; pure but for reading."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "manifests" / "examples" / "flask.yaml"
APP = "flask"
HOST = "demo.example.com"  # the example's own is left to who follows docs/getting-started.md

_VERSION = 'VERSION = "1"'
_HOSTS = "hosts: [flask.example.com]"
_HEALTHY = 'return "ok\\n"'
_IMPORT = "from flask import Flask, Response, request"


def change_host(text: str) -> str:
    """Return the manifest with the demo's host name."""
    return _replace_once(text, _HOSTS, f"hosts: [{HOST}]")


def change_version(text: str, version: str) -> str:
    """Return the manifest with another version of the code."""
    return _replace_once(text, _VERSION, f'VERSION = "{version}"')


def break_import(text: str) -> str:
    """Return the manifest with code that cannot be imported, by a typing slip."""
    return _replace_once(text, _IMPORT, _IMPORT.replace("flask", "flsk"))


def break_health(text: str) -> str:
    """Return the manifest with code that starts, and whose health path then answers 500."""
    return _replace_once(text, _HEALTHY, 'raise RuntimeError("no database")')


def only_code(text: str) -> str:
    """Return the manifest's ConfigMap without the WsgiApp: what a code change applies."""
    return text.split("\n---\n")[0] + "\n"


def _replace_once(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise ValueError(f"{EXAMPLE.name} has {text.count(old)} lines {old!r}; the demo needs one")
    return text.replace(old, new)
