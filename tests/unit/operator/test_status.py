"""Conditions that a person can act on, whatever the state."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from wsgiapp.types import Manifest, Ref
from wsgiapp_operator.cache import Digest
from wsgiapp_operator.reload import make_request, plan_reload
from wsgiapp_operator.state import Issue, Observed, Pod
from wsgiapp_operator.status import build_invalid_status, build_status

from tests.unit.operator.samples import CODE, NOW, digests, make_app, make_pod

NEW = make_request(make_app(), digests("new"))[0]
assert NEW is not None


def deployment(replicas: int = 3, **status: Any) -> Manifest:
    numbers = dict.fromkeys(
        ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), replicas
    )
    conditions = [
        {"type": "Available", "status": "True"},
        {"type": "Progressing", "status": "True"},
    ]
    return {
        "metadata": {"generation": 1},
        "status": {"observedGeneration": 1, "conditions": conditions, **numbers, **status},
    }


def judge(
    *pods: Pod,
    live: Manifest | None = None,
    seen: dict[Ref, Digest] | None = None,
    issues: tuple[Issue, ...] = (),
    previous: Manifest | None = None,
    **spec: Any,
) -> Manifest:
    app = make_app(**spec)
    observed = Observed(
        status=previous or {},
        owned={"Deployment": deployment() if live is None else live},
        pods=pods,
        digests=digests("new") if seen is None else seen,
        copies={},
    )
    plan = plan_reload(app, "t1", pods, observed.digests, NOW)
    return build_status(app, observed, plan, issues, NOW)


def condition(status: Manifest, kind: str) -> tuple[str, str, str]:
    found = next(c for c in status["conditions"] if c["type"] == kind)
    return found["status"], found["reason"], found["message"]


PODS = tuple(make_pod(name, serves="new") for name in "abc")


def test_settled_app_is_ready_with_all_numbers() -> None:
    status = judge(*PODS)
    assert condition(status, "Ready") == ("True", "Serving", "3 of 3 pods are up to date and ready")
    assert [c["type"] for c in status["conditions"]] == [
        "Ready",
        "Available",
        "Progressing",
        "Reloaded",
        "Stalled",
    ]
    assert [c["status"] for c in status["conditions"]] == ["True"] * 4 + ["False"]
    assert status["observedGeneration"] == 1
    assert (status["replicas"], status["readyReplicas"], status["updatedReplicas"]) == (3, 3, 3)
    assert status["availableReplicas"] == 3
    assert status["selector"] == "wsgi.dev/app=shop"
    assert status["url"] == "http://shop.web.svc"
    assert status["workers"] == {"ready": 6, "desired": 6, "busy": 3}
    assert status["reload"]["updatedPods"] == 3


def test_missing_configmap_is_named_with_the_field_and_the_remedy() -> None:
    status = judge(seen={CODE: Digest(0, None)}, live={})
    ready = condition(status, "Ready")
    assert ready[:2] == ("False", "ConfigMapMissing")
    assert (
        ready[2] == "ConfigMap shop-code, named by spec.source, is not in namespace web; create it"
    )
    assert condition(status, "Reloaded")[0] == "Unknown"


def test_missing_secret_of_a_config_entry_is_named() -> None:
    ref = Ref("Secret", "db")
    config = [{"name": "prod-db", "secret": {"name": "db"}, "mountPath": "/etc/db"}]
    status = judge(seen={**digests("new"), ref: Digest(0, None)}, config=config)
    assert condition(status, "Ready")[1:] == (
        "SecretMissing",
        "Secret db, named by spec.config 'prod-db', is not in namespace web; create it",
    )


def test_all_that_is_missing_is_named_at_once() -> None:
    missing = {CODE: Digest(0, None), Ref("Secret", "db"): Digest(0, None)}
    config = [
        {"name": "prod-db", "secret": {"name": "db"}, "mountPath": "/etc/db"},
        {"name": "keys", "secret": {"name": "db"}, "mountPath": "/etc/keys"},
    ]
    status = judge(seen=missing, live={}, config=config)
    assert condition(status, "Ready")[1:] == (
        "ConfigMapMissing",
        "ConfigMap shop-code, named by spec.source, and Secret db, named by spec.config 'prod-db' and spec.config "
        "'keys', are not in namespace web; create them",
    )


def test_failed_reload_says_that_the_old_code_serves_on() -> None:
    failed = make_pod(
        "a", request=NEW, result="failed", message="NameError: name 'x' is not defined"
    )
    status = judge(failed, make_pod("b"), make_pod("c"))
    reloaded = condition(status, "Reloaded")
    assert reloaded[:2] == ("False", "ReloadFailed")
    assert "pod a" in reloaded[2]
    assert "keeps serving the previous content" in reloaded[2]
    assert "NameError: name 'x' is not defined" in reloaded[2]
    assert "ConfigMap shop-code" in reloaded[2]
    assert condition(status, "Ready")[:2] == ("False", "ReloadFailed")
    assert condition(status, "Available")[0] == "True"
    assert status["reload"]["failedPod"] == "a"
    assert status["reload"]["message"] == "NameError: name 'x' is not defined"


def test_immutable_content_that_was_made_anew_needs_another_name() -> None:
    """The kubelet does not bring it to the pods that mounted the first one."""
    failed = make_pod("a", request=NEW, result="failed", message="not mounted within 120 s")
    seen = {CODE: Digest(1, "new", immutable=True)}
    message = condition(judge(failed, make_pod("b"), seen=seen), "Reloaded")[2]
    assert "ConfigMap shop-code is immutable" in message
    assert "another name" in message
    assert "immutable" not in condition(judge(failed, make_pod("b")), "Reloaded")[2]


def test_reload_under_way_is_neither_true_nor_false() -> None:
    status = judge(
        make_pod("a", serves="new"), make_pod("b", request=NEW, result="running"), make_pod("c")
    )
    assert condition(status, "Reloaded") == (
        "Unknown",
        "Reloading",
        "1 of 3 pods serve the new content",
    )
    assert status["reload"]["updatedPods"] == 1


def test_crash_at_boot_of_a_new_template_leaves_the_app_available() -> None:
    bad = Pod(
        **{
            **vars(make_pod("d", serves=None, ready=False)),
            "issue": Issue("AppCrashed", "container app ended: boom"),
        }
    )
    live = deployment(replicas=4, updatedReplicas=1, readyReplicas=3, availableReplicas=3)
    status = judge(*PODS, bad, live=live)
    assert condition(status, "Ready") == ("False", "AppCrashed", "pod d: container app ended: boom")
    assert condition(status, "Available")[0] == "True"
    assert sum("boom" in each["message"] for each in status["conditions"]) == 1


def test_agents_word_is_shown_where_the_pod_status_says_nothing() -> None:
    pod = make_pod("a", serves="new", ready=False)
    assert pod.agent is not None
    told = Pod(
        **{
            **vars(pod),
            "agent": type(pod.agent)(**{**vars(pod.agent), "unready": "/healthz answered 500"}),
        }
    )
    live = deployment(availableReplicas=2, readyReplicas=2)
    assert condition(judge(told, live=live), "Ready") == (
        "False",
        "NotReady",
        "pod a: /healthz answered 500",
    )


def test_health_path_that_there_is_not_is_named_by_its_field() -> None:
    pod = make_pod("a", serves="new", ready=False, unready="/ready answered 404")
    message = condition(judge(pod, live=deployment(readyReplicas=0, availableReplicas=0)), "Ready")[
        2
    ]
    assert message == "pod a: /ready answered 404; check spec.healthCheck.path"


def test_refused_pods_are_told_in_the_api_servers_words() -> None:
    refused = {"type": "ReplicaFailure", "status": "True", "message": "violates PodSecurity"}
    live = deployment(replicas=0, conditions=[refused])
    status = judge(live=live)
    assert condition(status, "Ready")[1] == "FailedCreate"
    assert "violates PodSecurity" in condition(status, "Ready")[2]
    assert condition(status, "Available")[1:] == ("FailedCreate", "0 of 3 pods serve")


@pytest.mark.parametrize(
    ("existing", "remedy"),
    [
        (3, "replace pods within it (spec.rollout.maxSurge: 0, maxUnavailable: 1)"),
        (2, "lower spec.replicas"),
    ],
)
def test_full_quota_is_told_with_what_makes_room(existing: int, remedy: str) -> None:
    full = "exceeded quota: bounds, requested: pods=1, used: pods=3, limited: pods=3"
    refused = {"type": "ReplicaFailure", "status": "True", "message": full}
    live = deployment(replicas=existing, updatedReplicas=0, conditions=[refused])
    message = condition(judge(live=live), "Ready")[2]
    assert message == f"the API server refuses the pods: {full}; raise the quota, or {remedy}"


def test_why_pods_do_not_serve_is_said_once_and_by_stalled() -> None:
    """`kubectl describe` shows all conditions; GitOps tools show Stalled alone."""
    crashed = replace(
        make_pod("d", serves=None, ready=False), issue=Issue("AppCrashed", "container app: boom")
    )
    conditions = [{"type": "Progressing", "status": "False"}]
    live = deployment(updatedReplicas=1, availableReplicas=0, conditions=conditions)
    status = judge(crashed, live=live)
    says = [each["type"] for each in status["conditions"] if "boom" in each["message"]]
    assert says == ["Ready", "Stalled"]
    taken = Issue("NameConflict", "Service shop already exists")
    status = judge(crashed, live=live, issues=(taken,))
    says = [each["type"] for each in status["conditions"] if "boom" in each["message"]]
    assert says == ["Progressing"]


def test_failed_reload_is_explained_by_reloaded_and_named_by_ready() -> None:
    cause = "the new generation is not healthy: GET /ready answered 404: " + "no " * 150
    status = judge(make_pod("a", request=NEW, result="failed", message=cause), make_pod("b"))
    for kind in ("Ready", "Stalled"):
        message = condition(status, kind)[2]
        assert message.startswith("reload failed on pod a: the new generation is not healthy")
        assert message.endswith("; see the condition Reloaded")
        assert len(message) < 300
    assert cause in condition(status, "Reloaded")[2]


@pytest.mark.parametrize(
    ("cause", "remedy"),
    [
        ("NameError: name 'x' is not defined", "fix ConfigMap shop-code;"),
        (
            "the new generation is not healthy: GET /ready answered 404: Not Found (5 attempts)",
            "fix ConfigMap shop-code, or spec.healthCheck.path;",
        ),
        (
            "the pod's files did not show the new content within spec.reload.timeoutSeconds (120)",
            "see kubectl logs a -c agent, and annotate ConfigMap shop-code to try again;",
        ),
    ],
)
def test_remedy_of_a_failed_reload_is_what_can_help(cause: str, remedy: str) -> None:
    status = judge(make_pod("a", request=NEW, result="failed", message=cause), make_pod("b"))
    assert f"new content; {remedy}" in condition(status, "Reloaded")[2]


def test_stuck_rollout_is_told() -> None:
    conditions = [
        {"type": "Progressing", "status": "False"},
        {"type": "Available", "status": "True"},
    ]
    live = deployment(updatedReplicas=1, conditions=conditions)
    progressing = condition(judge(*PODS, live=live), "Progressing")
    assert progressing[:2] == ("False", "ProgressDeadlineExceeded")
    assert "spec.rollout.progressDeadlineSeconds (300)" in progressing[2]


def test_paused_rollout_is_told() -> None:
    live = deployment(updatedReplicas=1)
    progressing = condition(judge(*PODS, live=live, rollout={"paused": True}), "Progressing")
    assert progressing[:2] == ("Unknown", "DeploymentPaused")


def test_deployment_that_has_not_seen_the_newest_spec_does_not_count() -> None:
    live = deployment()
    live["metadata"]["generation"] = 2
    assert condition(judge(*PODS, live=live), "Ready")[:2] == ("False", "RollingOut")


def test_app_scaled_to_zero_is_as_declared_but_serves_nobody() -> None:
    status = judge(live=deployment(replicas=0), replicas=0)
    assert condition(status, "Ready")[:2] == ("True", "ScaledToZero")
    assert condition(status, "Available")[:2] == ("False", "ScaledToZero")


def test_what_could_not_be_written_comes_first() -> None:
    taken = Issue("NameConflict", "Service shop already exists")
    assert condition(judge(*PODS, issues=(taken,)), "Ready") == ("False", *taken)


def test_app_without_contents_has_nothing_to_reload() -> None:
    status = judge(*PODS, source=None, seen={})
    assert condition(status, "Reloaded")[:2] == ("True", "NothingToReload")
    assert "reload" not in status


def test_agents_that_do_not_answer_are_told_with_what_to_look_at() -> None:
    pods = tuple(make_pod(name, serves=None) for name in "abc")
    reloaded = condition(judge(*pods), "Reloaded")
    assert reloaded[:2] == ("Unknown", "AgentsSilent")
    assert "port 9000" in reloaded[2]
    assert "NetworkPolicy" in reloaded[2]


def test_agent_that_is_slow_for_once_does_not_undo_what_was_seen() -> None:
    settled = judge(*PODS)
    slow = judge(make_pod("a", serves=None), *PODS[1:], previous=settled)
    assert condition(slow, "Reloaded") == condition(settled, "Reloaded")
    assert condition(slow, "Ready")[0] == "True"
    settled["reload"]["hash"] = "other"
    assert (
        condition(judge(make_pod("a", serves=None), *PODS[1:], previous=settled), "Ready")[0]
        == "False"
    )


def test_time_of_a_condition_changes_only_with_its_status() -> None:
    first = judge(*PODS)
    for entry in first["conditions"]:
        entry["lastTransitionTime"] = "2026-01-01T00:00:00Z"
    failed = make_pod("a", request=NEW, result="failed", message="boom")
    second = judge(failed, *PODS[1:], previous=first)
    times = {c["type"]: c["lastTransitionTime"] for c in second["conditions"]}
    assert times["Available"] == "2026-01-01T00:00:00Z"
    assert times["Ready"] == times["Reloaded"] == "2026-11-22T12:00:00Z"


def test_status_of_the_same_state_is_the_same_later() -> None:
    first = judge(*PODS)
    app = make_app()
    observed = Observed(
        status=first, owned={"Deployment": deployment()}, pods=PODS, digests=digests("new")
    )
    later = NOW + timedelta(hours=1)
    plan = plan_reload(app, "t1", PODS, observed.digests, later)
    assert build_status(app, observed, plan, (), later) == first


def test_unreadable_spec_keeps_the_numbers_of_what_runs() -> None:
    before = judge(*PODS)
    status = build_invalid_status(before, 2, "spec.app is missing; it is required", NOW)
    ready = condition(status, "Ready")
    assert ready[:2] == ("False", "InvalidSpec")
    assert "spec.app is missing" in ready[2]
    assert status["readyReplicas"] == 3
    assert status["observedGeneration"] == 2
    assert condition(status, "Available")[0] == "True"


def test_message_is_bounded() -> None:
    failed = make_pod("a", request=NEW, result="failed", message="x" * 5000)
    assert len(condition(judge(failed), "Reloaded")[2]) == 1024


def test_failed_reload_is_stalled_and_a_rollout_on_its_way_is_not() -> None:
    failed = make_pod("a", request=NEW, result="failed", message="boom")
    stalled = condition(judge(failed, make_pod("b"), make_pod("c")), "Stalled")
    assert stalled[:2] == ("True", "ReloadFailed")
    assert "boom" in stalled[2]
    assert condition(judge(*PODS, live={}), "Stalled")[:2] == ("False", "NotStalled")


def test_invalid_spec_is_stalled() -> None:
    status = build_invalid_status({}, 2, "spec.app is missing", NOW)
    assert condition(status, "Stalled")[:2] == ("True", "InvalidSpec")
