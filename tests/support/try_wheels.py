"""Tries the packages of a folder in an empty environment: pip installs them, the server serves, the commands run.

    python3 -m tests.support.try_wheels ENVIRONMENT DIST

Standard library only: it runs in a bare Debian, too.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"served by the wheel"]
"""
MANIFEST = """
apiVersion: wsgi.dev/v1alpha1
kind: WsgiApp
metadata: {name: hello}
spec: {image: none, app: "hello:application"}
"""


def main() -> int:
    """Command line; 0 when all is well."""
    environment, dist = (Path(argument).absolute() for argument in sys.argv[1:])
    try_wheels(environment / "bin", dist)
    return 0


def try_wheels(bin_: Path, dist: Path) -> None:
    """Install prefork alone and serve with it; then the other distributions, serve a manifest, and call their commands.

    SystemExit with what went wrong.
    """
    # prefork needs nothing but its wheel; the others take what they depend on from the index.
    packages = ("--find-links", dist)
    install = (bin_ / "python", "-m", "pip", "install", "-q", "--no-input", *packages)
    run(*install, "--no-index", "--only-binary=:all:", "prefork")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "hello.py").write_text(APP)
        serve(bin_ / "prefork", Path(folder))
        run(*install, "wsgiapp-cli")
        serve_manifest(bin_ / "wsgiapp", Path(folder))
    run(*install, "wsgiapp-operator")
    run(bin_ / "wsgiapp", "render", "-f", ROOT / "manifests/examples/flask.yaml", quiet=True)
    run(bin_ / "wsgiapp-operator", "--help", quiet=True)
    about = "import platform; print('  ok CPython', platform.python_version(), platform.libc_ver())"
    run(bin_ / "python", "-c", about)


def serve(prefork: Path, folder: Path) -> None:
    """Start the installed server on a port of its choice and ask it once."""
    run(prefork, "--check-config", "hello:application", folder=folder, quiet=True)
    port = free_port()
    command = [str(prefork), "-w", "1", "-b", f"127.0.0.1:{port}", "hello:application"]
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(command, cwd=folder, stderr=log)
    try:
        if (answer := ask(f"http://127.0.0.1:{port}/")) != b"served by the wheel":
            raise SystemExit(f"{prefork} answered {answer!r}: {(folder / 'log').read_text()}")
    finally:
        server.terminate()
        if (code := server.wait(30)) != 0:
            raise SystemExit(f"{prefork} ended with {code}: {(folder / 'log').read_text()}")


def serve_manifest(wsgiapp: Path, folder: Path) -> None:
    """Let the installed command serve a manifest, and ask the app and its metrics: the agent's package came along."""
    (folder / "hello.yaml").write_text(MANIFEST)
    app, metrics = free_port(), free_port()
    where = ("--port", str(app), "--metrics", f"127.0.0.1:{metrics}")
    with (folder / "log").open("w") as log:
        command = [str(wsgiapp), "run", "-f", "hello.yaml", *where]
        server = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        served = ask(f"http://127.0.0.1:{app}/") == b"served by the wheel"
        if not served or b"wsgi_workers" not in ask(f"http://127.0.0.1:{metrics}/metrics"):
            raise SystemExit(f"{wsgiapp} run: {(folder / 'log').read_text()}")
    finally:
        server.send_signal(signal.SIGINT)
        if (code := server.wait(30)) != 0:
            raise SystemExit(f"{wsgiapp} ended with {code}: {(folder / 'log').read_text()}")


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def ask(url: str) -> bytes:
    """What `url` answers, as soon as something listens there."""
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return bytes(response.read())
        except (urllib.error.URLError, ConnectionError):
            if time.monotonic() > deadline:
                return b"nothing"
            time.sleep(0.1)


def run(*command: object, folder: Path = ROOT, quiet: bool = False) -> None:
    """One command that must succeed."""
    words = [str(part) for part in command]
    out = subprocess.PIPE if quiet else None
    done = subprocess.run(words, cwd=folder, stdout=out, stderr=out, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(words)} failed with {done.returncode}: {done.stderr or ''}")


if __name__ == "__main__":
    sys.exit(main())
