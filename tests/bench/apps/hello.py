"""The smallest honest WSGI app: one short text, its length given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_BODY = b"Hello, World!\n"
_HEADERS = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(_BODY)))]


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    start_response("200 OK", list(_HEADERS))
    return [_BODY]
