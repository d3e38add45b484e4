"""Images are a function of their content: equal files give equal digests, and an archive is complete."""

import json
import os
import tarfile
from pathlib import Path

from tests.cluster.oci import Blob, Image, digest_of, write_archive, write_layer


def _layer(tmp_path: Path, name: str, files: dict[str, str]) -> Blob:
    source = tmp_path / name
    for path, text in files.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_text(text)
    out = tmp_path / f"{name}.tar"
    write_layer([(source, "/opt/app")], out)
    return Blob(out, digest_of(out.read_bytes()), out.stat().st_size)


def test_layer_does_not_depend_on_times_umask_or_order(tmp_path: Path) -> None:
    first = _layer(tmp_path, "first", {"a.py": "1", "pkg/b.py": "2"})
    second = tmp_path / "second"
    (second / "pkg").mkdir(parents=True, mode=0o700)
    (second / "pkg" / "b.py").write_text("2")
    (second / "a.py").write_text("1")
    (second / "a.py").chmod(0o600)
    os.utime(second / "a.py", (1, 1))
    write_layer([(second, "/opt/app")], tmp_path / "again.tar")
    assert digest_of((tmp_path / "again.tar").read_bytes()) == first.digest


def test_layer_changes_with_content_and_with_the_executable_bit(tmp_path: Path) -> None:
    first = _layer(tmp_path, "first", {"run": "1"})
    assert _layer(tmp_path, "changed", {"run": "2"}).digest != first.digest
    (tmp_path / "first" / "run").chmod(0o755)
    assert _layer(tmp_path, "first", {}).digest != first.digest


def test_layer_holds_files_at_their_place_owned_by_root(tmp_path: Path) -> None:
    layer = _layer(tmp_path, "app", {"pkg/b.py": "text"})
    with tarfile.open(layer.file) as archive:
        assert archive.getnames() == ["opt", "opt/app", "opt/app/pkg", "opt/app/pkg/b.py"]
        member = archive.getmember("opt/app/pkg/b.py")
        assert (member.uid, member.gid, member.mtime, member.mode) == (0, 0, 0, 0o644)
        data = archive.extractfile(member)
        assert data is not None
        assert data.read() == b"text"


def test_layer_keeps_links(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "python").symlink_to("python3")
    write_layer([(tmp_path / "root", "/")], tmp_path / "links.tar")
    with tarfile.open(tmp_path / "links.tar") as archive:
        assert archive.getmember("python").linkname == "python3"


def test_archive_holds_every_blob_once_and_names_each_image(tmp_path: Path) -> None:
    shared = _layer(tmp_path, "base", {"base": "x"})
    own = _layer(tmp_path, "own", {"own": "y"})
    images = [
        Image("docker.io/a/one:1", {"Cmd": ["one"]}, [shared]),
        Image("docker.io/a/two:1", {"Cmd": ["two"]}, [shared, own]),
    ]
    write_archive(images, tmp_path / "all.tar")
    with tarfile.open(tmp_path / "all.tar") as archive:
        names = archive.getnames()
        blobs = {}
        for name in names:
            data = archive.extractfile(name)
            assert data is not None
            blobs[name] = data.read()
    assert len(names) == len(set(names))
    entries = json.loads(blobs["index.json"])["manifests"]
    named = {entry["annotations"]["io.containerd.image.name"]: entry["digest"] for entry in entries}
    assert named == {
        name: image.digest for image in images for name in (image.name, image.image_id)
    }
    for entry in entries:
        manifest = json.loads(blobs[_blob(entry["digest"])])
        for part in [manifest["config"], *manifest["layers"]]:
            data = blobs[_blob(part["digest"])]
            assert digest_of(data) == part["digest"]
            assert len(data) == part["size"]


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")
