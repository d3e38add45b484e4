"""The stand-in for the agents of pods that do not exist: one address answers for all of them.

It says what an agent of a healthy pod says, or, on `/readyz`, that the app is not ready: only the pods
that are unready are asked that.
"""

from __future__ import annotations

import asyncio
import json
from typing import Self

from wsgiapp.digest import digest_object
from wsgiapp.names import AGENT_PORT

from tests.scale.fleet import CONTENT, config_map

ADDRESS = "127.77.0.1"  # the pods' address in stages.yaml
STATUS = {
    "state": "serving",
    "content": {CONTENT: digest_object(config_map(0))},  # all apps have the same
    "workers": {"desired": 2, "ready": 2, "busy": 0},
    "reload": None,
}


class StandIn:
    """`async with StandIn() as agents:`; counts what it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self._status = answer("200 OK", json.dumps(STATUS))
        self._unready = answer("503 Service Unavailable", "GET /healthz answered 500\n")

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, ADDRESS, AGENT_PORT, backlog=4096)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.asked += 1
                is_status = head.startswith(b"GET /status")
                writer.write(self._status if is_status else self._unready)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def answer(status: str, body: str) -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
