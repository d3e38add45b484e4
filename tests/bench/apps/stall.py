"""For the stalled clients: `/` as hello, `/read` takes in the body, `/large` answers 512 KiB."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_SMALL = b"Hello, World!\n"
_LARGE = b"x" * (512 * 1024)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    if environ["PATH_INFO"] == "/read":
        length = int(environ["CONTENT_LENGTH"])
        environ["wsgi.input"].read(length)
    body = _LARGE if environ["PATH_INFO"] == "/large" else _SMALL
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
