"""Build the engine, `prefork._engine`, and put it next to the sources in `server/src/prefork`.

    python server/build_engine.py                        # for the interpreter that runs this
    python server/build_engine.py --python 3.13 3.14     # for these versions; they need not be installed

Each version gives one `_engine.cpython-3XX-<machine>-linux-gnu.so`; several lie side by side. A development
environment is this plus a `.pth` file (or an editable install) that names `server/src`; wheels are made by
`pip install ./server`, which builds by maturin and does not use this script.

The build is cached outside the tree, one folder per version, in `$WSGIAPP_CACHE/cargo` (default
`${XDG_CACHE_HOME:-~/.cache}/wsgiapp/cargo`), so that a clean clone builds in seconds. Needs cargo (Rust >= 1.88).
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import engine_flags
import lock_engine

SERVER = Path(__file__).resolve().parent
MANIFEST = SERVER / "engine" / "Cargo.toml"
PACKAGE = SERVER / "src" / "prefork"
OLDEST = (3, 11)


def main() -> int:
    """Build for each wanted version; 0 when all are there, 1 with a message on standard error."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    running = f"{sys.version_info.major}.{sys.version_info.minor}"
    parser.add_argument("--python", nargs="+", default=[running], metavar="3.N", type=version)
    parser.add_argument("--into", type=Path, default=PACKAGE, help="folder to put the modules in")
    arguments = parser.parse_args()
    cargo = shutil.which("cargo") or shutil.which("cargo", path=str(Path.home() / ".cargo" / "bin"))
    if cargo is None:
        sys.stderr.write("cargo is not installed: get Rust from https://rustup.rs, then repeat\n")
        return 1
    try:
        lock_engine.lock(cargo)
    except (lock_engine.LockError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for wanted in arguments.python:
        if not build(cargo, wanted, arguments.into):
            sys.stderr.write(
                f"the engine for Python {wanted} did not build; cargo's messages are above\n"
            )
            return 1
    return 0


def version(text: str) -> str:
    """Check a version given on the command line."""
    match = re.fullmatch(r"3\.(\d+)", text)
    if match is None or (3, int(match[1])) < OLDEST:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a supported version; use 3.{OLDEST[1]} or later"
        )
    return text


def build(cargo: str, wanted: str, into: Path) -> bool:
    """Build the module for one version and put it into `into`; tells whether it worked."""
    tag = "cpython-" + wanted.replace(".", "")
    target = cache() / "cargo" / tag
    target.mkdir(parents=True, exist_ok=True)
    config = target / "pyo3.config"
    # Describes the interpreter to PyO3, which then need not run it: so a version can be built that is not installed.
    text = (
        f"implementation=CPython\nversion={wanted}\nshared=true\nabi3=false\npointer_width=64\n"
        "build_flags=\nsuppress_build_script_link_lines=true\n"
    )
    if not config.exists() or config.read_text() != text:
        config.write_text(text)
    environment = {
        k: v for k, v in os.environ.items() if not k.startswith(("PYO3_", "CARGO_BUILD_"))
    }
    environment |= {"PYO3_CONFIG_FILE": str(config), "PYO3_BUILD_EXTENSION_MODULE": "1"}
    environment |= engine_flags.without_paths(environment, MANIFEST.parent)
    command = [cargo, "build", "--release", "--quiet", "--locked", "--package", "prefork-py"]
    command += ["--manifest-path", str(MANIFEST), "--target-dir", str(target)]
    if subprocess.run(command, env=environment, check=False).returncode != 0:
        return False
    module = into / f"_engine.{tag}-{platform.machine()}-linux-gnu.so"
    # By a new file: a running process may have the old one mapped, and must not see it change.
    fresh = module.with_suffix(".new")
    shutil.copyfile(target / "release" / "lib_engine.so", fresh)
    fresh.chmod(0o755)
    fresh.replace(module)
    return True


def cache() -> Path:
    """The folder for what is built once and kept."""
    given = os.environ.get("WSGIAPP_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsgiapp"


if __name__ == "__main__":
    sys.exit(main())
