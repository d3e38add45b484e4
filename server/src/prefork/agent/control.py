"""Client of the server's control socket."""

import asyncio
import json
from pathlib import Path
from typing import Any

LINE_LIMIT = 1024 * 1024


class Unreachable(Exception):  # noqa: N818 - says where the server is, not what this program did
    """No server listens on the socket, or it ended before it had answered."""


class ControlClient:
    """Asks one question per connection."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Return the answer, however long it takes. Raises Unreachable."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.path, limit=LINE_LIMIT)
        except OSError as error:
            raise Unreachable(
                f"the server's control socket does not answer: {error.strerror}"
            ) from None
        try:
            writer.write(json.dumps(question).encode() + b"\n")
            line = await reader.readline()
        except (OSError, ValueError) as error:
            raise Unreachable(
                f"the server's connection to the control socket failed: {error}"
            ) from None
        finally:
            writer.close()
        if not line.endswith(b"\n"):
            raise Unreachable("the server ended before it had answered")
        answer: dict[str, Any] = json.loads(line)
        return answer
