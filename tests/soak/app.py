"""The app of the soak: each answer can be checked by its client. `{version}` is filled in at each reload."""

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl

VERSION = "{version}"
BLOCK = bytes(range(256)) * 256  # 64 KiB


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    match environ["PATH_INFO"]:
        case "/slow":
            time.sleep(float(query["ms"]) / 1000)
            body = b"slow"
        case "/digest":
            digest, size = hashlib.sha256(), 0
            while part := environ["wsgi.input"].read(65536):
                digest.update(part)
                size += len(part)
            body = f"{size} {digest.hexdigest()}".encode()
        case "/stream":
            start_response("200 OK", [("X-App-Version", VERSION)])
            return stream(int(query["blocks"]))
        case "/file":
            start_response("200 OK", [("X-App-Version", VERSION)])
            return environ["wsgi.file_wrapper"](open_file(int(query["blocks"])), 65536)
        case _:
            body = b"hello"
    start_response("200 OK", [("Content-Length", str(len(body))), ("X-App-Version", VERSION)])
    return [body]


def stream(blocks: int) -> Iterator[bytes]:
    for _ in range(blocks):
        yield BLOCK


def open_file(blocks: int) -> Any:
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
    for _ in range(blocks):
        file.write(BLOCK)
    file.seek(0)
    return file
