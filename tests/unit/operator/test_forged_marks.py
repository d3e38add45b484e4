"""What a tenant writes into the annotations of his own objects costs his own app at most, and never its reconcile.

Each annotation that the operator reads back is tried with texts that are not what it writes.
"""

from typing import Any

import pytest
from wsgiapp.names import (
    APPLIED_ANNOTATION,
    LAST_GOOD_KEY,
    PODS_ANNOTATION,
    RELOAD_ANNOTATION,
    RELOAD_BEFORE_ANNOTATION,
    RELOAD_STARTED_ANNOTATION,
    RESTART_ANNOTATION,
    REVISION_ANNOTATION,
    TEMPLATE_ANNOTATION,
)
from wsgiapp.types import Manifest, Ref
from wsgiapp_operator.cache import LONGEST_MARK, AppKey, Cache
from wsgiapp_operator.last_good import read_kept
from wsgiapp_operator.status import REVISION_ANNOTATION as ROLLOUT_ANNOTATION

from tests.unit.operator.fake_cluster import merge
from tests.unit.operator.samples import make_manifest
from tests.unit.operator.test_reconcile import World

TEXTS = {
    "empty": "", "number": "5", "list": "[1]", "null": "null", "deep": "[" * 100_000, "digits": "9" * 5000,
    "object": '{"id": {}, "content": {"source": []}}', "time": "2026-11-22T12:00:00",
}  # fmt: skip
SETTINGS = {"name": "settings", "configMap": {"name": "settings"}, "mountPath": "/settings"}


async def settled_world() -> World:
    world = World()
    first = world.write_code("VERSION = 1")
    metadata = {"name": "settings", "namespace": "web"}
    world.see({"kind": "ConfigMap", "metadata": metadata, "data": {"a": "1"}})
    world.see(make_manifest(config=[{**SETTINGS, "onChange": "Restart"}]))
    await world.reconcile()
    world.run_pods(first)
    await world.reconcile(2)
    assert world.condition("Ready") == ("True", "Serving")
    return world


def annotate(manifest: Manifest, name: str, text: str) -> Manifest:
    return merge(manifest, {"metadata": {"annotations": {name: text}}})  # type: ignore[no-any-return]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize(
    "name",
    [
        RELOAD_ANNOTATION,
        RELOAD_STARTED_ANNOTATION,
        RELOAD_BEFORE_ANNOTATION,
        TEMPLATE_ANNOTATION,
    ],
)
async def test_annotation_of_a_pod(name: str, text: str) -> None:
    world = await settled_world()
    world.see(annotate(world.cluster.objects["Pod", "web", "shop-0"], name, text))
    await world.reconcile(2)
    assert world.condition("Available")[0] == "True"


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("name", [APPLIED_ANNOTATION, PODS_ANNOTATION, ROLLOUT_ANNOTATION])
async def test_annotation_of_a_deployment(name: str, text: str) -> None:
    world = await settled_world()
    world.see(annotate(world.resource("Deployment"), name, text))
    await world.reconcile(2)
    assert world.condition("Available")[0] == "True"
    revision = world.resource("WsgiApp")["status"].get("revision", 0)
    assert revision < 2**63, "what the CRD takes"


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
@pytest.mark.parametrize("name", [RESTART_ANNOTATION, REVISION_ANNOTATION, TEMPLATE_ANNOTATION])
async def test_annotation_of_a_template_is_put_back(name: str, text: str) -> None:
    world = await settled_world()
    live = world.resource("Deployment")
    wanted = live["spec"]["template"]
    world.see({**live, "spec": {**live["spec"], "template": annotate(wanted, name, text)}})
    await world.reconcile()
    assert world.resource("Deployment")["spec"]["template"] == wanted


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_mark_of_a_last_good_copy(text: str) -> None:
    cache, ref = Cache(), Ref("ConfigMap", "shop.source.last-good")
    cache.refer(AppKey("web", "shop"), [ref])
    cache.record_content(copy_with(text))
    digest = cache.digest("web", ref)
    assert digest is not None
    assert read_kept({"source": digest}, "r") == {}


def test_mark_of_a_copy_takes_no_memory_of_everybodys() -> None:
    cache, ref = Cache(), Ref("ConfigMap", "shop.source.last-good")
    cache.refer(AppKey("web", "shop"), [ref])
    for size, kept in ((LONGEST_MARK, LONGEST_MARK), (LONGEST_MARK + 1, 0)):
        cache.record_content(copy_with("x" * size, version=size))
        digest = cache.digest("web", ref)
        assert digest is not None
        assert len(digest.mark) == kept


def copy_with(mark: str, version: int = 1) -> dict[str, Any]:
    metadata = {
        "name": "shop.source.last-good", "namespace": "web", "uid": "u", "resourceVersion": str(version),
    }  # fmt: skip
    return {"kind": "ConfigMap", "metadata": metadata, "data": {LAST_GOOD_KEY: mark}}
