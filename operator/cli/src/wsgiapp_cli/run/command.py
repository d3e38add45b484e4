"""`wsgiapp run`: from the command line to a session, and its end."""

import asyncio
import contextlib
import importlib.util
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

from wsgiapp_cli.manifests import ManifestError
from wsgiapp_cli.run.plan import Place
from wsgiapp_cli.run.session import Request, Session


def run(request: Request) -> int:
    """Serve until Ctrl-C (exit code 0) or until the server ends (its exit code).

    Raises ManifestError or Invalid when the manifests cannot be served.
    """
    if importlib.util.find_spec("prefork") is None:
        raise ManifestError(
            f"the server is not installed here; use {sys.executable} -m pip install 'prefork[agent]'"
        )
    if request.metrics:  # the agent would say so too, but much later
        host, port = parse_address(request.metrics)
        open_listener(host, port, option="--metrics").close()
    with (
        # It is inherited by the server and outlives its restarts: clients wait meanwhile.
        open_listener("127.0.0.1", request.port, option="--port") as listener,
        tempfile.TemporaryDirectory("", "wsgiapp-") as root,
    ):
        place = Place(
            root=Path(root),
            here=Path.cwd(),
            bind=f"fd://{listener.fileno()}",
            metrics=request.metrics,
            environment=dict(os.environ),
        )
        place.run_dir.mkdir(mode=0o700)
        return asyncio.run(run_until_stopped(Session(request, place, listener)))


def parse_address(text: str) -> tuple[str, int]:
    """Return (host, port) of HOST:PORT or [IPV6]:PORT; raises ManifestError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ManifestError(f"--metrics is {text!r}; use HOST:PORT, or '' for none")
    return host.strip("[]"), int(port)


async def run_until_stopped(session: Session) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP; the first stops softly, a second one at once."""
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            session.stop_now()
        stopping.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    serving = asyncio.ensure_future(session.serve())
    stop_requested = asyncio.ensure_future(stopping.wait())
    await asyncio.wait({serving, stop_requested}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        stop_requested.cancel()
        return serving.result()
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving
    await session.stop()
    return 0


def open_listener(host: str, port: int, *, option: str) -> socket.socket:
    """Return a listening socket; `option` is the one to change when the address is not to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:  # also: a host that is no address of this machine
        raise ManifestError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with {option}"
        ) from None


BACKLOG = 2048
