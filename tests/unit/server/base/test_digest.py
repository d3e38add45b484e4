"""Digests of directories: the shared vectors, and how a mounted volume looks."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from prefork.base.digest import KEY, LAST_GOOD, digest_directory, digest_files, with_key

VECTORS = json.loads((Path(__file__).parents[3] / "golden" / "content_digest.json").read_text())


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_directory_has_the_digest_of_the_object(case: dict[str, Any], tmp_path: Path):
    for name, text in case["data"].items():
        (tmp_path / name).write_bytes(text.encode())
    for name, encoded in case["binaryData"].items():
        (tmp_path / name).write_bytes(base64.b64decode(encoded))
    assert digest_directory(tmp_path) == case["digest"]


@pytest.mark.parametrize("case", VECTORS["keyed"], ids=lambda case: case["key"][:8])
def test_folder_with_a_key_has_the_keyed_digest(case: dict[str, Any], tmp_path: Path):
    (tmp_path / "app.py").write_text("x = 1\n")
    (tmp_path / KEY).write_bytes(bytes.fromhex(case["key"]))
    assert digest_directory(tmp_path) == case["keyed"]
    assert with_key(case["digest"], b"") == case["digest"]


def mount(folder: Path, version: str, files: dict[str, str]) -> None:
    """Lay files out as the kubelet does: links into ..data, which is swapped whole."""
    data = folder / f"..{version}"
    data.mkdir()
    for name, text in files.items():
        (data / name).write_text(text)
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(f"..data/{name}")
    draft = folder / "..data_tmp"
    draft.symlink_to(data.name)
    draft.rename(folder / "..data")


def test_mounted_volume_has_the_digest_of_its_files(tmp_path: Path):
    mount(tmp_path, "one", {"a": "1", "b": "2"})
    assert digest_directory(tmp_path) == digest_files({"a": b"1", "b": b"2"})
    mount(tmp_path, "two", {"a": "3", "b": "2"})
    assert digest_directory(tmp_path) == digest_files({"a": b"3", "b": b"2"})


def test_compiled_files_folders_and_the_mark_of_a_copy_do_not_count(tmp_path: Path):
    (tmp_path / "a").write_text("1")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / LAST_GOOD).write_text("{}")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b").write_text("2")
    assert digest_directory(tmp_path) == digest_files({"a": b"1"})


def test_missing_directory_is_an_error(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        digest_directory(tmp_path / "none")
