"""Servers under test, started once each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.conformance.serving import Serving

# Threads: 1 unless a case needs otherwise, so that one stuck call would be seen at once.
SERVERS: dict[str, tuple[str, ...]] = {
    "plain": (),
    "small": (
        "--limit-request-line=64",
        "--limit-request-fields=5",
        "--limit-request-field-size=80",
        "--limit-head-bytes=1024",
        "--max-request-body=1000",
    ),
    "untrusting": ("--forwarded-allow-ips=192.0.2.1",),
    "everyone": ("--forwarded-allow-ips=*",),
    "below": ("--script-name=/shop",),
    "many": ("--workers=2", "--threads=2"),
    "unix": (),
    "streaming": ("--stream-request-bodies",),
    "hasty": (
        "--keep-alive=0.5",
        # Longer than a test may be held up between connecting and sending: a silent client gets no 408.
        "--header-timeout=2",
        "--body-timeout=1",
    ),
}


@pytest.fixture(scope="session")
def serving() -> Iterator[Callable[[str], Serving]]:
    """Return a running server by its name in SERVERS."""
    running: dict[str, Serving] = {}
    failed: dict[str, Exception] = {}
    with ExitStack() as stack:

        def named(name: str) -> Serving:
            if name in failed:  # a server that does not start is told of once, not 900 times
                pytest.fail(f"the server {name} did not start: {failed[name]}", pytrace=False)
            if name not in running:
                try:
                    running[name] = stack.enter_context(
                        Serving(*SERVERS[name], is_unix=name == "unix")
                    )
                except Exception as error:
                    failed[name] = error
                    raise
            return running[name]

        yield named


@pytest.fixture
def streaming(serving: Callable[[str], Serving]) -> Serving:
    """One whose app reads bodies while they come."""
    return serving("streaming")


@pytest.fixture
def plain(serving: Callable[[str], Serving]) -> Serving:
    """The server with its defaults."""
    return serving("plain")
