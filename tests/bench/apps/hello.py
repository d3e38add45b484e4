"""The smallest honest WSGI app: one short text, its length given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response(
        "200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "14")]
    )
    return [b"Hello, World!\n"]
