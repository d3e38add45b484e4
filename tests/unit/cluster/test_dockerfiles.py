"""The Dockerfiles in the tree are those that images.toml makes."""

from pathlib import Path

import pytest

from tests.cluster.contents import ImageSpec, read_contents
from tests.cluster.dockerfiles import render_all, render_dockerfile
from tests.cluster.paths import TREE

FILES = render_all(read_contents())


@pytest.mark.parametrize("path", FILES, ids=str)
def test_dockerfile_in_the_tree_is_the_one_of_the_list(path: Path) -> None:
    assert (TREE / path).read_text() == FILES[path], f"{path} is stale; run: make generate"


def _images_for_users() -> list[ImageSpec]:
    return [image for image in read_contents().images if image.dockerfile]


@pytest.mark.parametrize("image", _images_for_users(), ids=lambda image: image.name)
def test_dockerfile_takes_every_layer_of_its_image(image: ImageSpec) -> None:
    text = render_dockerfile(image, read_contents())
    for layer in image.layers:
        for source in layer.what:
            assert source in text
        assert layer.to in text


@pytest.mark.parametrize("image", _images_for_users(), ids=lambda image: image.name)
def test_context_lets_through_what_the_image_copies(image: ImageSpec) -> None:
    ignore = FILES[Path(".dockerignore")].splitlines()
    assert {f"!{source}" for layer in image.layers for source in layer.what} <= set(ignore)


def test_images_that_ship_run_without_root() -> None:
    ours = {image.name.split(":")[0]: image for image in read_contents().images}
    for name in ("wsgiapp/prefork", "wsgiapp/operator"):
        user = ours[name].user.split(":")[0]
        assert int(user) > 0
