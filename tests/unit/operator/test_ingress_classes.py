"""An IngressClass is asked for by name, seldom where it is there and soon again where it is not."""

from typing import Any

import pytest
from wsgiapp_operator.client import ApiError
from wsgiapp_operator.ingress_classes import MISSING_S, REMEMBERED, THERE_S, IngressClasses


class Classes:
    """An API server with IngressClasses, which counts how often it is asked."""

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.asked = 0
        self.error: ApiError | None = None
        self.now = 0.0
        cluster: Any = self
        self.classes = IngressClasses(cluster, lambda: self.now)

    async def get(self, kind: str, namespace: str | None, name: str) -> dict[str, Any] | None:
        assert (kind, namespace) == ("IngressClass", None)
        self.asked += 1
        if self.error is not None:
            raise self.error
        return {"metadata": {"name": name}} if name in self.names else None

    async def is_missing(self, name: str | None) -> bool:
        return await self.classes.is_missing(name)


async def test_class_that_is_there_is_asked_for_seldom() -> None:
    seen = Classes("nginx")
    for _ in range(1000):
        assert not await seen.is_missing("nginx")
    seen.now = THERE_S + 1
    seen.names.clear()
    assert await seen.is_missing("nginx")
    assert seen.asked == 2


async def test_class_that_is_missing_is_asked_for_soon_again_and_once_for_all() -> None:
    seen = Classes()
    for _ in range(1000):
        assert await seen.is_missing("nginx")
    assert seen.asked == 1
    seen.names.add("nginx")
    seen.now = MISSING_S + 1
    assert not await seen.is_missing("nginx")


async def test_no_class_is_the_clusters_affair() -> None:
    seen = Classes()
    assert not await seen.is_missing(None)
    assert seen.asked == 0


@pytest.mark.parametrize(
    "name", ["..", "../../../api/v1/namespaces/kube-system/secrets/key", "x?watch=true", "X", "x/y"]
)
async def test_what_cannot_be_a_name_is_missing_and_never_part_of_a_path(name: str) -> None:
    seen = Classes(name)
    assert await seen.is_missing(name)
    assert seen.asked == 0


async def test_what_may_not_be_asked_is_not_judged_and_not_asked_each_time() -> None:
    seen = Classes()
    seen.error = ApiError(403, "ingressclasses is forbidden")
    assert not await seen.is_missing("nginx")
    assert not await seen.is_missing("nginx")
    assert seen.asked == 1


async def test_other_errors_are_repeated() -> None:
    seen = Classes("nginx")
    seen.error = ApiError(500, "etcdserver: request timed out")
    with pytest.raises(ApiError):
        await seen.is_missing("nginx")
    seen.error = None
    assert not await seen.is_missing("nginx")


async def test_names_that_apps_make_up_fill_no_memory() -> None:
    seen = Classes()
    for number in range(REMEMBERED + 10):
        await seen.is_missing(f"class-{number}")
    assert len(seen.classes._seen) <= REMEMBERED
