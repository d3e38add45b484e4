"""For the stalled clients: `/` as hello, `/read` takes in the body; `/list`, `/generator`, `/file` answer 2 MB."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from typing import Any

_SMALL = b"Hello, World!\n"
_BLOCK = b"x" * 100_000
_BLOCKS = 20
_FILE = tempfile.NamedTemporaryFile(prefix="stall-")  # noqa: SIM115 - as long as the process
_FILE.write(_BLOCK * _BLOCKS)
_FILE.flush()


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    if path == "/read":
        environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    length = len(_BLOCK) * _BLOCKS if path in _WAYS else len(_SMALL)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(length))])
    return _WAYS[path](environ) if path in _WAYS else [_SMALL]


def _list(_environ: dict[str, Any]) -> Iterable[bytes]:
    return [_BLOCK * _BLOCKS]


def _generator(_environ: dict[str, Any]) -> Iterable[bytes]:
    for _ in range(_BLOCKS):
        yield _BLOCK


def _file(environ: dict[str, Any]) -> Iterable[bytes]:
    file = open(_FILE.name, "rb")  # noqa: SIM115 - the server closes it
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](file, len(_BLOCK))
    return wrapped


_WAYS: dict[str, Callable[[dict[str, Any]], Iterable[bytes]]] = {
    "/list": _list,
    "/generator": _generator,
    "/file": _file,
}
