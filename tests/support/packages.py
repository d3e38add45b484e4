"""`make packages`: the wheels and sdists of all distributions in dist/, checked and tried in empty environments.

    python -m tests.support.packages [--out dist] [--python 3.11 3.12 3.13 3.14]

prefork gets one wheel for each Python, linked against glibc 2.28 by zig, from the crates of server/engine/crates.txt;
the interpreters need not be installed. Each wheel that fits an interpreter of this machine is installed into an empty
environment of that interpreter and has to serve a request. The wheels of prefork hold a CycloneDX list of their crates
(PEP 770); in dist/sbom are the parts of the images' lists that come from here (tests/support/image_sbom.py).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import golang
from tests.cluster.paths import Paths
from tests.support.image_sbom import REQUIREMENTS

ROOT = Path(__file__).resolve().parents[2]
CACHE = Paths.from_environ().cache
TOOLS = CACHE / "packages" / "bin"
UV = CACHE / "uv" / "bin" / "uv"
PURE = ("operator/api", "operator/cli", "operator/controller")
APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"served by the wheel"]
"""


def main() -> int:
    """Build, check, try; 0 when all is well."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--python", nargs="+", default=["3.11", "3.12", "3.13", "3.14"])
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    check_workflows()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    build_server(out, arguments.python)
    for folder in PURE:
        run(TOOLS / "python", "-m", "build", "--no-isolation", "--outdir", out, ROOT / folder)
    for name, requirements in REQUIREMENTS.items():
        list_python(out / "sbom" / f"{name}.cdx.json", ROOT / requirements)
    take_crates(out, out / "sbom" / "prefork-crates.cdx.json")
    check(out)
    for python in interpreters():
        try_wheels(out, python)
    return 0


def build_server(out: Path, versions: list[str]) -> None:
    """The sdist of prefork, and from it a wheel per version."""
    run(sys.executable, ROOT / "server" / "lock_engine.py")
    target = ["--target", f"{os.uname().machine}-unknown-linux-gnu", "--zig"]
    target += ["--compatibility", "manylinux_2_28"]
    command = [TOOLS / "maturin", "build", "--release", "--locked", "--sdist", *target]
    command += ["--target-dir", CACHE / "cargo" / "wheels", "--out", out]
    run(*command, "--interpreter", *versions, folder=ROOT / "server")


def list_python(path: Path, requirements: Path) -> None:
    """A CycloneDX list of what a file of hashed requirements brings to the distribution beside it."""
    path.parent.mkdir(exist_ok=True)
    output = ("--output-reproducible", "--short-PURLs", "--of", "JSON", "-o", path)
    about = ("--pyproject", requirements.with_name("pyproject.toml"))
    run(TOOLS / "cyclonedx-py", "requirements", *about, *output, requirements)
    if not json.loads(path.read_text()).get("components"):
        raise SystemExit(f"{path} lists nothing")


def take_crates(out: Path, path: Path) -> None:
    """The list of the engine's crates, from the newest Python's wheel: the same in all of them."""
    *_, wheel = sorted(out.glob("prefork-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        (listed,) = (name for name in archive.namelist() if "/sboms/" in name)
        path.write_bytes(archive.read(listed))


def check_workflows() -> None:
    """The workflows that release all this are well-formed."""
    paths = Paths.from_environ()
    golang.build([golang.ACTIONLINT], paths)
    run(paths.bin / "actionlint", *sorted((ROOT / ".github" / "workflows").glob("*.yml")))


def check(out: Path) -> None:
    """What an index would refuse, and what does not belong into a wheel."""
    packages = sorted(path for path in out.iterdir() if path.is_file())
    run(TOOLS / "twine", "check", "--strict", *packages)
    wheels = [path for path in packages if path.suffix == ".whl"]
    # W002: the copies that it finds are the empty py.typed and __init__ files.
    run(TOOLS / "check-wheel-contents", "--ignore", "W002", *wheels)


def interpreters() -> Iterator[Path]:
    """The CPythons of this machine that prefork supports, one for each minor version and place."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for minor in range(11, 15):
        found = [*pyenv.glob(f"3.{minor}.*/bin/python3.{minor}"), Path(f"/usr/bin/python3.{minor}")]
        yield from (path for path in found if path.exists())


def try_wheels(out: Path, python: Path) -> None:
    """Install prefork alone, serve with it; then the other distributions, and call their commands."""
    with tempfile.TemporaryDirectory() as scratch:
        bin_ = Path(scratch) / "env" / "bin"
        run(UV, "venv", "-q", "--python", python, bin_.parent)
        install = (UV, "pip", "install", "-q", "--python", bin_ / "python", "--find-links", out)
        run(*install, "--no-index", "prefork")
        (Path(scratch) / "hello.py").write_text(APP)
        serve(bin_ / "prefork", Path(scratch))
        run(*install, "wsgiapp-cli", "wsgiapp-operator")
        run(bin_ / "wsgiapp", "render", "-f", ROOT / "manifests/examples/flask.yaml", quiet=True)
        run(bin_ / "wsgiapp-operator", "--help", quiet=True)
    print(f"  ok {python}", flush=True)


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
    environment = os.environ | {"PATH": f"{TOOLS}:{os.environ['PATH']}", "UV_SYSTEM_CERTS": "true"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE if quiet else None,
        check=False,
    )
    if done.returncode != 0:
        raise SystemExit(f"{Path(str(command[0])).name} failed with {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
