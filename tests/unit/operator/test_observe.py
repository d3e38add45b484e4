"""What pods and agents say, read without trust, and issues told so that a person can act."""

from dataclasses import replace
from typing import Any

import pytest
from wsgiapp_operator.agents import parse_agent_status
from wsgiapp_operator.pods import (
    parse_before,
    parse_pod,
    parse_reload_request,
    parse_time,
    show_before,
)
from wsgiapp_operator.state import Before, End, Issue, ReloadRequest


def make(containers: list[dict[str, Any]], **status: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"name": "shop-1", "uid": "u"},
        "status": {"phase": "Running", "containerStatuses": containers, **status},
    }


def crashed(message: str = "", **terminated: Any) -> dict[str, Any]:
    ended = {"exitCode": 3, "message": message, **terminated}
    return {
        "name": "app",
        "ready": False,
        "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
        "lastState": {"terminated": ended},
    }


def limited(pod: dict[str, Any], limit: str = "64Mi") -> dict[str, Any]:
    app = {"name": "app", "resources": {"limits": {"memory": limit}}}
    return {**pod, "spec": {"containers": [app]}}


def test_crash_at_boot_shows_the_last_line_of_the_termination_message() -> None:
    text = "Traceback (most recent call last):\n  File \"app.py\"\nModuleNotFoundError: No module named 'flsk'\n"
    assert parse_pod(make([crashed(text)])).issue == Issue(
        "AppCrashed", "container app ended: ModuleNotFoundError: No module named 'flsk'"
    )


def test_crash_without_a_word_shows_the_exit_code() -> None:
    issue = parse_pod(make([crashed(exitCode=139)])).issue
    assert issue is not None
    assert "exit code 139" in issue.message


def test_out_of_memory_names_the_field_to_raise() -> None:
    pod = limited(make([crashed(reason="OOMKilled", exitCode=137)]))
    issue = parse_pod(pod).issue
    assert issue is not None
    assert issue.reason == "OOMKilled"
    assert "its limit of 64Mi; raise spec.resources.limits.memory" in issue.message


def test_out_of_memory_without_a_limit_is_the_nodes() -> None:
    issue = parse_pod(make([crashed(reason="OOMKilled", exitCode=137)])).issue
    assert issue is not None
    assert "its node had no memory left; set spec.resources.requests.memory" in issue.message


def test_out_of_memory_names_the_limit_that_the_kubelet_reports() -> None:
    limits = {"resources": {"limits": {"memory": "40Mi"}}}
    issue = parse_pod(make([crashed(reason="OOMKilled", exitCode=137) | limits])).issue
    assert issue is not None
    assert "its limit of 40Mi; raise" in issue.message


def test_out_of_memory_of_a_sidecar_names_no_field_of_the_app() -> None:
    sidecar = crashed(reason="OOMKilled", exitCode=137) | {"name": "proxy"}
    issue = parse_pod(make([sidecar])).issue
    assert issue is not None
    assert "spec." not in issue.message


def test_container_that_cannot_start_is_told_in_the_kubelets_words() -> None:
    reason = "CreateContainerConfigError"
    waiting = {"reason": reason, "message": 'secret "shop-secret" not found'}
    issue = parse_pod(make([{"name": "app", "ready": False, "state": {"waiting": waiting}}])).issue
    assert issue == Issue(reason, 'container app: secret "shop-secret" not found')


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_image_that_cannot_be_had_names_the_fields(reason: str) -> None:
    waiting = {"reason": reason, "message": "no such host"}
    issue = parse_pod(make([{"name": "app", "ready": False, "state": {"waiting": waiting}}])).issue
    assert issue == Issue(
        reason,
        "container app: no such host; check spec.image, and spec.imagePullSecrets for a private registry",
    )


def test_trouble_of_the_agent_is_told_too() -> None:
    waiting = {"reason": "ErrImagePull", "message": "not found"}
    pod = make([], initContainerStatuses=[{"name": "agent", "state": {"waiting": waiting}}])
    assert parse_pod(pod).issue == Issue("ErrImagePull", "container agent: not found")


def test_pod_without_a_node_is_told_in_the_schedulers_words_with_the_remedy() -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "message": "0/1 nodes are available: 1 Insufficient cpu.",
    }
    pod = make([], phase="Pending", conditions=[condition])
    assert parse_pod(pod).issue == Issue(
        "Unschedulable",
        "0/1 nodes are available: 1 Insufficient cpu; lower what the containers request (spec.resources), change "
        "what spec.podTemplate asks of a node, or add one",
    )


def test_evicted_pod_counts_for_nothing_any_more() -> None:
    assert parse_pod(make([], phase="Failed", reason="Evicted")).terminating


PRESSURE = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 52Ki. "
GREW = "Container app was using 900Mi, request is 64Mi, has larger consumption of memory. "
AGENT_GREW = GREW.replace("app", "agent")


@pytest.mark.parametrize(
    ("status", "is_own"),
    [
        ({"reason": "Evicted", "message": PRESSURE + GREW}, True),
        ({"reason": "Evicted", "message": 'Usage of EmptyDir volume "tmp" exceeds the limit "1Gi".'}, True),
        ({}, True),
        ({"reason": "Evicted", "message": PRESSURE}, False),
        ({"reason": "Evicted", "message": PRESSURE + AGENT_GREW}, False),
        ({"reason": "Evicted", "message": "The node had condition: [DiskPressure]. "}, False),
        ({"reason": "Preempting", "message": "Preempted in order to admit critical pod"}, False),
        ({"reason": "Terminated", "message": "Pod was terminated in response to imminent node shutdown."}, False),
        ({"reason": "NodeLost"}, False),
    ],
)  # fmt: skip
def test_pod_has_failed_where_what_runs_in_it_may_be_the_reason(
    status: dict[str, str], is_own: bool
) -> None:
    pod = parse_pod(make([], phase="Failed", **status))
    assert (pod.has_failed, pod.terminating) == (is_own, True)


def test_pod_that_was_deleted_has_not_failed_by_itself() -> None:
    manifest = make([], phase="Failed")
    manifest["metadata"]["deletionTimestamp"] = "2026-11-22T12:00:00Z"
    assert not parse_pod(manifest).has_failed


@pytest.mark.parametrize(
    ("reason", "code", "has_limit", "is_own"),
    [
        ("Error", 1, True, True), ("Error", 139, True, True), ("Completed", 0, True, False), ("Error", 143, True, False),
        ("Error", 137, True, False), ("OOMKilled", 137, True, True), ("OOMKilled", 137, False, False),
        ("ContainerStatusUnknown", 137, True, False), ("Unknown", 255, True, False),
    ],
)  # fmt: skip
@pytest.mark.parametrize("field", ["state", "lastState"])
def test_container_has_ended_by_itself_where_nothing_else_can_be_the_reason(
    field: str, reason: str, code: int, has_limit: bool, is_own: bool
) -> None:
    ended = {"reason": reason, "exitCode": code, "containerID": "containerd://1"}
    manifest = make([{"name": "app", field: {"terminated": ended}}])
    pod = parse_pod(limited(manifest) if has_limit else manifest)
    assert pod.end == End("containerd://1", is_own)


def test_end_that_counts_is_the_newest_whatever_a_nodes_clock_says() -> None:
    first = {"exitCode": 1, "containerID": "containerd://1", "finishedAt": "2026-11-22T12:05:00Z"}
    second = {"exitCode": 0, "containerID": "containerd://2", "finishedAt": "2026-11-22T12:00:00Z"}
    states = {"state": {"terminated": second}, "lastState": {"terminated": first}}
    assert parse_pod(make([{"name": "app", **states}])).end == End("containerd://2", False)


def test_how_a_pod_was_when_it_was_asked_is_read_back() -> None:
    manifest = make([crashed(containerID="containerd://1")])
    pod, request = parse_pod(manifest), ReloadRequest("0" * 16, {"source": "x"})
    before = parse_before(show_before(pod, request))
    assert before == Before("containerd://1", pod.ready, pod.ready_changed, is_second=False)
    again = parse_before(show_before(replace(pod, request=request), request))
    assert again is not None
    assert again.is_second


@pytest.mark.parametrize(
    "container",
    [
        {
            "name": "app",
            "ready": True,
            "state": {"running": {}},
            "lastState": {"terminated": {"exitCode": 1}},
        },
        {"name": "app", "ready": False, "started": True, "state": {"running": {}}},
        {"name": "app", "ready": False, "state": {"waiting": {"reason": "PodInitializing"}}},
        {"name": "app", "ready": False, "state": {"terminated": {"exitCode": 0}}},
    ],
)
def test_normal_states_are_no_trouble(container: dict[str, Any]) -> None:
    assert parse_pod(make([container])).issue is None


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "no json",
        "[]",
        '{"id": 1}',
        '{"id": "x", "content": 3}',
        "[" * 100_000,
        "9" * 5000,
    ],
)
def test_garbled_request_counts_as_none(text: str | None) -> None:
    assert parse_reload_request(text) is None


def test_agent_status_is_read() -> None:
    status = {
        "state": "serving",
        "generation": 2,
        "content": {"source": "abc"},
        "workers": {"desired": 4, "ready": 3, "busy": 1},
        "reload": {"id": "x", "result": "failed", "message": "boom"},
        "queue": {"depth": 0, "limit": 128},
    }
    agent = parse_agent_status(status, "3 of 4 workers are ready")
    assert (agent.workers_desired, agent.workers_ready, agent.workers_busy) == (4, 3, 1)
    assert agent.reload is not None
    assert (agent.reload.result, agent.reload.message) == ("failed", "boom")
    assert not agent.is_keyed, "an agent of before there were keys"
    assert parse_agent_status({**status, "keyed": []}, "").is_keyed


@pytest.mark.parametrize("status", [{}, {"state": "serving"}, {"state": "serving", "workers": {}}])
def test_answer_that_is_no_status_is_refused(status: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError, ValueError)):
        parse_agent_status(status, "")


@pytest.mark.parametrize("text", ["", "soon", "2026-11-22T12:00:00", "2026-11-22", "9" * 5000])
def test_time_that_cannot_be_compared_counts_as_none(text: str) -> None:
    assert parse_time(text) is None
