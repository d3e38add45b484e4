"""Flags for rustc with which the engine's bytes depend on its sources, crates and tools alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def without_paths(environ: Mapping[str, str], engine: Path) -> dict[str, str]:
    """Return rustc's flags, as a variable for cargo, that keep this machine's folders out of the module; pure.

    Equal sources and crates then give equal bytes wherever they lie. Flags of `environ` stay.
    """
    given = environ.get("CARGO_ENCODED_RUSTFLAGS", "").split("\x1f")
    flags = [*filter(None, given)] or environ.get("RUSTFLAGS", "").split()
    crates = Path(environ.get("CARGO_HOME") or Path.home() / ".cargo") / "registry" / "src"
    flags += [f"--remap-path-prefix={engine}=/prefork/engine"]
    flags += [f"--remap-path-prefix={crates}=/crates"]
    return {"CARGO_ENCODED_RUSTFLAGS": "\x1f".join(flags)}
