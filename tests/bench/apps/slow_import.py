"""For the reload: takes 3 s to import, as a large project does, and tells its version."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

VERSION = "1"
_BODY = b"Hello, World!\n"

time.sleep(3)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    headers = [("X-App-Version", VERSION), ("Content-Length", str(len(_BODY)))]
    start_response("200 OK", headers)
    return [_BODY]
