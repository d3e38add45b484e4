"""A worker process with nothing but the engine: the program that the engine tests start.

Told by one JSON object in argv; orders come as lines on standard input, events go out as JSON lines. The app shows
each way of answering under its own path.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import resource
import select
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prefork import _engine
from prefork.base.log import Log
from prefork.config.options import Options
from prefork.worker.error_report import ErrorReport

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
PLAIN = [("Content-Type", "text/plain")]
CLOSED: list[str] = []
# What `/held` waits for: so a call lasts as long as a test needs it, however slow the machine is.
RELEASED = threading.Event()


class Blocks:
    """An iterable with `close`, which is remembered."""

    def __init__(self, blocks: Iterable[bytes], fails: bool = False) -> None:
        self._blocks = iter(blocks)
        self._fails = fails

    def __iter__(self) -> Iterator[bytes]:
        yield from self._blocks
        if self._fails:
            raise RuntimeError("in the middle of the body")

    def close(self) -> None:
        CLOSED.append("closed")


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer by the way that the path names."""
    name = environ["PATH_INFO"].strip("/").split("/")[0] or "hello"
    return ANSWERS[name](environ, start_response)


def query(environ: Environ) -> dict[str, int]:
    """Return the numbers of the query string."""
    pairs = (p.split("=", 1) for p in environ["QUERY_STRING"].split("&") if p)
    return {name: int(value) for name, value in pairs}


def hello(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [*PLAIN, ("Content-Length", "5")])
    return [b"hello"]


def echo(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [*PLAIN, ("X-Digest", hashlib.sha256(body).hexdigest())])
    return [body]


def digest(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    seen, total = hashlib.sha256(), 0
    while block := environ["wsgi.input"].read(10_000):
        seen.update(block)
        total += len(block)
    start_response("200 OK", PLAIN)
    return [f"{total} {seen.hexdigest()}".encode()]


def length(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    total = 0
    while block := environ["wsgi.input"].read(1 << 20):
        total += len(block)
    start_response("200 OK", PLAIN)
    return [str(total).encode()]


def length_and_digest(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    return [environ.get("CONTENT_LENGTH", "none").encode(), b" ", *digest(environ, start_response)]


def read_at_random(stream: Any, seed: int) -> list[list[object]]:
    """Read a binary stream to its end by calls that `seed` chooses; returns each call with what it gave."""
    choose, seen = random.Random(seed), []
    while True:
        name = choose.choice(["read", "readline", "readlines", "next"])
        size = choose.choice([None, -1, 0, 1, 7, 3000, 65536, 70_000])
        if name == "read" and size in (None, -1):
            size = 100_000
        if name == "readlines" and (size is None or size <= 0):
            size = 20_000
        match name:
            case "next":
                got = next(iter(stream), b"")
            case _:
                got = getattr(stream, name)(size)
        data = b"".join(got) if isinstance(got, list) else got
        seen.append([name, size, len(got), hashlib.sha256(data).hexdigest()])
        if not data and size != 0:
            return seen


def read_at_random_(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    seen = read_at_random(environ["wsgi.input"], query(environ)["seed"])
    start_response("200 OK", PLAIN)
    return [json.dumps(seen).encode()]


def first_line(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    line = environ["wsgi.input"].readline()
    start_response("200 OK", [*PLAIN, ("Content-Length", str(len(line)))])
    return [line]


def answered_while_read(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    reader = threading.Thread(target=environ["wsgi.input"].read, daemon=True)
    reader.start()
    start_response("200 OK", [*PLAIN, ("Content-Length", "5")])
    return [b"early"]


def lines(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    stream = environ["wsgi.input"]
    parts = [stream.readline(), stream.readline(3), stream.readline(0), *stream.readlines(1)]
    parts += list(stream)
    start_response("200 OK", PLAIN)
    return [json.dumps([p.decode() for p in parts]).encode()]


def slow(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    time.sleep(query(environ)["ms"] / 1000)
    start_response("200 OK", PLAIN)
    return [b"slow"]


def held(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    RELEASED.wait()
    start_response("200 OK", PLAIN)
    return [b"held"]


def unread(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    return [b"did not look"]


def blocks(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    wanted = query(environ)
    start_response("200 OK", PLAIN)
    return Blocks(bytes([65 + i % 26]) * wanted["size"] for i in range(wanted["count"]))


def write(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    wanted = query(environ)
    send = start_response("200 OK", PLAIN)
    for _ in range(wanted["count"]):
        send(b"w" * wanted["size"])
    return []


def parts(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    wanted = query(environ)
    start_response("200 OK", PLAIN)
    return [b"p" * wanted["size"] for _ in range(wanted["count"])]


def pause(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    wanted = query(environ)
    start_response("200 OK", PLAIN)
    yield b"p" * wanted["size"]
    time.sleep(wanted["ms"] / 1000)
    yield b"end"


def held_within(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    wanted = query(environ)
    start_response("200 OK", PLAIN)
    yield b"p" * wanted["size"]
    RELEASED.wait()
    yield b"end"


def big(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    return [b"x" * query(environ)["size"]]


def late(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    yield b""
    start_response("200 OK", PLAIN)
    yield b"la"
    yield b"te"


def written(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    write = start_response("200 OK", PLAIN)
    write(b"first ")
    write(b"second ")
    return [b"third"]


def short(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [*PLAIN, ("Content-Length", "10")])
    return [b"short"]


def excess(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [*PLAIN, ("Content-Length", "3")])
    return [b"abcdef"]


def replaced(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("X-First", "1")])
    try:
        raise KeyError("late")
    except KeyError:
        start_response("503 Service Unavailable", PLAIN, sys.exc_info())
    return [b"replaced"]


def too_late(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    write = start_response("200 OK", PLAIN)
    write(b"sent")
    try:
        raise KeyError("much too late")
    except KeyError:
        start_response("500 Internal Server Error", PLAIN, sys.exc_info())
    return [b"never"]


def raises(_environ: Environ, _start_response: StartResponse) -> Iterable[bytes]:
    raise ValueError("the app broke")


def raises_within(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    return Blocks([b"part"], fails=True)


class SlowClose(Blocks):
    """Complete for the client a while before the call is over."""

    def close(self) -> None:
        time.sleep(0.05)


def slow_close(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [*PLAIN, ("Content-Length", "4")])
    return SlowClose([b"slow"])


def silent(_environ: Environ, _start_response: StartResponse) -> Iterable[bytes]:
    return [b"no start_response"]


def no_content(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("204 No Content", [])
    return [b"must not be sent"]


def bad_header(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("X-Split", "a\r\nSet-Cookie: b")])
    return [b""]


def text(_environ: Environ, start_response: StartResponse) -> Iterable[Any]:
    start_response("200 OK", PLAIN)
    return ["text"]


def forks(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    child = os.fork()
    if child == 0:
        sys.exit(7)
    _, status = os.waitpid(child, 0)
    start_response("200 OK", PLAIN)
    return [str(os.waitstatus_to_exitcode(status)).encode()]


def child_returns(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    child = os.fork()
    if child != 0:
        os.waitpid(child, 0)
    start_response("200 OK", PLAIN)
    return [b"parent" if child else b"child"]


def child_stays(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    server = os.getpid()
    if os.fork() == 0:
        while os.getppid() == server:
            time.sleep(0.1)
        os._exit(0)
    start_response("200 OK", PLAIN)
    return [b"parent"]


def closed(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    return [str(len(CLOSED)).encode()]


def file(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    wanted = query(environ)
    handle = tempfile.TemporaryFile()  # noqa: SIM115 - the wrapper's close() closes it
    handle.write(b"0123456789" * (wanted["size"] // 10))
    handle.flush()
    handle.seek(wanted.get("from", 0))
    start_response("200 OK", PLAIN)
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](handle)
    return wrapped


def memory_file(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", PLAIN)
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](io.BytesIO(b"m" * 100_000), 1000)
    return wrapped


def environ_of(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    known = {k: v for k, v in environ.items() if isinstance(v, str | bool | int | tuple)}
    return [json.dumps(known).encode()]


ANSWERS: dict[str, Callable[[Environ, StartResponse], Iterable[bytes]]] = {
    f.__name__.rstrip("_"): f
    for f in (
        hello, echo, digest, length, length_and_digest, read_at_random_, first_line, answered_while_read, write, parts, lines, slow, slow_close, held, unread, blocks, pause, held_within, big, late, written, short, excess, replaced, too_late,
        raises, raises_within, silent, no_content, bad_header, text, forks, child_returns, child_stays,
        closed, file, memory_file, environ_of,
    )
}  # fmt: skip


def main() -> None:
    """Run one engine until it is drained, then say so and exit."""
    told = json.loads(sys.argv[1])
    if told["file_bytes_max"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (told["file_bytes_max"],) * 2)
    if told["settings"]["access_log"]:  # JSON has no tuples
        style, parts, end = told["settings"]["access_log"]
        told["settings"]["access_log"] = style, [tuple(part) for part in parts], end
    engine = _engine.Engine(
        app,
        listeners=told["listeners"],
        settings=told["settings"],
        stats_fd=told["stats_fd"],
        slot=told["slot"],
        report_error=ErrorReport(Log(), Options()),
        access_log_fd=told["access_log_fd"],
        handover=tuple(told["handover"]) if told["handover"] else None,
    )
    threads = [threading.Thread(target=engine.serve) for _ in range(told["settings"]["threads"])]
    for thread in threads:
        thread.start()
    say(["ready"])
    while True:
        readable, _, _ = select.select([engine.notify_fd, 0], [], [])
        if 0 in readable:
            order = os.read(0, 100).decode().split()
            if order == ["idle"]:
                say(["idle", engine.is_idle()])
                continue
            if order == ["release"]:
                RELEASED.set()
            elif not order or order[0] == "stop":
                engine.stop()
            else:
                engine.drain(mode=order[0])
            say(["taken"])
        events = engine.events()
        for event in events:
            say(list(event))
        if ("drained",) in events:
            break
    for thread in threads:
        thread.join()
    say(["ended"])


def say(message: list[Any]) -> None:
    """Write one line for the test."""
    os.write(1, json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
