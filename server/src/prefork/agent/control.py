"""Client of the server's control socket."""

import asyncio
import json
from pathlib import Path
from typing import Any

LINE_LIMIT = 1024 * 1024


class Unreachable(Exception):  # noqa: N818 - says where the server is, not what this program did
    """No server listens on the socket, or it ended before it had answered."""


class Rejected(Exception):  # noqa: N818 - the server's word, not this program's failure
    """The server answered `{"error": …}`, or what cannot be read as an answer."""


class ControlClient:
    """Asks one question per connection."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """Return the answer, however long it takes. Raises Unreachable and Rejected."""
        try:
            reader, writer = await asyncio.open_unix_connection(self.path, limit=LINE_LIMIT)
        except OSError as error:
            raise Unreachable(
                f"the server's control socket does not answer: {error.strerror}"
            ) from None
        try:
            writer.write(json.dumps(question).encode() + b"\n")
            line = await reader.readline()
        except OSError as error:
            raise Unreachable(
                f"the server's connection to the control socket failed: {error}"
            ) from None
        except ValueError:
            raise Rejected(f"the server's answer is longer than {LINE_LIMIT} bytes") from None
        finally:
            writer.close()
        if not line.endswith(b"\n"):
            raise Unreachable("the server ended before it had answered")
        return parse_answer(line)


def parse_answer(line: bytes) -> dict[str, Any]:
    """Return the answer of one line; pure. Raises Rejected."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    match answer:
        case {"error": why}:
            raise Rejected(f"the server rejects it: {why}")
        case dict():
            return answer
        case _:
            raise Rejected(f"the server's answer is not a JSON object: {line[:80]!r}")
