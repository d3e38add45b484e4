"""The last good contents: when they are kept, what the copies say, and what the status shows of them."""

import base64
import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from wsgiapp.digest import digest_object
from wsgiapp.names import RELOAD_ANNOTATION, last_good_name
from wsgiapp.parse import parse_app
from wsgiapp.resources.deployment import build_template
from wsgiapp.types import Manifest
from wsgiapp_operator.client import ApiError
from wsgiapp_operator.status import show_time

from tests.unit.operator.samples import CODE, NOW, PLATFORM, make_app, make_manifest
from tests.unit.operator.test_reconcile import World, world

__all__ = ["world"]  # a fixture
COPY = "shop.source.last-good"


def copy_of(world: World, name: str = COPY) -> Manifest:
    found = world.cluster.objects["ConfigMap", "web", name]
    return found


def mark_of(copy: Manifest) -> dict[str, Any]:
    mark: dict[str, Any] = json.loads(copy["data"]["wsgi.dev.last-good"])
    return mark


def contents(world: World) -> dict[str, Any]:
    (shown,) = world.resource("WsgiApp")["status"]["contents"]
    return dict(shown)


def revision(**spec: Any) -> str:
    template = build_template(make_app(**spec), PLATFORM, {})
    return str(template["metadata"]["annotations"]["wsgi.dev/revision"])


async def test_content_that_every_pod_serves_is_kept_with_what_it_is_good_for(world: World) -> None:
    code = world.cluster.objects["ConfigMap", "web", CODE.name]
    copy = copy_of(world)
    digest = digest_object(code)
    assert digest_object(copy) == digest
    assert copy["data"]["app.py"] == "VERSION = 1"
    assert mark_of(copy) == {"contents": {"source": digest}, "revision": revision()}
    assert [owner["uid"] for owner in copy["metadata"]["ownerReferences"]] == ["app-uid"]
    assert contents(world) == {
        "name": "source", "declared": digest[:12], "lastGood": digest[:12],
        "serving": [{"digest": digest[:12], "pods": 3}],
    }  # fmt: skip


async def test_copy_follows_once_all_pods_have_the_new_content(world: World) -> None:
    first = digest_object(copy_of(world))
    second = world.write_code("VERSION = 2")
    await world.reconcile(2)
    assert digest_object(copy_of(world)) == first
    assert contents(world)["serving"] == [
        {"digest": digest[:12], "pods": pods}
        for digest, pods in sorted({first: 2, second: 1}.items())
    ]
    await world.reconcile(3)
    assert digest_object(copy_of(world)) == second
    assert contents(world)["lastGood"] == second[:12]
    world.cluster.writes.clear()
    await world.reconcile(2)
    assert world.cluster.writes == []


@pytest.mark.parametrize(("unplaced", "is_kept"), [(1, True), (3, False)])
async def test_pods_that_no_node_has_room_for_do_not_count(unplaced: int, is_kept: bool) -> None:
    """An app that is scaled beyond its cluster would never have a last good content."""
    world = World()
    first = world.write_code("VERSION = 1")
    world.see(make_manifest())
    await world.reconcile()
    world.run_pods(first)
    for number in range(unplaced):
        pod = world.cluster.objects["Pod", "web", f"shop-{number}"]
        unplaceable = {"type": "PodScheduled", "status": "False", "message": "Insufficient cpu"}
        status = {"phase": "Pending", "conditions": [unplaceable]}
        world.see({**pod, "status": status})
        world.agents.silent.add(f"shop-{number}")
    deployment = world.resource("Deployment")
    placed = dict.fromkeys(("readyReplicas", "availableReplicas"), 3 - unplaced)
    world.see({**deployment, "status": {**deployment["status"], **placed}})
    await world.reconcile()
    assert (("ConfigMap", "web", COPY) in world.cluster.objects) is is_kept


async def test_failed_content_is_never_kept(world: World) -> None:
    first = digest_object(copy_of(world))
    world.agents.broken = world.write_code("VERSION = ")
    await world.reconcile(6)
    assert digest_object(copy_of(world)) == first
    shown = contents(world)
    assert shown["lastGood"] == first[:12]
    assert shown["declared"] == world.agents.broken[:12]
    assert shown["serving"] == [{"digest": first[:12], "pods": 3}]


async def test_copy_that_was_deleted_or_edited_is_made_anew(world: World) -> None:
    copy = world.cluster.remove("ConfigMap", "web", COPY)
    version = str(int(copy["metadata"]["resourceVersion"]) + 1000)
    gone = {**copy, "metadata": {**copy["metadata"], "resourceVersion": version}}
    assert world.cache.record_content(gone, deleted=True)
    world.cluster._versions = iter(range(5000, 9000))  # type: ignore[assignment]
    await world.reconcile()
    assert copy_of(world)["data"] == copy["data"]
    world.see({**copy_of(world), "data": {"app.py": "edited"}})
    await world.reconcile()
    assert copy_of(world)["data"] == copy["data"]


async def test_new_image_has_no_last_good_content_until_its_pods_serve(world: World) -> None:
    before = mark_of(copy_of(world))
    stored = world.cluster.objects["WsgiApp", "web", "shop"]
    spec = {**stored["spec"], "image": "shop:2"}
    world.see({**stored, "spec": spec})
    await world.reconcile(2)
    assert mark_of(copy_of(world)) == before
    assert "lastGood" not in contents(world)
    world.run_pods(world.agents.serves["shop-0"])
    await world.reconcile(2)
    assert mark_of(copy_of(world))["revision"] == revision(image="shop:2") != before["revision"]
    assert "lastGood" in contents(world)


async def test_pods_that_have_just_become_ready_prove_nothing_yet(world: World) -> None:
    world.cluster.remove("ConfigMap", "web", COPY)
    world.start_operator()
    world.agents.steady_s = 4.9
    for manifest in world.cluster.objects.values():
        world.cache.put(manifest)
    await world.reconcile(2)
    assert ("ConfigMap", "web", COPY) not in world.cluster.objects
    world.agents.steady_s = 5.0
    await world.reconcile()
    assert copy_of(world)


@pytest.mark.parametrize("minutes", [-5, 5, 60 * 24])
async def test_clock_of_a_node_that_is_wrong_holds_up_nothing(world: World, minutes: int) -> None:
    """Neither a reload nor the copy: the times in a pod's status are its node's."""
    moment = show_time(NOW + timedelta(minutes=minutes))
    ended = {"exitCode": 1, "containerID": "containerd://0", "finishedAt": moment}
    container = {"name": "app", "ready": True, "lastState": {"terminated": ended}}
    for i in range(3):
        pod = world.cluster.objects["Pod", "web", f"shop-{i}"]
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": moment}
        status = {**pod["status"], "conditions": [ready], "containerStatuses": [container]}
        world.see({**pod, "status": status})
    world.write_code("VERSION = 2")
    await world.reconcile(5)
    assert world.condition("Reloaded") == ("True", "ContentLoaded")
    assert copy_of(world)["data"]["app.py"] == "VERSION = 2"


@pytest.mark.parametrize("minutes", [-5, 5, 60 * 24])
async def test_content_that_ends_its_container_fails_whatever_the_node_s_clock_says(
    world: World, minutes: int
) -> None:
    world.write_code("VERSION = 2")
    await world.reconcile()
    pod = world.cluster.objects["Pod", "web", "shop-0"]
    assert RELOAD_ANNOTATION in pod["metadata"]["annotations"]
    finished = show_time(NOW + timedelta(minutes=minutes))
    ended = {"exitCode": 1, "containerID": "containerd://1", "finishedAt": finished}
    container = {"name": "app", "ready": False, "lastState": {"terminated": ended}}
    world.see({**pod, "status": {**pod["status"], "containerStatuses": [container]}})
    await world.reconcile()
    assert world.condition("Reloaded") == ("False", "ReloadFailed")


async def test_container_that_is_killed_is_asked_the_same_twice_and_no_more(world: World) -> None:
    """As by the kernel of a node without memory, or by a person."""
    world.write_code("VERSION = 2")
    await world.reconcile()
    for killed, expected in enumerate(["Reloading", "ReloadFailed"], start=1):
        pod = world.cluster.objects["Pod", "web", "shop-0"]
        ended = {"exitCode": 137, "reason": "Error", "containerID": f"containerd://{killed}"}
        container = {"name": "app", "ready": False, "lastState": {"terminated": ended}}
        world.see({**pod, "status": {**pod["status"], "containerStatuses": [container]}})
        await world.reconcile()
        assert world.condition("Reloaded")[1] == expected
    asked = [
        key[2] for key, pod in world.cluster.objects.items()
        if key[0] == "Pod" and RELOAD_ANNOTATION in pod["metadata"]["annotations"]
    ]  # fmt: skip
    assert asked == ["shop-0"]


async def test_foreign_configmap_of_the_copy_s_name_is_left_alone_and_told(world: World) -> None:
    metadata = {"name": COPY, "namespace": "web", "uid": "foreign"}
    world.cluster.remove("ConfigMap", "web", COPY)
    world.start_operator()
    for manifest in list(world.cluster.objects.values()):
        world.cache.put(manifest)
    world.see({"kind": "ConfigMap", "metadata": metadata, "data": {"mine": "1"}})
    await world.reconcile()
    assert copy_of(world)["data"] == {"mine": "1"}
    assert "ConfigMap shop.source.last-good already exists" in contents(world)["message"]
    assert world.condition("Ready") == ("True", "Serving")


async def test_copy_that_the_api_server_refuses_is_told(world: World) -> None:
    world.write_code("VERSION = 2")
    world.cluster.refusals["ConfigMap"] = ApiError(422, "must have at most 1048576 bytes")
    await world.reconcile(6)
    assert "must have at most 1048576 bytes" in contents(world)["message"]
    assert world.condition("Ready") == ("True", "Serving")


async def test_binary_content_is_copied_as_it_is(world: World) -> None:
    blob = base64.b64encode(bytes(range(256))).decode()
    stored = world.cluster.objects["ConfigMap", "web", CODE.name]
    world.see({**stored, "binaryData": {"blob": blob}})
    await world.reconcile(6)
    assert copy_of(world)["binaryData"] == {"blob": blob}
    assert digest_object(copy_of(world)) == world.agents.serves["shop-0"]


@pytest.mark.parametrize(
    "change",
    [{"image": "shop:2"}, {"app": "shop:other"}, {"env": [{"name": "A", "value": "1"}]},
     {"server": {"threads": 3}}, {"healthCheck": {"path": "/up"}},
     {"podTemplate": {"metadata": {"labels": {"team": "a"}}}}],
)  # fmt: skip
def test_what_code_has_to_fit_is_another_revision(change: dict[str, Any]) -> None:
    assert revision(**change) != revision()


@pytest.mark.parametrize(
    "change",
    [{"replicas": 5}, {"resources": {"limits": {"memory": "1Gi"}}}, {"rollout": {"minReadySeconds": 9}},
     {"server": {"threads": 1}}, {"reload": {"maxConcurrent": 2}}],
)  # fmt: skip
def test_what_code_does_not_depend_on_is_the_same_revision(change: dict[str, Any]) -> None:
    assert revision(**change) == revision()


def test_operator_upgrade_leaves_the_revision_as_it_is() -> None:
    upgraded = replace(PLATFORM, prefork_image="wsgiapp/prefork:9.9", image_volumes=False)
    templates = [build_template(make_app(), platform, {}) for platform in (PLATFORM, upgraded)]
    names = [template["metadata"]["annotations"] for template in templates]
    assert names[0]["wsgi.dev/template"] != names[1]["wsgi.dev/template"]
    assert names[0]["wsgi.dev/revision"] == names[1]["wsgi.dev/revision"]


def test_another_app_of_the_same_spec_is_another_revision() -> None:
    manifest = make_manifest()
    other = parse_app({**manifest, "metadata": {**manifest["metadata"], "name": "other"}})
    assert other.own_digest != make_app().own_digest


async def test_what_pods_serve_stays_shown_while_an_agent_does_not_answer(world: World) -> None:
    before = contents(world)["serving"]
    world.agents.silent = {"shop-1"}
    world.cluster.writes.clear()
    await world.reconcile(2)
    assert contents(world)["serving"] == before
    world.agents.silent = set()
    await world.reconcile()
    assert contents(world)["serving"] == before


async def test_what_a_pod_served_that_is_gone_is_not_counted_on(world: World) -> None:
    world.agents.silent = {"shop-1"}
    pod = world.cluster.remove("Pod", "web", "shop-2")
    world.cache.forget({**pod, "metadata": {**pod["metadata"], "resourceVersion": "998"}})
    await world.reconcile()
    assert [each["pods"] for each in contents(world)["serving"]] == [1]


async def test_container_that_ends_right_after_a_good_reload_is_not_blamed_on_it(
    world: World,
) -> None:
    world.write_code("VERSION = 2")
    await world.reconcile(5)
    assert world.condition("Reloaded") == ("True", "ContentLoaded")
    pod = world.cluster.objects["Pod", "web", "shop-1"]
    ended = {"exitCode": 1, "reason": "Error", "containerID": "containerd://1"}
    container = {
        "name": "app",
        "ready": True,
        "state": {"running": {}},
        "lastState": {"terminated": ended},
    }
    world.see({**pod, "status": {**pod["status"], "containerStatuses": [container]}})
    await world.reconcile(2)
    assert world.condition("Reloaded") == ("True", "ContentLoaded")


# -- copies that nothing boots ------------------------------------------------------------------


def test_no_two_apps_have_one_name_for_their_copies() -> None:
    assert last_good_name("shop", "x-source") != last_good_name("shop-x", "source")


async def test_copy_with_a_former_name_goes_with_the_last_pod_that_mounts_it(world: World) -> None:
    former = {
        **copy_of(world),
        "metadata": {**copy_of(world)["metadata"], "name": "shop-source-last-good"},
    }
    del former["metadata"]["uid"]
    pods = [world.cluster.objects["Pod", "web", f"shop-{i}"] for i in range(3)]
    older = json.loads(json.dumps(pods[0]).replace(COPY, "shop-source-last-good"))
    world.see(older)
    world.see(former)
    await world.reconcile()
    assert copy_of(world, "shop-source-last-good"), "a pod may boot it"
    world.see({**pods[0], "metadata": {**pods[0]["metadata"]}})
    await world.reconcile()
    assert ("ConfigMap", "web", "shop-source-last-good") not in world.cluster.objects
    assert copy_of(world)
    world.cluster.writes.clear()
    await world.reconcile()
    assert world.cluster.writes == []


async def test_copy_of_a_content_that_the_spec_no_longer_has_is_deleted(world: World) -> None:
    app = world.resource("WsgiApp")
    spec = make_manifest(source=None, image="shop:2")["spec"]
    world.see({**app, "spec": spec})
    await world.reconcile()
    assert copy_of(world), "pods mount it"
    world.run_pods("")
    await world.reconcile()
    assert ("ConfigMap", "web", COPY) not in world.cluster.objects


async def test_copy_whose_deletion_is_refused_keeps_the_app_from_nothing(world: World) -> None:
    app = world.resource("WsgiApp")
    world.see({**app, "spec": make_manifest(source=None, image="shop:2")["spec"]})
    await world.reconcile()
    world.run_pods("")
    world.cluster.refusals["ConfigMap"] = ApiError(403, "protected")
    world.see({**world.resource("WsgiApp"), "status": {}})
    await world.reconcile()
    assert world.condition("Ready") == ("True", "Serving")
    del world.cluster.refusals["ConfigMap"]
    await world.reconcile()
    assert ("ConfigMap", "web", COPY) not in world.cluster.objects


async def test_config_map_of_another_that_looks_like_a_copy_stays(world: World) -> None:
    labels = copy_of(world)["metadata"]["labels"]
    metadata = {"name": "mine", "namespace": "web", "labels": labels}
    world.see({"kind": "ConfigMap", "metadata": metadata, "data": {"wsgi.dev.last-good": "{}"}})
    await world.reconcile(2)
    assert copy_of(world, "mine")
