"""Lock the engine's crates: `engine/Cargo.lock` is made from `engine/crates.txt` (name, version, SHA-256 a line).

    python server/lock_engine.py             # Cargo.lock as crates.txt wants it; nothing to do when it already is
    python server/lock_engine.py --renew     # newest versions that Cargo.toml allows, written to crates.txt
    python server/lock_engine.py --folder server/engine/fuzz     # the same for the fuzz targets

The list is what is reviewed and kept; cargo writes the graph around it, and each checksum is compared, so that a build
uses exactly the listed crates or fails.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tomllib
from pathlib import Path

ENGINE = Path(__file__).resolve().parent / "engine"

Crates = dict[tuple[str, str], str]  # (name, version) -> SHA-256, hex


class LockError(Exception):
    """The listed crates cannot be had as listed; the message names them."""


def lock(cargo: str, folder: Path = ENGINE) -> None:
    """Make the `Cargo.lock` in `folder` hold the crates of its `crates.txt`, no other version and no other checksum.

    Raises LockError when that is impossible, CalledProcessError when cargo fails (its message is on standard error).
    """
    lock_file = folder / "Cargo.lock"
    wanted = parse_list((folder / "crates.txt").read_text())
    if lock_file.exists() and parse_lock(lock_file.read_text()) == wanted:
        return
    resolve(cargo, folder)
    have = parse_lock(lock_file.read_text())
    for name, version in sorted(have.keys() - wanted.keys()):
        listed = [v for n, v in wanted if n == name]
        if len(listed) == 1:
            package = ("--package", f"{name}@{version}", "--precise", listed[0])
            run(cargo, folder, "update", "--quiet", *package)
    have = parse_lock(lock_file.read_text())
    if have != wanted:
        differing = sorted({f"{n} {v}" for (n, v), _ in have.items() ^ wanted.items()})
        lock_file.unlink()
        raise LockError(
            f"crates.txt does not fit Cargo.toml or the registry: {', '.join(differing)}; "
            "renew it by `python server/lock_engine.py --renew` and review the change"
        )


def renew(cargo: str, folder: Path = ENGINE) -> None:
    """Write the newest crates that Cargo.toml allows to `crates.txt`."""
    resolve(cargo, folder)
    crates = parse_lock((folder / "Cargo.lock").read_text())
    lines = (f"{n} {v} {digest}\n" for (n, v), digest in sorted(crates.items()))
    (folder / "crates.txt").write_text("".join(lines))


def resolve(cargo: str, folder: Path) -> None:
    """Have cargo resolve Cargo.toml afresh."""
    (folder / "Cargo.lock").unlink(missing_ok=True)
    run(cargo, folder, "generate-lockfile", "--quiet")


def run(cargo: str, folder: Path, command: str, *arguments: str) -> None:
    """Run one cargo command on the workspace in `folder`."""
    manifest = str(folder / "Cargo.toml")
    subprocess.run([cargo, command, "--manifest-path", manifest, *arguments], check=True)


def parse_list(text: str) -> Crates:
    """Parse crates.txt."""
    rows = (line.split() for line in text.splitlines() if line.strip())
    return {(name, version): digest for name, version, digest in rows}


def parse_lock(text: str) -> Crates:
    """The crates of a Cargo.lock that come from a registry; the workspace's own have no checksum."""
    packages = tomllib.loads(text).get("package", [])
    return {(p["name"], p["version"]): p["checksum"] for p in packages if "checksum" in p}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--renew", action="store_true", help="newest versions, written to crates.txt"
    )
    parser.add_argument("--folder", type=Path, default=ENGINE, help="of the Cargo.toml")
    arguments = parser.parse_args()
    try:
        (renew if arguments.renew else lock)("cargo", arguments.folder.resolve())
    except (LockError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
