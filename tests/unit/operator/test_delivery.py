"""How pods get the server follows from what every node can do, not from the API server."""

from typing import Any

import pytest
from wsgiapp_operator.client import ApiError
from wsgiapp_operator.main import have_image_volumes


class Nodes:
    """A cluster whose nodes have kubelets of these versions; None: they may not be listed."""

    def __init__(self, kubelets: list[tuple[int, int]] | None) -> None:
        self._kubelets = kubelets

    async def list_kubelet_versions(self) -> list[tuple[int, int]]:
        if self._kubelets is None:
            raise ApiError(403, "nodes is forbidden")
        return self._kubelets


@pytest.mark.parametrize(
    ("version", "kubelets", "image"),
    [
        ((1, 37), [(1, 37), (1, 35)], True),
        ((1, 35), [(1, 35), (1, 34)], False),  # the control plane is upgraded first
        ((1, 34), [(1, 35)], False),
        ((1, 37), None, False),  # an operator for some namespaces only
        ((1, 37), [], True),  # nodes to come are not older
    ],
)
async def test_image_volumes_need_every_kubelet(
    version: tuple[int, int], kubelets: list[tuple[int, int]] | None, image: bool
) -> None:
    cluster: Any = Nodes(kubelets)
    assert await have_image_volumes(cluster, version) is image
