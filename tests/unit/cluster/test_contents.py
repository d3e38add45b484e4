"""images.toml is read strictly: a key that would be ignored in silence is an error."""

from pathlib import Path

import pytest

from tests.cluster.commands import ClusterError
from tests.cluster.contents import read_contents

BASE = """
ignore = ["__pycache__", "*.pyc", ".*"]
version = "1.2"
[base]
name = "python:3.13-slim"
site = "/site"
suite = "trixie"
debian = []
"""


def _write(tmp_path: Path, text: str) -> Path:
    source = tmp_path / "images.toml"
    source.write_text(BASE + text)
    return source


def test_image_takes_the_common_version_unless_it_has_its_own(tmp_path: Path) -> None:
    text = """
    [[image]]
    name = "a/one"
    about = "One"
    layers = []
    [[image]]
    name = "a/two"
    about = "Two"
    version = "7"
    layers = []
    """
    assert [i.name for i in read_contents(_write(tmp_path, text)).images] == [
        "a/one:1.2",
        "a/two:7",
    ]


@pytest.mark.parametrize(
    ("image", "named"),
    [
        ('name = "a/b"\nabout = "x"\nlayers = []\nentry_point = []', "entry_point"),
        ('name = "a/b"\nabout = "x"\nlayers = [{wheel = "x", to = "/"}]', "a/b"),
        ('name = "a/b"\nabout = "x"\nlayers = [{pip = "x", copy = "y"}]', "one of pip, copy"),
    ],
)
def test_unknown_key_is_named(tmp_path: Path, image: str, named: str) -> None:
    with pytest.raises(ClusterError, match=named):
        read_contents(_write(tmp_path, "[[image]]\n" + image))


@pytest.mark.parametrize(
    ("path", "ignored"),
    [
        ("app.py", False),
        ("__pycache__/app.cpython-313.pyc", True),
        ("deep/__pycache__/x", True),
        ("deep/x.pyc", True),
        (".hidden", True),
        ("deep/.cache/x", True),
    ],
)
def test_ignored_paths_stay_out(tmp_path: Path, path: str, ignored: bool) -> None:
    source = tmp_path / "images.toml"
    source.write_text("image = []\n" + BASE)
    assert read_contents(source).is_ignored(Path(path)) is ignored
