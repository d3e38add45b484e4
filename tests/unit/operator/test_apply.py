"""Writes happen only where something differs, and never to what is somebody else's."""

from typing import Any

import pytest
from wsgiapp.resources import build_resources
from wsgiapp.types import Manifest
from wsgiapp_operator.apply import Writer
from wsgiapp_operator.cache import Cache
from wsgiapp_operator.client import ApiError
from wsgiapp_operator.diff import is_subset
from wsgiapp_operator.errors import OwnerDeleted, RequeueAfter
from wsgiapp_operator.metrics import Metrics
from wsgiapp_operator.ownership import find_obstacle

from tests.unit.operator.fake_cluster import FakeCluster
from tests.unit.operator.samples import NOW, PLATFORM, make_app, make_manifest

APP = make_app()


@pytest.mark.parametrize(
    ("live", "wanted"),
    [
        ({"a": 1, "added": 2}, {"a": 1}),
        ({}, {"paused": False, "empty": {}, "none": []}),
        (
            {"limits": {"cpu": "1", "memory": "1Gi"}},
            {"limits": {"cpu": "1000m", "memory": "1024Mi"}},
        ),
        ({"sizeLimit": "16Mi"}, {"sizeLimit": "16384Ki"}),
        (
            {"containers": [{"name": "mesh"}, {"name": "app", "image": "x", "tty": False}]},
            {"containers": [{"name": "app", "image": "x"}]},
        ),
        ({"args": ["a", "b"]}, {"args": ["a", "b"]}),
        (
            {"volumeMounts": [{"name": "a", "mountPath": "/x"}, {"name": "a", "mountPath": "/y"}]},
            {"volumeMounts": [{"name": "a", "mountPath": "/y"}, {"name": "a", "mountPath": "/x"}]},
        ),
        (
            {
                "ports": [
                    {"containerPort": 53, "name": "t", "protocol": "TCP"},
                    {"containerPort": 53, "protocol": "UDP"},
                ]
            },
            {
                "ports": [
                    {"containerPort": 53, "name": "t"},
                    {"containerPort": 53, "protocol": "UDP"},
                ]
            },
        ),
    ],
)
def test_fields_of_others_and_other_spellings_are_no_difference(
    live: Manifest, wanted: Manifest
) -> None:
    assert is_subset(live, wanted)


@pytest.mark.parametrize(
    ("live", "wanted"),
    [
        ({"a": 1}, {"a": 2}),
        ({}, {"a": 1}),
        ({"selector": {"app": "x", "more": "y"}}, {"selector": {"app": "x"}}),
        ({"args": ["a"]}, {"args": ["a", "b"]}),
        ({"args": ["b", "a"]}, {"args": ["a", "b"]}),
        ({"rules": [{"host": "a"}, {"host": "b"}]}, {"rules": [{"host": "a"}]}),
        (
            {"containers": [{"name": "app", "image": "y"}]},
            {"containers": [{"name": "app", "image": "x"}]},
        ),
        ({"containers": [{"name": "mesh"}]}, {"containers": [{"name": "app"}]}),
        (
            {"ports": [{"containerPort": 53, "protocol": "TCP"}]},
            {"ports": [{"containerPort": 53, "protocol": "UDP"}]},
        ),
        ({"limits": {"memory": "1Gi"}}, {"limits": {"memory": "1G"}}),
        ({"env": [{"name": "K", "value": "1"}]}, {"env": [{"name": "K", "value": "1000m"}]}),
        ({"a": "text"}, {"a": {"b": 1}}),
    ],
)
def test_edits_of_wanted_fields_are_differences(live: Manifest, wanted: Manifest) -> None:
    assert not is_subset(live, wanted)


def owned(uid: str = APP.uid, **metadata: Any) -> Manifest:
    owner = {"kind": "WsgiApp", "name": "shop", "uid": uid, "controller": True}
    return {"kind": "Service", "metadata": {"name": "shop", "ownerReferences": [owner], **metadata}}


def test_own_resource_and_orphan_of_ours_may_be_written() -> None:
    assert find_obstacle(APP, owned()) is None
    labels = {"app.kubernetes.io/managed-by": "wsgiapp-operator"}
    orphan = {"kind": "Service", "metadata": {"name": "shop", "labels": labels}}
    assert find_obstacle(APP, orphan) is None


def test_object_of_another_owner_is_reported_and_not_taken() -> None:
    issue = find_obstacle(APP, {"kind": "Service", "metadata": {"name": "shop"}})
    assert issue is not None
    assert issue.reason == "NameConflict"
    assert "Service shop already exists" in issue.message
    assert "another name" in issue.message
    owner = {"kind": "Helm", "name": "other", "uid": "x", "controller": True}
    foreign = {"kind": "Service", "metadata": {"name": "shop", "ownerReferences": [owner]}}
    issue = find_obstacle(APP, foreign)
    assert issue is not None
    assert "Helm other" in issue.message


@pytest.mark.parametrize(
    "live", [owned("uid-of-the-app-before"), owned(deletionTimestamp="2026-11-22T12:00:00Z")]
)
def test_object_on_its_way_out_is_reported_as_terminating(live: Manifest) -> None:
    issue = find_obstacle(APP, live)
    assert issue is not None
    assert issue.reason == "ResourceTerminating"


@pytest.fixture
def cluster() -> FakeCluster:
    cluster = FakeCluster()
    cluster.put(make_manifest())
    return cluster


@pytest.fixture
def writer(cluster: FakeCluster) -> Writer:
    return Writer(cluster, Cache(), Metrics())  # type: ignore[arg-type]  # a fake


async def test_settled_resources_are_not_written_again(
    cluster: FakeCluster, writer: Writer
) -> None:
    desired = build_resources(APP, PLATFORM, {})
    live, issues = await writer.apply_owned(APP, desired, {})
    assert issues == []
    assert [verb for verb, _, _ in cluster.writes] == ["apply"] * 4
    cluster.writes.clear()
    again, _ = await writer.apply_owned(APP, desired, live)
    assert cluster.writes == []
    assert again == live


async def test_edited_child_is_put_back(cluster: FakeCluster, writer: Writer) -> None:
    desired = build_resources(APP, PLATFORM, {})
    live, _ = await writer.apply_owned(APP, desired, {})
    live["Service"]["spec"]["ports"][0]["targetPort"] = 9999
    cluster.writes.clear()
    now, _ = await writer.apply_owned(APP, desired, live)
    assert cluster.writes == [("apply", "Service", "shop")]
    assert now["Service"]["spec"]["ports"][0]["targetPort"] == "http"


async def test_field_that_is_no_longer_wanted_is_noticed_by_the_hash(
    cluster: FakeCluster, writer: Writer
) -> None:
    env = [{"name": "KEY", "value": "x"}]
    live, _ = await writer.apply_owned(APP, build_resources(make_app(env=env), PLATFORM, {}), {})
    cluster.writes.clear()
    await writer.apply_owned(APP, build_resources(APP, PLATFORM, {}), live)
    assert cluster.writes == [("apply", "Deployment", "shop")]


async def test_child_that_is_no_longer_wanted_is_deleted(
    cluster: FakeCluster, writer: Writer
) -> None:
    with_ingress = make_app(ingress={"hosts": ["shop.example.com"]})
    live, _ = await writer.apply_owned(
        with_ingress, build_resources(with_ingress, PLATFORM, {}), {}
    )
    cluster.writes.clear()
    now, _ = await writer.apply_owned(APP, build_resources(APP, PLATFORM, {}), live)
    assert ("delete", "Ingress", "shop") in cluster.writes
    assert "Ingress" not in now


async def test_namesake_of_a_child_that_is_not_ours_is_never_deleted(
    cluster: FakeCluster, writer: Writer
) -> None:
    live, _ = await writer.apply_owned(APP, build_resources(APP, PLATFORM, {}), {})
    live["Ingress"] = {
        "kind": "Ingress",
        "metadata": {"name": "shop", "namespace": "web", "uid": "x"},
    }
    cluster.writes.clear()
    await writer.apply_owned(APP, build_resources(APP, PLATFORM, {}), live)
    assert cluster.writes == []


async def test_refusal_of_one_child_is_told_and_the_others_are_written(
    cluster: FakeCluster, writer: Writer
) -> None:
    cluster.refusals["Deployment"] = ApiError(403, "exceeded quota: compute")
    live, issues = await writer.apply_owned(APP, build_resources(APP, PLATFORM, {}), {})
    assert [(t.reason, t.message) for t in issues] == [
        (
            "ApplyRefused",
            "the API server refuses Deployment shop: exceeded quota: compute; change the spec, or the policy, "
            "quota or role that refuses it",
        )
    ]
    assert live.keys() == {"ServiceAccount", "Service", "PodDisruptionBudget"}


async def test_refused_deletion_of_a_child_is_told_and_the_others_are_written(
    cluster: FakeCluster, writer: Writer
) -> None:
    app = make_app(ingress={"hosts": ["shop.example.com"]})
    live, _ = await writer.apply_owned(app, build_resources(app, PLATFORM, {}), {})
    cluster.refusals["Ingress"] = ApiError(403, "protected by policy")
    wanted = build_resources(APP, PLATFORM, {})
    live, issues = await writer.apply_owned(APP, wanted, live)
    assert [issue.reason for issue in issues] == ["ApplyRefused"]
    assert "the deletion of Ingress shop, which is not wanted any more" in issues[0].message
    assert "protected by policy" in issues[0].message
    assert "Deployment" in live


async def test_failure_of_the_api_server_is_no_trouble_of_the_app(
    cluster: FakeCluster, writer: Writer
) -> None:
    cluster.refusals["Deployment"] = ApiError(503, "etcd is away")
    with pytest.raises(ApiError, match="etcd is away"):
        await writer.apply_owned(APP, build_resources(APP, PLATFORM, {}), {})


async def test_namespace_on_its_way_out_is_no_trouble_of_the_app(
    cluster: FakeCluster, writer: Writer
) -> None:
    cluster.refusals["Service"] = ApiError(403, "forbidden", ("NamespaceTerminating",))
    with pytest.raises(RequeueAfter, match="namespace web is being deleted"):
        await writer.apply_owned(APP, build_resources(APP, PLATFORM, {}), {})


async def test_nothing_is_created_for_an_app_that_is_gone(
    cluster: FakeCluster, writer: Writer
) -> None:
    cluster.remove("WsgiApp", "web", "shop")
    with pytest.raises(OwnerDeleted):
        await writer.apply_owned(APP, build_resources(APP, PLATFORM, {}), {})
    assert cluster.writes == []


async def test_status_of_an_app_that_is_gone_is_told(cluster: FakeCluster, writer: Writer) -> None:
    manifest = cluster.remove("WsgiApp", "web", "shop")
    with pytest.raises(OwnerDeleted):
        await writer.write_status(manifest, {"replicas": 0}, NOW)


async def test_status_never_lands_on_a_namesake(cluster: FakeCluster, writer: Writer) -> None:
    old = cluster.objects["WsgiApp", "web", "shop"]
    cluster.remove("WsgiApp", "web", "shop")
    anew = make_manifest()
    anew["metadata"]["uid"] = "another"
    cluster.put(anew)
    with pytest.raises(OwnerDeleted) as deleted:
        await writer.write_status(old, {"replicas": 3}, NOW)
    assert deleted.value.uid == "app-uid"
    assert "status" not in cluster.objects["WsgiApp", "web", "shop"]


async def test_status_of_an_app_that_was_changed_meanwhile_is_made_anew(
    cluster: FakeCluster, writer: Writer
) -> None:
    seen = await cluster.get("WsgiApp", "web", "shop")
    assert seen is not None
    cluster.put({**seen, "spec": {**seen["spec"], "replicas": 9}})
    with pytest.raises(RequeueAfter):
        await writer.write_status(seen, {"replicas": 3}, NOW)
    assert "status" not in cluster.objects["WsgiApp", "web", "shop"]


async def test_object_that_took_the_place_of_ours_is_not_written(
    cluster: FakeCluster, writer: Writer
) -> None:
    live, _ = await writer.apply_owned(APP, build_resources(APP, PLATFORM, {}), {})
    cluster.remove("Service", "web", "shop")
    foreign = {"name": "shop", "namespace": "web"}
    cluster.put({"kind": "Service", "metadata": foreign, "spec": {"a": 1}})
    live["Service"]["spec"]["ports"] = []  # so that it is to be written
    with pytest.raises(RequeueAfter, match="Service shop has changed"):
        await writer.apply_owned(APP, build_resources(APP, PLATFORM, {}), live)
    assert cluster.objects["Service", "web", "shop"]["spec"] == {"a": 1}


async def test_foreign_object_that_came_just_before_ours_is_not_taken_over(
    cluster: FakeCluster, writer: Writer
) -> None:
    foreign = {"name": "shop", "namespace": "web"}
    cluster.put({"kind": "Service", "metadata": foreign, "spec": {"a": 1}})
    with pytest.raises(RequeueAfter):
        await writer.apply_owned(APP, build_resources(APP, PLATFORM, {}), {})
    assert cluster.objects["Service", "web", "shop"]["spec"] == {"a": 1}


@pytest.mark.parametrize("kind", ["ServiceAccount", "Service"])
async def test_no_pods_run_as_a_foreign_service_account_or_behind_a_foreign_service(
    kind: str, cluster: FakeCluster, writer: Writer
) -> None:
    app = make_app(ingress={"hosts": ["shop.example.com"]})
    foreign = cluster.put({"kind": kind, "metadata": {"name": "shop", "namespace": "web"}})
    _, issues = await writer.apply_owned(app, build_resources(app, PLATFORM, {}), {kind: foreign})
    assert [issue.reason for issue in issues] == ["NameConflict"]
    written = {written_kind for _, written_kind, _ in cluster.writes}
    assert not written & {"Deployment", "Ingress", kind}


async def test_resource_on_its_way_out_does_not_keep_the_others_from_being_written(
    cluster: FakeCluster, writer: Writer
) -> None:
    going = owned(deletionTimestamp="2026-11-22T12:00:00Z", finalizers=["example.com/slow"])
    going["metadata"] |= {"namespace": "web", "uid": "s"}
    now, issues = await writer.apply_owned(
        APP, build_resources(APP, PLATFORM, {}), {"Service": going}
    )
    assert [issue.reason for issue in issues] == ["ResourceTerminating"]
    assert "example.com/slow" in issues[0].message
    assert {"ServiceAccount", "PodDisruptionBudget", "Deployment"} <= now.keys()
