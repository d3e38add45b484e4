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
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from server import engine_flags
from tests.cluster import golang
from tests.cluster.paths import Paths
from tests.support.image_sbom import REQUIREMENTS, commit_time_s
from tests.support.try_wheels import try_wheels

ROOT = Path(__file__).resolve().parents[2]
CACHE = Paths.from_environ().cache
TOOLS = CACHE / "packages" / "bin"
UV = CACHE / "uv" / "bin" / "uv"
PURE = ("operator/api", "operator/cli", "operator/controller")


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
        try_with(out, python)
    return 0


def build_server(out: Path, versions: list[str]) -> None:
    """The sdist of prefork, and from it a wheel per version.

    Unpacked at a place of its own, always the same: it is kept out of the modules, and the lists of crates name it.
    """
    run(sys.executable, ROOT / "server" / "lock_engine.py")
    run(TOOLS / "maturin", "sdist", "--out", out, folder=ROOT / "server")
    (sdist,) = out.glob("prefork-*.tar.gz")
    unpacked = CACHE / "wheel-source"
    shutil.rmtree(unpacked, ignore_errors=True)
    shutil.unpack_archive(sdist, unpacked, filter="data")
    (source,) = unpacked.iterdir()
    target = ["--target", f"{os.uname().machine}-unknown-linux-gnu", "--zig"]
    target += ["--compatibility", "manylinux_2_28"]
    command = [TOOLS / "maturin", "build", "--release", "--locked", *target]
    command += ["--target-dir", CACHE / "cargo" / "wheels", "--out", out]
    fixed = engine_flags.without_paths(os.environ, source / "engine")
    fixed |= {"SOURCE_DATE_EPOCH": str(commit_time_s())}
    run(*command, "--interpreter", *versions, folder=source, environ=fixed)


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


def try_with(out: Path, python: Path) -> None:
    """Try the packages in an empty environment of this interpreter."""
    with tempfile.TemporaryDirectory() as scratch:
        environment = Path(scratch) / "env"
        run(UV, "venv", "-q", "--seed", "--python", python, environment)
        print(f"  .. {python}", flush=True)
        try_wheels(environment / "bin", out)


def run(
    *command: object, folder: Path = ROOT, environ: Mapping[str, str] = MappingProxyType({})
) -> None:
    """One command that must succeed."""
    tools = {"PATH": f"{TOOLS}:{os.environ['PATH']}", "UV_SYSTEM_CERTS": "true"}
    words = [str(part) for part in command]
    done = subprocess.run(words, cwd=folder, env={**os.environ, **tools, **environ}, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{Path(str(command[0])).name} failed with {done.returncode}")


if __name__ == "__main__":
    sys.exit(main())
