"""The load generator: load.c, built when needed, on its own core, its figures read back."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.running import cores

CONNECTIONS = 16
NO_LIMIT = 10**9

BARE_HEAD = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

# What a browser sends with a page of a site it has been to: 15 fields.
BROWSER_HEAD = b"\r\n".join(
    (
        b"GET / HTTP/1.1",
        b"Host: 127.0.0.1",
        b"Connection: keep-alive",
        b"Cache-Control: max-age=0",
        b'sec-ch-ua: "Chromium";v="142", "Google Chrome";v="142", "Not_A Brand";v="99"',
        b"sec-ch-ua-mobile: ?0",
        b'sec-ch-ua-platform: "Linux"',
        b"Upgrade-Insecure-Requests: 1",
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
        b" Chrome/142.0.0.0 Safari/537.36",
        b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
        b"image/apng,*/*;q=0.8",
        b"Sec-Fetch-Site: same-origin",
        b"Sec-Fetch-Mode: navigate",
        b"Sec-Fetch-Dest: document",
        b"Accept-Encoding: gzip, deflate, br, zstd",
        b"Accept-Language: en-GB,en;q=0.9,de;q=0.8",
        b"Cookie: sessionid=3f1c9a7be0d24c55a1d2; csrftoken=Zk3vT9qLr0aXw2; theme=dark",
        b"\r\n",
    )
)


class LoadError(Exception):
    """An answer was wrong or missing; the text says which and after how many good ones."""


@dataclass(frozen=True)
class Load:
    """What one run saw: each of `requests` was answered rightly, `missing` were not within 5 s.

    `reopened`: connections the server had closed; `client_cpu_s`: the generator's own CPU time.
    """

    requests: int
    missing: int
    duration_s: float
    reopened: int
    client_cpu_s: float

    @property
    def per_s(self) -> float:
        return self.requests / self.duration_s


class LoadGenerator:
    """The built load.c."""

    def __init__(self, program: Path) -> None:
        self._program = program

    def put(
        self,
        port: int,
        *,
        head: bytes,
        seconds: float,
        requests: int = NO_LIMIT,
        connections: int = CONNECTIONS,
    ) -> Load:
        """Closed loop until `requests` are answered or `seconds` are over.

        Raises LoadError for an answer that is not a 200 with the expected body.
        """
        limits = (port, connections, requests, seconds)
        done = subprocess.run(
            ["taskset", "-c", str(cores()[1]), str(self._program), *map(str, limits)],
            input=head,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise LoadError(done.stderr.decode(errors="replace").strip())
        return Load(**json.loads(done.stdout))
