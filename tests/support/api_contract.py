"""What the operator relies on in an API server: the same checks for the fake of the unit tests and a real one.

Each takes something with the methods of `wsgiapp_operator.client.Cluster` and a namespace, and cleans up
after itself only as far as names go: each uses one of its own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from wsgiapp_operator.client import ApiError

WRONG_UID = "00000000-0000-0000-0000-000000000000"
Check = Callable[[Any, str], Awaitable[None]]


def build_service(name: str, namespace: str, *, port: int = 80, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": port}]},
    }


def build_app(name: str, namespace: str) -> dict[str, Any]:
    return {
        "apiVersion": "wsgi.dev/v1alpha1",
        "kind": "WsgiApp",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"image": "shop:1", "app": "shop:app", "replicas": 0},
    }


async def status_of(call: Awaitable[Any]) -> int:
    """Return the status of the refusal; 0 where there was none."""
    try:
        await call
    except ApiError as error:
        return error.status
    return 0


async def check_apply_with_a_wrong_uid_is_refused_as_invalid(cluster: Any, namespace: str) -> None:
    live = await cluster.apply(build_service("wrong-uid", namespace), force=True)
    wanted = build_service("wrong-uid", namespace, port=81, uid=WRONG_UID)
    assert await status_of(cluster.apply(wanted, force=True)) == 422
    assert await cluster.get("Service", namespace, "wrong-uid") == live


async def check_apply_with_the_right_uid_is_taken(cluster: Any, namespace: str) -> None:
    live = await cluster.apply(build_service("right-uid", namespace), force=True)
    wanted = build_service("right-uid", namespace, uid=live["metadata"]["uid"])
    assert await status_of(cluster.apply(wanted, force=True)) == 0


async def check_apply_with_a_uid_creates_nothing(cluster: Any, namespace: str) -> None:
    wanted = build_service("absent", namespace, uid=WRONG_UID)
    assert await status_of(cluster.apply(wanted, force=True)) == 409
    assert await cluster.get("Service", namespace, "absent") is None


async def check_apply_without_force_does_not_take_over(cluster: Any, namespace: str) -> None:
    live = await cluster.create(build_service("foreign", namespace))
    wanted = build_service("foreign", namespace)
    wanted["spec"]["selector"] = {"app": "another"}
    assert await status_of(cluster.apply(wanted, force=False)) == 409
    found = await cluster.get("Service", namespace, "foreign")
    assert found["spec"]["selector"] == live["spec"]["selector"]


async def check_merge_with_a_wrong_uid_is_refused_as_invalid(cluster: Any, namespace: str) -> None:
    await cluster.apply(build_service("merged", namespace), force=True)
    patch = {"metadata": {"uid": WRONG_UID, "annotations": {"a": "b"}}}
    assert await status_of(cluster.merge("Service", namespace, "merged", patch)) == 422


async def check_status_ignores_a_wrong_uid_and_refuses_a_stale_version(
    cluster: Any, namespace: str
) -> None:
    app = await cluster.create(build_app("status", namespace))
    named = {"name": "status", "namespace": namespace}
    stale = {**named, "resourceVersion": app["metadata"]["resourceVersion"]}
    body = {"apiVersion": app["apiVersion"], "kind": "WsgiApp", "status": {"replicas": 1}}
    wrong = await cluster.apply_status({**body, "metadata": {**named, "uid": WRONG_UID}})
    assert wrong["metadata"]["uid"] == app["metadata"]["uid"]
    again = {**body, "status": {"replicas": 2}, "metadata": stale}
    assert await status_of(cluster.apply_status(again)) == 409
    found = await cluster.get("WsgiApp", namespace, "status")
    assert found["status"]["replicas"] == 1


async def check_status_of_what_is_gone_is_not_found(cluster: Any, namespace: str) -> None:
    body = {**build_app("gone", namespace), "status": {"replicas": 1}}
    assert await status_of(cluster.apply_status(body)) == 404


async def check_listing_of_metadata_has_names_and_versions_and_nothing_else(
    cluster: Any, namespace: str
) -> None:
    live = await cluster.apply(build_service("listed", namespace), force=True)
    found = [
        each
        async for each in cluster.list("Service", namespace, metadata_only=True)
        if each["metadata"]["name"] == "listed"
    ]
    assert len(found) == 1
    assert found[0]["kind"] == "Service"
    assert "spec" not in found[0]
    for name in ("namespace", "uid", "resourceVersion"):
        assert found[0]["metadata"][name] == live["metadata"][name]


CHECKS: list[Check] = [
    check_apply_with_a_wrong_uid_is_refused_as_invalid,
    check_apply_with_the_right_uid_is_taken,
    check_apply_with_a_uid_creates_nothing,
    check_apply_without_force_does_not_take_over,
    check_merge_with_a_wrong_uid_is_refused_as_invalid,
    check_status_ignores_a_wrong_uid_and_refuses_a_stale_version,
    check_status_of_what_is_gone_is_not_found,
    check_listing_of_metadata_has_names_and_versions_and_nothing_else,
]
