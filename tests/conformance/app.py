"""The application under test: tells what it was given, and misbehaves on request.

What a well-behaved app does runs under `wsgiref.validate`, which raises where the server breaks
PEP 3333; what a server has to refuse or repair does not. Runs in the server's process: standard
library only.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from wsgiref.validate import validator

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

TEXT = [("Content-Type", "text/plain")]

SHOWN = (
    "REQUEST_METHOD",
    "SCRIPT_NAME",
    "PATH_INFO",
    "QUERY_STRING",
    "CONTENT_TYPE",
    "CONTENT_LENGTH",
    "SERVER_PROTOCOL",
    "REMOTE_ADDR",
    "wsgi.url_scheme",
    "wsgi.version",
    "wsgi.multithread",
    "wsgi.multiprocess",
    "wsgi.run_once",
    "wsgi.input_terminated",
)


def describe(environ: WSGIEnvironment, body: bytes) -> bytes:
    """Return what the app saw as JSON; bytes are shown as latin-1."""
    seen = {name: environ[name] for name in SHOWN if name in environ}
    seen |= {name: value for name, value in environ.items() if name.startswith("HTTP_")}
    return json.dumps(seen | {"body": body.decode("latin-1")}).encode()


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with what was seen, the whole body read first."""
    answer = describe(environ, environ["wsgi.input"].read(-1))
    fields = [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]
    start_response("200 OK", fields)
    return [answer]


def body_only(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the request's body."""
    body = environ["wsgi.input"].read(-1)
    start_response("200 OK", TEXT)
    return [body]


def body_or_error(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Tell on `wsgi.errors` what reading the body raised, and answer all the same."""
    try:
        environ["wsgi.input"].read(-1)
    except OSError as error:
        environ["wsgi.errors"].write(f"reading raised {type(error).__name__}\n")
        environ["wsgi.errors"].flush()
    start_response("200 OK", TEXT)
    return [b"answered"]


def unread(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer without looking at the body."""
    start_response("200 OK", TEXT)
    return [b"unread"]


def read_by(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Read the body in the way that the query names; answer with the pieces as JSON."""
    stream = environ["wsgi.input"]
    pieces: list[bytes]
    match environ["QUERY_STRING"].split("="):
        case ["read", size]:
            pieces = list(iter(lambda: stream.read(int(size)), b""))
        case ["readline", size]:
            pieces = list(iter(lambda: stream.readline(int(size)), b""))
        case ["readlines"]:
            pieces = stream.readlines()
        case ["iterate"]:
            pieces = list(stream)
        case ["beyond"]:
            pieces = [stream.read(-1), stream.read(10), stream.read(-1), stream.readline()]
        case other:
            raise ValueError(other)
    start_response("200 OK", TEXT)
    return [json.dumps([piece.decode("latin-1") for piece in pieces]).encode()]


def generate(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
    """A body of unknown length; `start_response` is called when the body is asked for."""
    start_response("200 OK", TEXT)
    yield b""
    for digit in range(10):
        yield b"%d" % digit


def write_first(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Use the write callable, then return more."""
    write = start_response("200 OK", TEXT)
    write(b"written ")
    write(b"")
    write(b"twice, ")
    return [b"returned"]


def two_blocks(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A list of two blocks."""
    start_response("200 OK", TEXT)
    return [b"one", b"two"]


class Closing:
    """An iterable that counts how often it was closed."""

    closed = 0

    def __init__(self, blocks: list[bytes], fails: bool) -> None:
        self._blocks = iter(blocks)
        self._fails = fails

    def __iter__(self) -> Closing:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._blocks)
        except StopIteration:
            if self._fails:
                raise RuntimeError("the body fails") from None
            raise

    def close(self) -> None:
        """Count."""
        Closing.closed += 1


def closing(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A body that must be closed; `fails` and `none` as the query."""
    start_response("200 OK", TEXT)
    blocks = [] if environ["QUERY_STRING"] == "none" else [b"a", b"b"]
    return Closing(blocks, environ["QUERY_STRING"] == "fails")


def closed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """How often a body was closed."""
    start_response("200 OK", TEXT)
    return [b"%d" % Closing.closed]


def worker(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Which process this is."""
    start_response("200 OK", TEXT)
    return [b"%d" % os.getpid()]


def wrapped_file(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """A body given through `wsgi.file_wrapper`: a real file or a stream in memory."""
    wrap: Callable[[Any], Iterable[bytes]] = environ["wsgi.file_wrapper"]
    fields = [*TEXT]
    kind, _, length = environ["QUERY_STRING"].partition("&")
    if length:
        fields.append(("Content-Length", length))
    start_response("200 OK", fields)
    if kind == "memory":
        return wrap(io.BytesIO(b"in memory"))
    file = open(__file__, "rb")  # noqa: SIM115 - the server closes it
    if kind == "middle":
        file.seek(100)
    return wrap(file)


def fails(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Fail where the query says."""
    match environ["QUERY_STRING"]:
        case "before":
            raise RuntimeError("before start_response")
        case "after":
            start_response("200 OK", TEXT)
            raise RuntimeError("after start_response")
        case "never":
            return [b"no start_response"]
        case "write":
            start_response("200 OK", [*TEXT, ("Content-Length", "100")])(b"some")
            raise RuntimeError("after write")
        case "chunk":
            start_response("200 OK", TEXT)(b"some")
            raise RuntimeError("after write")
        case "text":
            start_response("200 OK", TEXT)
            return ["text"]  # type: ignore[list-item]
        case "none":
            start_response("200 OK", TEXT)
            return None  # type: ignore[return-value]
        case "exit":
            raise SystemExit("an app does not end the server")
    raise ValueError(environ["QUERY_STRING"])


def exc_info(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Replace the response, or try to when it is too late or without exc_info."""
    write = start_response("200 OK", [*TEXT, ("X-First", "yes"), ("Content-Length", "99")])
    how = environ["QUERY_STRING"]
    if how == "late":
        write(b"sent")
    try:
        raise KeyError("replace")
    except KeyError:
        start_response("500 Replaced", TEXT, None if how == "without" else sys.exc_info())
    return [b"replaced"]


def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the status, fields and blocks that the body, as JSON, asks for."""
    wanted = json.loads(environ["wsgi.input"].read(-1))
    fields = [(name, value) for name, value in wanted.get("fields", [])]
    start_response(wanted.get("status", "200 OK"), fields)
    blocks = [block.encode("latin-1") for block in wanted.get("blocks", [])]
    return iter(blocks) if wanted.get("lazy") else blocks


VALIDATED: dict[str, WSGIApplication] = {
    "/body": body_only,
    "/body-or-error": body_or_error,
    "/unread": unread,
    "/read-by": read_by,
    "/generate": generate,
    "/write": write_first,
    "/two": two_blocks,
}

UNCHECKED: dict[str, WSGIApplication] = {
    "*": echo,
    "/closing": closing,
    "/closed": closed,
    "/file": wrapped_file,
    "/worker": worker,
    "/fails": fails,
    "/exc-info": exc_info,
    "/respond": respond,
    "/fast-echo": echo,
}

CHECKED = {path: validator(handler) for path, handler in VALIDATED.items()}
CHECKED_ECHO = validator(echo)


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Choose by path; any other path is echoed."""
    path = environ["PATH_INFO"]
    handler = UNCHECKED.get(path) or CHECKED.get(path) or CHECKED_ECHO
    return handler(environ, start_response)
