"""What an image's files show is in its list of components, also what nobody declared."""

import io
import tarfile
from pathlib import Path

from tests.support.image_sbom import describe, expected, find_distributions, present


def _image(folder: Path, *members: str) -> Path:
    path = folder / "rootfs.tar"
    with tarfile.open(path, "w") as archive:
        for member in members:
            archive.addfile(tarfile.TarInfo(member), io.BytesIO())
    return path


def test_python_distributions_of_the_base_image_are_found_and_listed(tmp_path: Path) -> None:
    site = "usr/local/lib/python3.13/site-packages"
    root = _image(tmp_path, f"{site}/pip-26.1.dist-info/METADATA", f"{site}/pip/METADATA")
    assert find_distributions(root) == {"pip": "26.1"}
    components = describe({"pip": "26.1", "Flask_Cors": "5"}, "3.13.9")["components"]
    assert present(components) == {"pypi/pip", "pypi/flask-cors", "generic/cpython"}


def test_source_packages_of_debian_do_not_stand_for_installed_ones() -> None:
    purls = {
        "libc6": "pkg:deb/debian/libc6@2?arch=amd64",
        "glibc": "pkg:deb/debian/glibc@2?arch=source",
    }
    assert present({"name": name, "purl": purl} for name, purl in purls.items()) == {"deb/libc6"}


def test_list_needs_the_debian_packages_the_locked_ones_and_the_crates() -> None:
    assert {"deb/libc6", "deb/python3.13", "pypi/prometheus-client", "cargo/pyo3"} <= expected(
        "prefork", interpreter=None
    )
    assert "generic/cpython" in expected("operator", interpreter="3.13.9")
