"""The agent's own small HTTP server: GET, one request per connection, bounded in time, size and number.

Its port can be reached from the whole cluster, and the app's probes go through it: connections on which no
request comes, however many, must not keep the kubelet's from being answered.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

HEAD_LIMIT = 16 * 1024
TIMEOUT_S = 5.0
CONNECTIONS_MAX = 128


@dataclass(frozen=True)
class Response:
    """What to answer."""

    status: int
    body: bytes
    content_type: str = "text/plain; charset=utf-8"

    @classmethod
    def text(cls, status: int, text: str) -> "Response":
        return cls(status, text.encode() + b"\n")

    @classmethod
    def json(cls, status: int, value: Any) -> "Response":
        return cls(status, json.dumps(value).encode() + b"\n", "application/json")


Answer = Callable[[str, str], Awaitable[Response]]


async def listen(host: str, port: int, answer: Answer) -> asyncio.Server:
    """Listen; `answer` gets the path and the Accept field. Raises OSError when it cannot.

    Of more than CONNECTIONS_MAX connections the oldest is closed: who sends a request is answered within
    milliseconds, so that one is idle or slow.
    """
    open_writers: dict[asyncio.StreamWriter, None] = {}  # oldest first

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers[writer] = None
        if len(open_writers) > CONNECTIONS_MAX:
            oldest = next(iter(open_writers))
            del open_writers[oldest]
            oldest.transport.abort()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await serve_one(reader, writer, answer)
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client's affair
        finally:
            open_writers.pop(writer, None)
            writer.close()

    return await asyncio.start_server(on_connection, host or None, port, limit=HEAD_LIMIT)


async def serve_one(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Answer
) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    request_line, *fields = head.split("\r\n")
    method, _, rest = request_line.partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    accept = next(
        (f.partition(":")[2].strip() for f in fields if f.lower().startswith("accept:")), ""
    )
    if method in ("GET", "HEAD"):
        response = await answer(path, accept)
    else:
        response = Response.text(405, "use GET")
    reason = HTTPStatus(response.status).phrase
    writer.write(
        f"HTTP/1.1 {response.status} {reason}\r\nContent-Type: {response.content_type}\r\n"
        f"Content-Length: {len(response.body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n".encode()
    )
    if method != "HEAD":
        writer.write(response.body)
    await writer.drain()
