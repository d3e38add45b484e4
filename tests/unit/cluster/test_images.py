"""Images are built from the cache where nothing changed, and say what is missing where something is."""

from pathlib import Path

import pytest

from tests.cluster.commands import ClusterError
from tests.cluster.contents import Base, Contents, ImageSpec, LayerSpec
from tests.cluster.images import ImageBuilder, config_of, full_name, leave_out_commands
from tests.cluster.paths import Paths

CONTENTS = Contents(Base("python:3.13-slim", "/site", "trixie", ()), (), ignore=("__pycache__",))


def _spec(*layers: LayerSpec, prepare: tuple[str, ...] = ()) -> ImageSpec:
    return ImageSpec("a/b:1", "B", layers, False, None, "1000:1000", "", ("/run",), {}, prepare)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    code = tmp_path / "tree" / "code"
    (code / "__pycache__").mkdir(parents=True)
    (code / "__pycache__" / "app.pyc").write_bytes(b"x")
    (code / "app.py").write_text("1")
    return tmp_path / "tree"


def _builder(tree: Path) -> ImageBuilder:
    return ImageBuilder(CONTENTS, Paths(tree.parent / "cache"), tree=tree)


COPY = LayerSpec("copy", ("code",), "/app")


def test_unchanged_image_keeps_its_digest_and_what_is_ignored_does_not_count(tree: Path) -> None:
    before = _builder(tree).build(_spec(COPY)).digest
    (tree / "code" / "__pycache__" / "more.pyc").write_bytes(b"y")
    assert _builder(tree).build(_spec(COPY)).digest == before


def test_changed_file_changes_the_digest(tree: Path) -> None:
    before = _builder(tree).build(_spec(COPY)).digest
    (tree / "code" / "app.py").write_text("2")
    assert _builder(tree).build(_spec(COPY)).digest != before


def test_moved_file_changes_the_digest(tree: Path) -> None:
    before = _builder(tree).build(_spec(COPY)).digest
    (tree / "code" / "app.py").rename(tree / "code" / "main.py")
    assert _builder(tree).build(_spec(COPY)).digest != before


def test_commands_are_left_out_and_not_recorded(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "kopf-1.dist-info").mkdir()
    record = tmp_path / "kopf-1.dist-info" / "RECORD"
    record.write_text("../../bin/kopf,sha256=a,9\nkopf/bin/x.py,sha256=b,9\nbin/kopf,,\n")
    leave_out_commands(tmp_path)
    assert record.read_text() == "kopf/bin/x.py,sha256=b,9\n"
    assert not (tmp_path / "bin").exists()


def test_prune_keeps_the_layers_in_use_only(tree: Path) -> None:
    builder = _builder(tree)
    old = builder.build(_spec(COPY))
    (tree / "code" / "app.py").write_text("2")
    new = builder.build(_spec(COPY))
    builder.prune([new])
    assert [blob.file.exists() for blob in (*old.layers, *new.layers)] == [False, True]


def test_prepared_files_are_in_the_image(tree: Path) -> None:
    script = "import pathlib, sys; pathlib.Path(__file__).with_name('code').joinpath(sys.argv[1]).touch()"
    (tree / "prepare.py").write_text(script)
    before = _builder(tree).build(_spec(COPY)).digest
    assert _builder(tree).build(_spec(COPY, prepare=("prepare.py", "made"))).digest != before
    assert (tree / "code" / "made").exists()


def test_preparation_that_fails_tells_why(tree: Path) -> None:
    (tree / "prepare.py").write_text("raise SystemExit('no compiler here')")
    with pytest.raises(ClusterError, match="no compiler here"):
        _builder(tree).build(_spec(COPY, prepare=("prepare.py",)))


def test_missing_source_is_named(tree: Path) -> None:
    with pytest.raises(ClusterError, match="nowhere is missing"):
        _builder(tree).build(_spec(LayerSpec("copy", ("nowhere",), "/app")))


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("python:3.13-slim", "docker.io/library/python:3.13-slim"),
        ("wsgiapp/prefork:0.1.0", "docker.io/wsgiapp/prefork:0.1.0"),
        ("registry.example/shop:1", "registry.example/shop:1"),
        ("localhost:5000/shop", "localhost:5000/shop"),
    ],
)
def test_short_names_are_completed_as_runtimes_do(name: str, full: str) -> None:
    assert full_name(name) == full


def test_config_says_who_runs_what() -> None:
    config = config_of(_spec(COPY))
    assert config["User"] == "1000:1000"
    assert config["Entrypoint"] == ["/run"]
    assert "Cmd" not in config
