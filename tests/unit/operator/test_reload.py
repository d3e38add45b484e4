"""The rolling reload, step by step: each step follows from what the pods say."""

from typing import Any

import pytest
from wsgiapp.types import Ref
from wsgiapp_operator.cache import Digest
from wsgiapp_operator.reload import Failure, ReloadPlan, ReloadState, make_request, plan_reload
from wsgiapp_operator.state import Before, End, Issue, Pod, ReloadRequest

from tests.unit.operator.samples import (
    CODE,
    CRASHED,
    EARLIER,
    KILLED,
    LATER,
    NOW,
    digests,
    make_app,
    make_pod,
)

NEW = make_request(make_app(), digests("new"))[0]
assert NEW is not None
OLDER = ReloadRequest("0123456789abcdef", {"source": "older"})


def plan(*pods: Pod, version: int = 1, **spec: object) -> ReloadPlan:
    spec.setdefault("replicas", sum(not pod.terminating for pod in pods))
    return plan_reload(make_app(**spec), "t1", pods, digests("new", version), NOW)


def asked(step: ReloadPlan) -> list[str]:
    return [pod.name for pod, _ in step.ask]


def test_pods_that_serve_the_wanted_content_are_left_alone() -> None:
    step = plan(make_pod("a", serves="new"), make_pod("b", serves="new"))
    assert asked(step) == []
    assert set(step.states.values()) == {ReloadState.CURRENT}
    assert not step.is_running


def test_first_pod_goes_alone_however_many_may_go_at_a_time() -> None:
    step = plan(make_pod("a"), make_pod("b"), make_pod("c"), reload={"maxConcurrent": 3})
    assert asked(step) == ["a"]


def test_nobody_else_is_asked_while_the_first_pod_reloads() -> None:
    step = plan(make_pod("a", request=NEW, result="running"), make_pod("b"), make_pod("c"))
    assert asked(step) == []
    assert step.is_running


@pytest.mark.parametrize(
    ("share", "expected"), [(1, ["b"]), (2, ["b", "c"]), ("50%", ["b"]), ("100%", ["b", "c"])]
)
def test_after_the_first_success_as_many_go_as_the_spec_allows(
    share: object, expected: list[str]
) -> None:
    step = plan(
        make_pod("a", serves="new"), make_pod("b"), make_pod("c"), reload={"maxConcurrent": share}
    )
    assert asked(step) == expected


def test_pods_that_reload_count_against_the_limit() -> None:
    first = make_pod("a", serves="new")
    step = plan(
        first,
        make_pod("b", request=NEW, result="pending"),
        make_pod("c"),
        reload={"maxConcurrent": 1},
    )
    assert asked(step) == []
    step = plan(
        first,
        make_pod("b", request=NEW, result="pending"),
        make_pod("c"),
        reload={"maxConcurrent": 2},
    )
    assert asked(step) == ["c"]


def test_pod_that_booted_with_the_new_content_proves_it_as_well() -> None:
    step = plan(make_pod("a", serves="new", ready=True), make_pod("b"), make_pod("c"))
    assert asked(step) == ["b"]


def test_pod_that_is_not_ready_proves_nothing() -> None:
    pods = [make_pod("a", serves="new", ready=False), *map(make_pod, "bcd")]
    step = plan(*pods, reload={"maxConcurrent": 2}, replicas=3)
    assert asked(step) == ["b"]


def test_failed_reload_stops_the_others_and_is_told_with_its_last_line() -> None:
    failed = make_pod(
        "a", request=NEW, result="failed", message="NameError: name 'x' is not defined"
    )
    step = plan(failed, make_pod("b"), make_pod("c"))
    assert asked(step) == []
    assert step.failure == (NEW.id, "a", "NameError: name 'x' is not defined")


def test_failure_after_successes_stops_the_rest() -> None:
    step = plan(
        make_pod("a", serves="new"),
        make_pod("b", request=NEW, result="failed", message="boom"),
        make_pod("c"),
    )
    assert asked(step) == []
    assert step.count(ReloadState.CURRENT) == 1


def test_the_fix_is_tried_on_the_failed_pod_first() -> None:
    step = plan(make_pod("a"), make_pod("b", request=OLDER, result="failed"), make_pod("c"))
    assert asked(step) == ["b"]


def test_going_back_to_what_is_served_needs_no_reload() -> None:
    step = plan(
        make_pod("a", serves="new", request=OLDER, result="failed"), make_pod("b", serves="new")
    )
    assert step.failure is None
    assert set(step.states.values()) == {ReloadState.CURRENT}


def test_same_content_is_tried_again_after_a_touch_of_the_object() -> None:
    failed = make_pod("a", request=NEW, result="failed", message="no database")
    assert plan(failed, version=1).failure is not None
    step = plan(failed, version=2)
    assert step.failure is None
    assert asked(step) == ["a"]


def test_touch_of_the_object_does_not_ask_pods_that_are_at_it() -> None:
    step = plan(make_pod("a", request=NEW, result="running"), make_pod("b"), version=2)
    assert asked(step) == []


@pytest.mark.parametrize(
    ("result", "words"), [("running", "not ready within"), ("pending", "did not show")]
)
def test_reload_that_takes_too_long_counts_as_failed(result: str, words: str) -> None:
    step = plan(make_pod("a", request=NEW, result=result, asked_s_ago=121), make_pod("b"))
    assert asked(step) == []
    assert step.failure is not None
    assert words in step.failure.message
    assert "spec.reload.timeoutSeconds (120)" in step.failure.message


@pytest.mark.parametrize(
    ("spec", "limit_s", "words"),
    [
        ({}, 120, "spec.reload.timeoutSeconds (120)"),
        ({"reload": {"timeoutSeconds": 5}}, 120, "120 s, which follow from spec.healthCheck.startupTimeoutSeconds (60)"),
        ({"healthCheck": {"startupTimeoutSeconds": 300}}, 360, "360 s, which follow from spec.healthCheck"),
        ({"healthCheck": {"startupTimeoutSeconds": 5}, "reload": {"timeoutSeconds": 5}}, 65, "65 s, which follow"),
        ({"healthCheck": {"startupTimeoutSeconds": 5}, "reload": {"timeoutSeconds": 90}}, 90, "timeoutSeconds (90)"),
    ],
)  # fmt: skip
def test_reload_has_not_failed_while_its_server_may_still_be_booting(
    spec: dict[str, Any], limit_s: int, words: str
) -> None:
    """Else it would be called failed and succeed a moment later."""

    def look(asked_s_ago: float) -> ReloadPlan:
        booting = make_pod("a", request=NEW, result="running", asked_s_ago=asked_s_ago)
        return plan(booting, make_pod("b"), **spec)

    assert look(limit_s).states["a"] is ReloadState.RELOADING
    failure = look(limit_s + 1).failure
    assert failure is not None
    assert words in failure.message


def test_pod_that_was_asked_but_whose_agent_has_not_seen_it_is_waited_for() -> None:
    step = plan(make_pod("a", request=NEW, result=None), make_pod("b"))
    assert step.states["a"] is ReloadState.RELOADING


@pytest.mark.parametrize(
    ("pod", "state"),
    [
        (make_pod("a", serves=None, ready=False), ReloadState.STARTING),
        (make_pod("a", state="booting", ready=False), ReloadState.STARTING),
        (make_pod("a", serves=None), ReloadState.SILENT),
    ],
)
def test_pod_of_which_nothing_is_known_is_waited_for(pod: Pod, state: ReloadState) -> None:
    step = plan(pod, make_pod("b", serves="new"), make_pod("c"), replicas=3)
    assert step.states["a"] is state
    assert "a" not in asked(step)


@pytest.mark.parametrize("limit", [1, 2])
def test_replica_that_is_not_ready_counts_against_the_limit(limit: int) -> None:
    pods = [
        make_pod("a", serves="new"),
        make_pod("b", serves=None, ready=False),
        *map(make_pod, "cd"),
    ]
    assert asked(plan(*pods, reload={"maxConcurrent": limit}, replicas=4)) == ["c"][: limit - 1]


def test_missing_pod_counts_against_the_limit() -> None:
    assert asked(plan(make_pod("a", serves="new"), make_pod("b"), replicas=3)) == []


def test_pod_that_finds_no_node_does_not_keep_the_others_from_reloading() -> None:
    lost = make_pod("c", serves=None, ready=False, issue=Issue("Unschedulable", "no node"))
    assert asked(plan(make_pod("a", serves="new"), make_pod("b"), lost, replicas=3)) == ["b"]


def test_pods_that_are_all_unready_get_the_fix() -> None:
    pods = [make_pod(name, ready=False) for name in "abc"]
    assert asked(plan(*pods)) == ["a"]


# -- health after the reload ----------------------------------------------------------------------


def reloaded(name: str = "a", **state: Any) -> Pod:
    return make_pod(name, serves="new", request=NEW, result="succeeded", **state)


def test_first_pod_has_to_stay_ready_before_others_are_asked() -> None:
    step = plan(reloaded(steady_s=4.9), make_pod("b"), make_pod("c"))
    assert step.states["a"] is ReloadState.SETTLING
    assert asked(step) == []
    assert step.is_running
    assert asked(plan(reloaded(steady_s=5.0), make_pod("b"), make_pod("c"))) == ["b"]


def test_every_pod_has_to_stay_ready_before_the_next_is_asked() -> None:
    step = plan(reloaded("a"), reloaded("b", steady_s=0.0), make_pod("c"))
    assert asked(step) == []


def test_pod_that_says_it_is_not_ready_does_not_settle() -> None:
    step = plan(reloaded(unready="/healthz answered 500"), make_pod("b"), make_pod("c"))
    assert step.states["a"] is ReloadState.SETTLING
    assert asked(step) == []


def test_readiness_lost_after_the_reload_is_a_failure() -> None:
    lost = reloaded(ready=False, ready_changed=LATER, unready="/healthz answered 500")
    step = plan(lost, make_pod("b"), make_pod("c"))
    assert asked(step) == []
    assert step.failure is not None
    assert step.failure.message.endswith("not ready with the new content: /healthz answered 500")


def test_readiness_that_was_had_after_the_reload_and_lost_again_is_a_failure() -> None:
    lost = reloaded(ready=False, was_ready=False, ready_changed=LATER)
    assert plan(lost, make_pod("b")).failure is not None


def test_pod_that_was_not_ready_before_has_until_the_deadline_to_become_so() -> None:
    waiting = reloaded(ready=False, was_ready=False, asked_s_ago=20.0)
    assert plan(waiting, make_pod("b")).states["a"] is ReloadState.SETTLING
    late = reloaded(ready=False, was_ready=False, asked_s_ago=126.0)
    assert plan(late, make_pod("b")).failure is not None


def test_readiness_lost_long_after_the_reload_is_not_its_failure() -> None:
    step = plan(reloaded(ready=False, ready_changed=LATER, asked_s_ago=7200.0), reloaded("b"))
    assert step.failure is None


@pytest.mark.parametrize("serves", [None, "old", "new"])
def test_container_that_ends_after_it_was_asked_is_a_failure(serves: str | None) -> None:
    ended = make_pod("a", serves=serves, request=NEW, asked_s_ago=10.0, end=CRASHED)
    step = plan(ended, make_pod("b"), make_pod("c"))
    assert asked(step) == []
    assert step.failure is not None
    assert "container ended" in step.failure.message


@pytest.mark.parametrize("serves", [None, "old", "new"])
@pytest.mark.parametrize("ready", [True, False])
def test_container_that_was_ended_after_it_was_asked_is_asked_the_same_once_more(
    serves: str | None, ready: bool
) -> None:
    """By a person, by the kubelet, or by the kernel of a node that has no memory left."""
    killed = make_pod("a", serves=serves, request=NEW, asked_s_ago=119.0, ready=ready, end=KILLED)
    step = plan(killed, make_pod("b"), make_pod("c"))
    assert step.failure is None
    assert step.ask == ((killed, NEW),)


def test_pod_that_was_not_ready_may_have_ended_of_what_it_had_before() -> None:
    ended = make_pod("a", request=NEW, was_ready=False, ready=False, end=CRASHED)
    assert plan(ended, make_pod("b")).ask == ((ended, NEW),)


@pytest.mark.parametrize("end", [KILLED, CRASHED])
def test_container_that_ends_a_second_time_after_it_was_asked_is_a_failure(end: End) -> None:
    twice = make_pod("a", request=NEW, is_second=True, was_ready=False, ready=False, end=end)
    step = plan(twice, make_pod("b"), make_pod("c"))
    assert asked(step) == []
    assert step.failure is not None
    assert ("add an annotation" in step.failure.message) == (end is KILLED)


def test_container_that_is_stopped_again_and_again_has_its_time_anew_once() -> None:
    def look(*, is_second: bool) -> ReloadPlan:
        pod = make_pod(
            "a", request=NEW, result="running", asked_s_ago=119.0, is_second=is_second, end=KILLED
        )
        return plan(pod, make_pod("b"))

    assert asked(look(is_second=False)) == ["a"]
    assert look(is_second=True).failure is not None


def test_pod_whose_container_ended_long_after_its_reload_is_asked_the_same_again() -> None:
    pod = make_pod("a", request=NEW, result="running", asked_s_ago=7200.0, end=KILLED)
    step = plan(pod, reloaded("b"))
    assert (step.failure, asked(step)) == (None, ["a"])


def test_container_that_ended_before_it_was_asked_says_nothing() -> None:
    before = Before(CRASHED.container, ready=True, ready_changed=EARLIER, is_second=False)
    pod = make_pod("a", request=NEW, result="running", end=CRASHED, before=before)
    assert plan(pod, make_pod("b")).states["a"] is ReloadState.RELOADING


def test_pod_that_an_older_operator_has_asked_is_judged_by_its_agent_alone() -> None:
    pod = make_pod("a", request=NEW, result="running", end=CRASHED, before=None)
    assert plan(pod, make_pod("b")).states["a"] is ReloadState.RELOADING


def test_container_that_ends_long_after_its_reload_is_not_its_failure() -> None:
    step = plan(reloaded(asked_s_ago=7200.0, end=CRASHED), reloaded("b"), make_pod("c"))
    assert step.failure is None
    assert asked(step) == ["c"]


def test_container_that_ends_after_all_pods_served_the_content_is_not_its_failure() -> None:
    def look(end: End, *, is_good: bool) -> ReloadPlan:
        pods = (reloaded(asked_s_ago=60.0, end=end), reloaded("b"))
        return plan_reload(make_app(replicas=2), "t1", pods, digests("new"), NOW, is_good=is_good)

    assert look(CRASHED, is_good=False).failure is not None
    assert look(CRASHED, is_good=True).failure is None
    assert asked(look(KILLED, is_good=True)) == []


@pytest.mark.parametrize(
    "pod",
    [
        reloaded(ready=False, ready_changed=LATER, end=KILLED, asked_s_ago=60.0),
        reloaded(ready=False, was_ready=False, asked_s_ago=126.0),
        make_pod("a", serves=None, ready=False, request=NEW, asked_s_ago=126.0, end=KILLED),
    ],
)
def test_pod_that_starts_again_with_what_all_have_served_has_not_failed(pod: Pod) -> None:
    pods = (pod, reloaded("b"))
    step = plan_reload(make_app(replicas=2), "t1", pods, digests("new"), NOW, is_good=True)
    assert step.failure is None


def test_container_that_ended_by_itself_long_after_its_reload_has_its_time_anew() -> None:
    """It has booted older content, such as the last good one, and its agent brings the newest to it."""
    ended = make_pod("a", request=NEW, result="running", asked_s_ago=3600, end=CRASHED)
    assert plan(ended, make_pod("b", serves="new")).ask == ((ended, NEW),)
    late = make_pod("a", request=NEW, result="running", asked_s_ago=500)
    assert plan(late, make_pod("b", serves="new")).states["a"] is ReloadState.FAILED


@pytest.mark.parametrize("ready", [True, False])
def test_silence_after_the_question_is_waited_out_and_then_a_failure(ready: bool) -> None:
    def silent(asked_s_ago: float) -> ReloadPlan:
        pod = make_pod("a", serves=None, request=NEW, asked_s_ago=asked_s_ago, ready=ready)
        return plan(pod, make_pod("b"), make_pod("c"))

    assert silent(119.0).states["a"] is ReloadState.RELOADING
    assert asked(silent(119.0)) == []
    failure = silent(121.0).failure
    assert failure is not None
    assert "did not answer" in failure.message


def test_agent_that_falls_silent_long_after_its_reload_is_not_a_failure() -> None:
    pod = make_pod("a", serves=None, request=NEW, asked_s_ago=7200.0)
    assert plan(pod, reloaded("b")).states["a"] is ReloadState.SILENT


def test_evicted_pod_that_was_asked_is_a_failure() -> None:
    evicted = make_pod(
        "a", serves=None, request=NEW, asked_s_ago=20.0, terminating=True, has_failed=True,
        issue=Issue("Evicted", "The node was low on resource: memory."),
    )  # fmt: skip
    step = plan(evicted, *map(make_pod, "bcd"))
    assert asked(step) == []
    assert step.failure is not None
    assert "low on resource" in step.failure.message


# -- a failure that is remembered -----------------------------------------------------------------


REMEMBERED = Failure(NEW.id, "gone", "boom")


def recall(*pods: Pod, version: int = 1) -> ReloadPlan:
    found = digests("new", version)
    return plan_reload(make_app(), "t1", pods, found, NOW, remembered=REMEMBERED)


def test_failure_is_remembered_when_its_pod_is_gone() -> None:
    step = recall(*map(make_pod, "abc"))
    assert step.failure == REMEMBERED
    assert asked(step) == []


def test_remembered_failure_is_over_when_the_object_was_touched() -> None:
    step = recall(*map(make_pod, "abc"), version=2)
    assert step.failure is None
    assert asked(step) == ["a"]


def test_remembered_failure_is_over_when_all_pods_have_the_content() -> None:
    assert recall(*(make_pod(name, serves="new") for name in "abc")).failure is None


@pytest.mark.parametrize("end", [None, KILLED, CRASHED])
def test_remembered_failure_is_over_when_its_pod_took_the_content_late(end: End | None) -> None:
    """But not where the content has ended its container: a second try that goes well is no proof."""
    step = recall(reloaded("gone", asked_s_ago=400.0, end=end), make_pod("b"), make_pod("c"))
    assert (step.failure is None) == (end is not CRASHED)
    assert asked(step) == ([] if end is CRASHED else ["b"])


# -- rollouts that do not go on ---------------------------------------------------------------------


def test_stuck_rollout_does_not_keep_reloads_from_what_serves() -> None:
    stuck = make_pod("d", template="t2", serves=None, ready=False)
    pods = (*(make_pod(name, template="t1") for name in "abc"), stuck)
    step = plan_reload(make_app(), "t2", pods, digests("new"), NOW, is_stuck=True)
    assert asked(step) == ["a"]
    step = plan_reload(make_app(), "t2", pods, digests("new"), NOW)
    assert asked(step) == []


def test_pod_is_only_asked_for_contents_that_it_mounts() -> None:
    extra = {"name": "extra", "configMap": {"name": "extra"}, "mountPath": "/etc/extra"}
    app = make_app(config=[extra], rollout={"paused": True}, replicas=1)
    found = {**digests("new"), Ref("ConfigMap", "extra"): Digest(1, "x")}
    (first, request), *_ = plan_reload(app, "t2", (make_pod("a"),), found, NOW).ask
    assert first.name == "a"
    assert request.content == {"source": "new"}
    done = make_pod("a", serves="new", request=request, result="succeeded")
    assert plan_reload(app, "t2", (done,), found, NOW).states == {"a": ReloadState.CURRENT}


def test_pods_of_an_older_template_are_left_to_the_rollout() -> None:
    step = plan(make_pod("a", template="t0"), make_pod("b", serves="new"))
    assert step.states == {"b": ReloadState.CURRENT}


def test_pods_of_an_older_template_reload_while_the_rollout_is_paused() -> None:
    step = plan(make_pod("a", template="t0"), rollout={"paused": True})
    assert asked(step) == ["a"]


def test_pods_on_their_way_out_are_left_alone() -> None:
    assert plan(make_pod("a", terminating=True)).states == {}


def test_missing_content_asks_nobody() -> None:
    step = plan_reload(make_app(), "t1", (make_pod("a"),), {CODE: Digest(0, None)}, NOW)
    assert step.request is None
    assert asked(step) == []


def test_operator_killed_at_any_point_goes_on_to_the_same_end() -> None:
    """Walk a reload of three pods; every step is planned from nothing but the pods' state."""
    pods = {name: make_pod(name) for name in "abc"}
    order: list[str] = []
    for _ in range(10):
        step = plan(*pods.values())
        assert len(step.ask) <= 1
        reloading = [name for name, state in step.states.items() if state is ReloadState.RELOADING]
        for name in reloading:
            pods[name] = make_pod(name, serves="new", request=NEW, result="succeeded")
        for pod, _ in step.ask:
            order.append(pod.name)
            pods[pod.name] = make_pod(pod.name, request=NEW, result="running")
    assert order == ["a", "b", "c"]
    assert set(plan(*pods.values()).states.values()) == {ReloadState.CURRENT}


def test_id_depends_on_content_and_version_and_the_hash_on_content_alone() -> None:
    app = make_app()
    first, first_hash = make_request(app, digests("x", 1))
    second, second_hash = make_request(app, digests("x", 2))
    assert first is not None
    assert second is not None
    assert first.id != second.id
    assert first_hash == second_hash
    assert len(first.id) == 16
