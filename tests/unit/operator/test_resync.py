"""A complete listing shows what a broken watch has missed: of each kind, and at once."""

from __future__ import annotations

from typing import Any

import pytest
from wsgiapp.names import KIND, OWNED_KINDS
from wsgiapp.types import Manifest, Ref
from wsgiapp_operator.cache import AppKey, Cache
from wsgiapp_operator.client import ApiError
from wsgiapp_operator.resync import WORTH_A_LISTING, list_everything, read_contents

from tests.unit.operator.fake_cluster import FakeCluster
from tests.unit.operator.samples import CODE, make_manifest

SHOP = AppKey("web", "shop")


class Missed:
    """A cluster, and a cache whose watches are broken: it knows what was there when they broke."""

    def __init__(self) -> None:
        self.cluster: Any = FakeCluster()
        self.cache = Cache()
        self.cache.refer(SHOP, [CODE])

    def see(self, kind: str, name: str, **content: Any) -> Manifest:
        labels = {"wsgi.dev/app": "shop", "app.kubernetes.io/managed-by": "wsgiapp-operator"}
        metadata = {"name": name, "namespace": "web", "labels": labels}
        stored: Manifest = self.cluster.put({"kind": kind, "metadata": metadata, **content})
        self.cache.put(stored)
        self.cache.record_content(stored)
        return stored

    def see_code(self, text: str = "VERSION = 1") -> Manifest:
        return self.see("ConfigMap", CODE.name, data={"app.py": text})

    def declare(self, name: str, config_map: str) -> AppKey:
        manifest = make_manifest(source={"configMap": {"name": config_map}, "mountPath": "/app"})
        manifest["metadata"] |= {"name": name, "uid": f"uid-{name}"}
        self.cache.put(self.cluster.put(manifest))
        return AppKey("web", name)

    async def list(self, *namespaces: str) -> set[AppKey]:
        return await list_everything(self.cluster, self.cache, namespaces)


@pytest.mark.parametrize("kind", [KIND, "Pod", *OWNED_KINDS])
@pytest.mark.parametrize("namespaces", [(), ("web",)])
async def test_deleted_object_is_dropped_and_its_app_looked_at(
    kind: str, namespaces: tuple[str, ...]
) -> None:
    missed = Missed()
    missed.see(kind, "shop")
    missed.cluster.remove(kind, "web", "shop")
    assert await missed.list(*namespaces) == {SHOP}
    assert missed.cache.get(kind, "web", "shop") is None
    assert await missed.list(*namespaces) == set()


@pytest.mark.parametrize("namespaces", [(), ("web",)])
async def test_deleted_content_is_known_as_missing_and_its_app_looked_at(
    namespaces: tuple[str, ...],
) -> None:
    missed = Missed()
    missed.see_code()
    missed.cluster.remove("ConfigMap", "web", CODE.name)
    assert await missed.list(*namespaces) == {SHOP}
    seen = missed.cache.digest("web", CODE)
    assert seen is not None
    assert seen.digest is None
    assert await missed.list(*namespaces) == set()


async def test_content_that_is_there_again_or_has_changed_is_read_anew() -> None:
    missed = Missed()
    stored = missed.see_code()
    missed.cluster.put({**stored, "data": {"app.py": "VERSION = 2"}})
    assert await missed.list() == {SHOP}
    assert missed.cache.digest("web", CODE) is None
    missed.cache.record_missing("web", CODE)
    assert await missed.list() == {SHOP}
    assert missed.cache.digest("web", CODE) is None


async def test_content_that_is_as_known_is_neither_read_anew_nor_news() -> None:
    missed = Missed()
    missed.see_code()
    before = missed.cache.digest("web", CODE)
    assert await missed.list() == set()
    assert missed.cache.digest("web", CODE) == before


async def test_content_of_which_the_watch_tells_meanwhile_is_as_the_watch_has_it() -> None:
    missed = Missed()
    missed.see_code()
    before = missed.cache.contents("ConfigMap")
    missed.see_code("VERSION = 2")
    seen = missed.cache.digest("web", CODE)
    assert missed.cache.compare_contents({}, before) == set()
    assert missed.cache.digest("web", CODE) == seen


async def test_content_in_a_namespace_that_may_not_be_listed_stays_known() -> None:
    missed = Missed()
    missed.see_code()
    missed.cluster.remove("ConfigMap", "web", CODE.name)
    missed.cluster.forbidden.add("web")
    before = missed.cache.digest("web", CODE)
    assert await missed.list("web", "other") == set()
    assert await missed.list("web") == set()
    assert missed.cache.digest("web", CODE) == before


@pytest.mark.parametrize("count", [WORTH_A_LISTING, WORTH_A_LISTING - 1, 2])
async def test_contents_are_known_at_the_start_and_those_of_nobody_are_not(count: int) -> None:
    missed = Missed()
    missed.cache.refer(SHOP, ())
    for number in range(count):
        missed.declare(f"app-{number}", f"code-{number}")
    for name in ("code-0", "code-foreign"):
        metadata = {"name": name, "namespace": "web"}
        missed.cluster.put({"kind": "ConfigMap", "metadata": metadata, "data": {"a.py": ""}})
    await read_contents(missed.cluster, missed.cache, ())
    there, absent = (
        missed.cache.digest("web", Ref("ConfigMap", name)) for name in ("code-0", "code-1")
    )
    assert there is not None
    assert there.digest is not None
    assert absent is not None
    assert absent.digest is None
    assert missed.cache.digest("web", Ref("ConfigMap", "code-foreign")) is None


async def test_content_that_may_not_be_read_is_not_taken_for_missing() -> None:
    missed = Missed()
    missed.declare("app-1", "code-1")

    async def refuse(kind: str, namespace: str, name: str) -> None:
        raise ApiError(403, f"configmaps {name} is forbidden")

    missed.cluster.get = refuse
    await read_contents(missed.cluster, missed.cache, ("web",))
    assert missed.cache.digest("web", Ref("ConfigMap", "code-1")) is None


async def test_content_in_a_namespace_that_may_not_be_listed_is_not_taken_for_missing() -> None:
    missed = Missed()
    for number in range(WORTH_A_LISTING):
        missed.declare(f"app-{number}", f"code-{number}")
    missed.cluster.forbidden.add("web")
    await read_contents(missed.cluster, missed.cache, ("web", "other"))
    assert missed.cache.digest("web", Ref("ConfigMap", "code-0")) is None
