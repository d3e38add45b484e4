"""What the base image says of its packages is what dpkg itself would have written."""

from pathlib import Path

from tests.cluster.rootfs import write_dpkg_status

CONTROLS = ["Package: a\nVersion: 1-2\nArchitecture: amd64\nDescription: A\n more of it\n"] * 2


def test_packages_are_recorded_as_installed_one_paragraph_each(tmp_path: Path) -> None:
    write_dpkg_status(tmp_path, CONTROLS)
    paragraphs = (tmp_path / "var/lib/dpkg/status").read_text().split("\n\n")
    assert [text.splitlines() for text in paragraphs] == [
        [
            "Package: a",
            "Status: install ok installed",
            "Version: 1-2",
            "Architecture: amd64",
            "Description: A",
            " more of it",
        ]
    ] * 2
