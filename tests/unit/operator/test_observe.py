"""What pods and agents say, read without trust, and issues told so that a person can act."""

from typing import Any

import pytest
from wsgiapp_operator.agents import parse_agent_status
from wsgiapp_operator.pods import parse_pod, parse_reload_request, parse_time
from wsgiapp_operator.state import Issue


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
    issue = parse_pod(make([crashed(reason="OOMKilled", exitCode=137)])).issue
    assert issue is not None
    assert issue.reason == "OOMKilled"
    assert "its limit; raise spec.resources.limits.memory" in issue.message


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


def test_pod_without_a_node_is_told_in_the_schedulers_words() -> None:
    condition = {
        "type": "PodScheduled",
        "status": "False",
        "message": "0/1 nodes: Insufficient memory",
    }
    pod = make([], phase="Pending", conditions=[condition])
    assert parse_pod(pod).issue == Issue("Unschedulable", "0/1 nodes: Insufficient memory")


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
    ("reason", "is_own"), [("Error", True), ("OOMKilled", True), ("Completed", True), ("ContainerStatusUnknown", False)]
)  # fmt: skip
def test_container_that_a_new_kubelet_lost_sight_of_has_not_ended_by_itself(
    reason: str, is_own: bool
) -> None:
    at = "2026-11-22T12:00:00Z"
    pod = parse_pod(make([crashed(reason=reason, exitCode=137, finishedAt=at)]))
    assert (pod.ended_at is not None) == is_own


@pytest.mark.parametrize(("code", "is_own"), [(0, False), (143, False), (137, True), (1, True)])
def test_container_that_was_told_to_stop_has_not_ended_by_itself(code: int, is_own: bool) -> None:
    at = "2026-11-22T12:00:00Z"
    pod = parse_pod(make([crashed(reason="Completed", exitCode=code, finishedAt=at)]))
    assert (pod.ended_at is not None, pod.stopped_at is not None) == (is_own, not is_own)


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
