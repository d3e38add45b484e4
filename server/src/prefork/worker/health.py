"""Asks the app of this worker for its health, before the worker may serve anyone.

The request takes the way of any other: a connection that is handed over, an engine, a call of the
app. The engine is one for this request alone, with counters of its own and no other way in, so the
request is neither counted nor logged, and a client cannot meet a generation that is still judged.
"""

import re
import socket
import time
from array import array
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from prefork._engine import Engine
from prefork.base.log import Log
from prefork.base.stats import create_private_table
from prefork.config.options import Options
from prefork.worker.app_import import WsgiApp
from prefork.worker.error_report import ErrorReport

# Of an answer that is not good, so much is shown.
SHOWN_BYTES = 200
HEAD_LIMIT_BYTES = 64 * 1024
# What the call may need to return after its answer is known; well below what the arbiter waits for the report.
END_S = 0.3
# A connection on its way, as server/engine/io/src/handover.rs has it: a magic, and when its request was complete
# (0: it is not).
PASSED = b"pf-pass1" + bytes(8)


class Serving(Protocol):
    """What calls the app: a thread, or a hub."""

    def start(self) -> None: ...
    def join(self, timeout: float | None = None) -> None: ...
    def is_alive(self) -> bool: ...


def ask_health(
    app: WsgiApp,
    log: Log,
    options: Options,
    settings: Mapping[str, Any],
    serve: Callable[[Engine], Serving],
    within_s: float,
) -> str:
    """GET `health_path`; return "" for 2xx and 3xx, else what is wrong in one line.

    Blocks for a moment longer than `within_s` seconds at most.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)  # as an accepted connection is
    send, receive = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, create_private_table() as table:
        engine = Engine(
            app,
            listeners=(),
            settings={**settings, "threads": 1, "max_requests": 0, "access_log": None},
            stats_fd=table.fileno(),
            slot=1,
            report_error=ErrorReport(log, options),
            handover=(send.fileno(), receive.fileno()),
        )
        thread = serve(engine)
        thread.start()
        send.sendmsg(
            [PASSED], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [theirs.fileno()]))]
        )
        theirs.close()
        try:
            answer = fetch(ours, options.health_path, options.health_host, within_s)
        finally:
            engine.stop()
            thread.join(END_S)
            # An app that hangs keeps its thread, and the engine these: their numbers must not become another's.
            for end in (send, receive):
                if thread.is_alive():
                    end.detach()
                end.close()
    return judge(options.health_path, answer, within_s)


def fetch(sock: socket.socket, path: str, host: str, within_s: float) -> bytes | None:
    """Return head and beginning of the body; None when they took too long.

    HTTP/1.0: the answer ends with the connection, and is never chunked.
    """
    deadline = time.monotonic() + within_s
    request = (
        f"GET {path} HTTP/1.0\r\nHost: {host}\r\nUser-Agent: prefork-health\r\nAccept: */*\r\n\r\n"
    )
    sock.sendall(request.encode("latin-1"))
    received = b""
    try:
        while True:
            head, _, body = received.partition(b"\r\n\r\n")
            if len(body) >= SHOWN_BYTES or len(head) > HEAD_LIMIT_BYTES:
                return received
            sock.settimeout(max(0.001, deadline - time.monotonic()))
            piece = sock.recv(65536)
            if not piece:
                return received
            received += piece
    except TimeoutError:
        return None
    except ConnectionError:
        return received


def judge(path: str, answer: bytes | None, within_s: float) -> str:
    """Return "" for a good answer, else what is wrong with it; pure."""
    if answer is None:
        return f"GET {path} was not answered within {within_s:g} s"
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[1].isdigit():
        return f"GET {path} was answered by the end of the connection"
    if 200 <= int(words[1]) < 400:
        return ""
    shown = to_line(body[:SHOWN_BYTES].decode("utf-8", "replace"))
    return f"GET {path} answered {int(words[1])}" + (f": {shown}" if shown else "")


def to_line(text: str) -> str:
    """Return the words of an answer's body on one line, of a page in HTML without its tags; pure."""
    if text.lstrip().startswith("<"):
        text = re.sub(r"<[^>]*>?", " ", text)
    return " ".join(text.split())
