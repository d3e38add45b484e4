"""Makes the base image's root file system of chosen Debian packages, without running their scripts.

What those scripts would have done and is needed is done here: links, users, certificates, byte code.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.commands import run
from tests.cluster.contents import Base
from tests.cluster.packages import unpack_debian
from tests.cluster.paths import Paths

PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n"
GROUP = "root:x:0:\nnogroup:x:65534:\n"
# The modules with a shared library behind them: a missing package shows here, not in a pod.
SMOKE = (
    "import bz2, ctypes, curses, decimal, hashlib, lzma, readline, sqlite3,"
    " ssl, uuid, zlib, zoneinfo"
)

# Files that are not Python of this version (templates, tests of syntax) stay source.
COMPILE = (
    "import compileall, py_compile, re, sys; compileall.compile_dir(sys.argv[1], quiet=2,"
    " stripdir=sys.argv[1], prependdir=sys.argv[2], rx=re.compile(sys.argv[3]),"
    " invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)"
)


def make_rootfs(base: Base, root: Path, paths: Paths) -> None:
    """Fill the empty folder `root`; raises `ClusterError` when its Python does not work."""
    for folder in ("bin", "lib", "lib64", "sbin"):
        (root / "usr" / folder).mkdir(parents=True, exist_ok=True)
        (root / folder).symlink_to(f"usr/{folder}")
    write_dpkg_status(root, unpack_debian(base.debian, base.suite, root, paths))
    for folder in ("proc", "sys", "dev", "root", "run", "tmp", "var/tmp", "usr/local/bin"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for folder in ("tmp", "var/tmp"):
        (root / folder).chmod(0o1777)
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    (root / "etc/nsswitch.conf").write_text("passwd: files\ngroup: files\nhosts: files dns\n")
    _write_certificates(root)
    _finish_python(base, root)
    run(["ldconfig", "-r", root])
    shutil.rmtree(root / "var/cache")  # ldconfig's, with times in it


def write_dpkg_status(root: Path, controls: Sequence[str]) -> None:
    """Record the packages as installed, where dpkg would: scanners and component lists read it there.

    `controls` are the packages' control files.
    """
    status = root / "var/lib/dpkg/status"
    status.parent.mkdir(parents=True, exist_ok=True)
    installed = "\nStatus: install ok installed\n"
    records = (control.strip().replace("\n", installed, 1) + "\n" for control in controls)
    status.write_text("\n".join(records))
    (status.parent / "arch-native").write_text("amd64\n")


def _write_certificates(root: Path) -> None:
    certificates = sorted((root / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_text("".join(file.read_text() for file in certificates))


def _finish_python(base: Base, root: Path) -> None:
    """The image python:3.13-slim has its Python under /usr/local; manifests may count on both paths."""
    for name in ("python3", "python"):
        for folder in ("usr/bin", "usr/local/bin"):
            (root / folder / name).unlink(missing_ok=True)
            (root / folder / name).symlink_to("/usr/bin/python3.13")
    (root / base.site.lstrip("/")).mkdir(parents=True, exist_ok=True)
    packages = root / "usr/lib/python3/dist-packages"
    packages.mkdir(parents=True, exist_ok=True)
    (packages / "usr-local.pth").write_text(base.site + "\n")
    for unused in ("test", "idlelib", "ensurepip", "turtledemo", "lib2to3"):
        shutil.rmtree(root / "usr/lib/python3.13" / unused, ignore_errors=True)
    run(["chroot", root, "/usr/bin/python3.13", "-I", "-c", SMOKE])
    compile_python(root, "/usr/lib/python3.13")


def compile_python(root: Path, folder: str, *, at: str | None = None, skip: str = "") -> None:
    """Byte-compile `folder` (a path inside `root`) with the Python of `root`.

    `at` is where it will lie in the image, `skip` a regular expression on paths. The byte code is trusted without a look at the source: layers
    carry no modification times.
    """
    run(
        [
            "chroot",
            root,
            "/usr/bin/python3.13",
            "-I",
            "-c",
            COMPILE,
            folder,
            at or folder,
            skip or "(?!)",
        ]
    )
