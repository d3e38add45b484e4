"""The rolling reload, step by step: each step follows from what the pods say."""

import pytest
from wsgiapp_operator.cache import Digest
from wsgiapp_operator.reload import ReloadPlan, ReloadState, make_request, plan_reload
from wsgiapp_operator.state import Pod, ReloadRequest

from tests.unit.operator.samples import CODE, NOW, digests, make_app, make_pod

NEW = make_request(make_app(), digests("new"))[0]
assert NEW is not None
OLDER = ReloadRequest("0123456789abcdef", {"source": "older"})


def plan(*pods: Pod, version: int = 1, **spec: object) -> ReloadPlan:
    return plan_reload(make_app(**spec), "t1", pods, digests("new", version), NOW)


def asked(step: ReloadPlan) -> list[str]:
    return [pod.name for pod in step.ask]


def test_pods_that_serve_the_wanted_content_are_left_alone() -> None:
    step = plan(make_pod("a", serves="new"), make_pod("b", serves="new"))
    assert asked(step) == []
    assert set(step.states.values()) == {ReloadState.CURRENT}
    assert not step.is_running


def test_first_pod_goes_alone_however_many_may_go_at_a_time() -> None:
    step = plan(make_pod("a"), make_pod("b"), make_pod("c"), reload={"maxUnavailable": 3})
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
        make_pod("a", serves="new"), make_pod("b"), make_pod("c"), reload={"maxUnavailable": share}
    )
    assert asked(step) == expected


def test_pods_that_reload_count_against_the_limit() -> None:
    first = make_pod("a", serves="new")
    step = plan(
        first,
        make_pod("b", request=NEW, result="pending"),
        make_pod("c"),
        reload={"maxUnavailable": 1},
    )
    assert asked(step) == []
    step = plan(
        first,
        make_pod("b", request=NEW, result="pending"),
        make_pod("c"),
        reload={"maxUnavailable": 2},
    )
    assert asked(step) == ["c"]


def test_pod_that_booted_with_the_new_content_proves_it_as_well() -> None:
    step = plan(make_pod("a", serves="new", ready=True), make_pod("b"), make_pod("c"))
    assert asked(step) == ["b"]


def test_pod_that_is_not_ready_proves_nothing() -> None:
    step = plan(
        make_pod("a", serves="new", ready=False),
        make_pod("b"),
        make_pod("c"),
        reload={"maxUnavailable": 2},
    )
    assert asked(step) == ["b"]


def test_failed_reload_stops_the_others_and_is_told_with_its_last_line() -> None:
    failed = make_pod(
        "a", request=NEW, result="failed", message="NameError: name 'x' is not defined"
    )
    step = plan(failed, make_pod("b"), make_pod("c"))
    assert asked(step) == []
    assert step.failure == ("a", "NameError: name 'x' is not defined")


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
    assert words in step.failure[1]
    assert "spec.reload.timeoutSeconds (120)" in step.failure[1]


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
    step = plan(pod, make_pod("b", serves="new"))
    assert step.states["a"] is state
    assert asked(step) == []


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
        for pod in step.ask:
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
