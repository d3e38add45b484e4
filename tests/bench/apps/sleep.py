"""Waits 10 ms in each request, as for a database."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    time.sleep(0.01)
    start_response(
        "200 OK", [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", "14")]
    )
    return [b"Hello, World!\n"]
