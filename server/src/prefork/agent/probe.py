"""Asks the app's probe path in the background, so that a readiness answer never has to wait."""

import asyncio
from urllib.parse import urlsplit

from prefork.agent.readiness import count_ready
from prefork.agent.table import TableFile
from prefork.base.stats import Table

TIMEOUT_S = 5.0
# Until the first good answer, and after.
EAGER_PERIOD_S = 0.25
PERIOD_S = 5.0


class Probe:
    """One GET, again and again; `fault` is the newest verdict, empty when good."""

    def __init__(self, url: str, *, host: str = "") -> None:
        self.url = url
        parts = urlsplit(url)
        self.address = parts.hostname or "127.0.0.1", parts.port or 80
        self.path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self.host = host or parts.netloc
        self.fault = f"{url} has not been probed yet"

    async def run(self, table: TableFile) -> None:
        """Ask again and again. A new generation, or a new run of the server, is asked at once."""
        seen: tuple[int, int] | None = None
        asked_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            now_open = table.get()
            current = (
                (now_open.header("boot_id"), now_open.header("generation")) if now_open else None
            )
            if seen is not None and (current is None or current[0] != seen[0]):
                self.fault = f"{self.url} has not been probed yet"
            period = EAGER_PERIOD_S if self.fault else PERIOD_S
            if current is not None and (current != seen or loop.time() - asked_at >= period):
                asked_at = loop.time()
                self.fault = await self.ask(table)
            seen = current
            await asyncio.sleep(EAGER_PERIOD_S)

    async def ask(self, table: TableFile) -> str:
        """Return the fault of one request."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                status = await self.fetch(table.get())
        except TimeoutError:
            # With every worker busy the probe waits in the queue like any request: that is load,
            # and a pod taken out for it would put the load on the others.
            if not self.fault and (open_table := table.get()) is not None and all_busy(open_table):
                return ""
            return f"{self.url} did not answer within {TIMEOUT_S:g} s"
        except OSError as error:
            return f"{self.url} cannot be reached: {error.strerror or error}"
        if 200 <= status < 400:
            return ""
        return f"{self.url} (Host: {self.host}) answered {status}; a health path must answer 2xx or 3xx"

    async def fetch(self, table: Table | None) -> int:
        """Return the status of one GET; raises OSError for anything that is not HTTP.

        The number of the server's run, which only the server and its agent know, marks it as no traffic.
        """
        mark = f"X-Prefork-Probe: {table.header('boot_id'):016x}\r\n" if table else ""
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            writer.write(
                f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\nUser-Agent: prefork-agent\r\n"
                f"{mark}Accept: */*\r\nConnection: close\r\n\r\n".encode()
            )
            words = (await reader.readline()).split()
            if len(words) < 2 or not words[1].isdigit():
                raise OSError("not an HTTP response")
            return int(words[1])
        except ValueError as error:  # a line longer than the reader's limit
            raise OSError("not an HTTP response") from error
        finally:
            writer.close()


def all_busy(table: Table) -> bool:
    busy = sum(1 for slot in table.taken_slots() if table.slot(slot, "in_flight"))
    return 0 < count_ready(table) <= busy
