"""Each wait ends by an event or a timer, and the longer nothing changes, the rarer the looks."""

from typing import Any

import pytest
from wsgiapp.types import App
from wsgiapp_operator.reload import Failure, ReloadPlan, ReloadState
from wsgiapp_operator.requeue import (
    JITTER,
    LONGEST_BLOCKED_WAIT_S,
    LONGEST_SILENT_WAIT_S,
    LONGEST_WAIT_S,
    MOST_LOOKS_PER_S,
    RESYNC_S,
    SETTLE_S,
    requeue_after,
)
from wsgiapp_operator.state import Issue, Observed, ReloadRequest

from tests.unit.operator.samples import make_app, make_pod

DB = {"name": "db", "secret": {"name": "db"}, "mountPath": "/etc/db"}
LONG_S = 100_000.0


def look_again_s(
    *states: ReloadState, app: App | None = None, quiet_s: float = LONG_S, **given: Any
) -> float:
    """Return the pause of an app with a pod for each of `states`."""
    pods = tuple(make_pod(f"shop-{number}") for number in range(len(states)))
    plan = ReloadPlan(
        request=ReloadRequest("r", {}),
        content_hash="h",
        states={pod.name: state for pod, state in zip(pods, states, strict=True)},
        failure=given.get("failure"),
    )
    observed = Observed(
        status={}, owned={}, pods=pods, digests={}, secrets_issue=given.get("unread")
    )
    return requeue_after(
        app or make_app(replicas=len(states)), observed, plan, given.get("issues", ()),
        silent_s=given.get("silent_s", 0.0), quiet_s=quiet_s, is_kept=given.get("is_kept", True),
        apps=given.get("apps", 1), unready=given.get("unready", 1),
    )  # fmt: skip


def test_settled_app_waits_for_events() -> None:
    assert look_again_s(ReloadState.CURRENT) >= RESYNC_S * (1 - JITTER)


@pytest.mark.parametrize("state", [ReloadState.RELOADING, ReloadState.SETTLING])
@pytest.mark.parametrize(
    ("quiet_s", "pause_s"), [(0.0, 0.5), (5.0, 0.5), (20.0, 2.0), (3600.0, 5.0)]
)
def test_step_of_a_reload_that_takes_an_hour_is_not_looked_at_twice_a_second(
    state: ReloadState, quiet_s: float, pause_s: float
) -> None:
    assert look_again_s(ReloadState.CURRENT, state, quiet_s=quiet_s) == pause_s


def test_failed_reload_that_its_pod_may_take_late_is_looked_at() -> None:
    """Of a Secret no last good copy is made, so nothing else keeps such an app from being settled."""
    app = make_app(source=None, config=[DB], replicas=2)
    failed = Failure("r", "shop-0", "not ready in time")
    states = (ReloadState.FAILED, ReloadState.OUTDATED)
    pause_s = look_again_s(*states, app=app, failure=failed)
    assert pause_s <= LONGEST_WAIT_S * (1 + JITTER)
    assert look_again_s(ReloadState.CURRENT, failure=failed) <= LONGEST_WAIT_S * (1 + JITTER)


def test_app_that_is_scaled_to_zero_is_settled_without_a_last_good_copy() -> None:
    assert look_again_s(is_kept=False) >= RESYNC_S * (1 - JITTER)
    assert look_again_s(ReloadState.CURRENT, is_kept=False) <= LONGEST_WAIT_S * (1 + JITTER)


@pytest.mark.parametrize(("quiet_s", "pause_s"), [(0, SETTLE_S), (LONG_S, LONGEST_SILENT_WAIT_S)])
def test_agent_that_refuses_connections_is_asked_less_and_less(
    quiet_s: float, pause_s: float
) -> None:
    assert look_again_s(ReloadState.SILENT, quiet_s=quiet_s) == pause_s
    assert look_again_s(ReloadState.SILENT, quiet_s=quiet_s, silent_s=99.0) == 99.0


@pytest.mark.parametrize(("quiet_s", "pause_s"), [(0, SETTLE_S), (LONG_S, LONGEST_BLOCKED_WAIT_S)])
def test_resource_that_a_finalizer_holds_is_looked_at_less_and_less(
    quiet_s: float, pause_s: float
) -> None:
    issues = [Issue("ResourceTerminating", "it waits for its finalizers")]
    assert look_again_s(ReloadState.CURRENT, quiet_s=quiet_s, issues=issues) == pause_s


def test_refused_key_is_tried_again_and_a_missing_permission_waits_for_a_new_operator() -> None:
    for reason, longest_s in (("Forbidden", LONGEST_WAIT_S), ("NotPermitted", RESYNC_S)):
        pause_s = look_again_s(ReloadState.CURRENT, unread=Issue(reason, "no"))
        assert longest_s * (1 - JITTER) <= pause_s <= longest_s * (1 + JITTER)


def test_app_whose_pods_stay_unready_costs_few_looks_in_ten_minutes() -> None:
    """Its status says the same all the time; that a pod becomes ready is reported by its watch.

    The last of six, each as early as its jitter allows, is 690 s after the first.
    """
    unready, now_s, looks = make_app(replicas=5), 0.0, 0
    while now_s < 600.0:
        now_s += look_again_s(ReloadState.CURRENT, app=unready, quiet_s=now_s)
        looks += 1
    assert looks <= 6
    assert look_again_s(ReloadState.CURRENT, app=unready) <= LONGEST_WAIT_S * (1 + JITTER)


@pytest.mark.parametrize("number", [1, 100, 1000, 5000])
def test_looks_at_many_apps_are_no_more_than_some_a_second(number: int) -> None:
    """Over all settled ones, and over all that wait for pods: so many cost no more than a few."""
    most = MOST_LOOKS_PER_S / (1 - JITTER)
    assert number / look_again_s(ReloadState.CURRENT, apps=number) <= most
    waiting = look_again_s(ReloadState.CURRENT, app=make_app(replicas=5), unready=number)
    assert number / waiting <= most


def test_app_that_has_just_lost_a_pod_is_looked_at_soon_whatever_the_others_do() -> None:
    """In the first seconds of a pod its agent reports one reason after the other."""
    pauses = [
        look_again_s(ReloadState.CURRENT, app=make_app(replicas=5), quiet_s=quiet_s, unready=5000)
        for quiet_s in (0.0, 10.0)
    ]
    assert pauses[0] <= 5.0 * (1 + JITTER)
    assert pauses[1] <= 40.0 * (1 + JITTER)


def test_app_whose_content_is_soon_the_last_good_one_is_looked_at_as_soon() -> None:
    pause_s = look_again_s(ReloadState.CURRENT, quiet_s=10.0, is_kept=False)
    assert pause_s <= 10.0 * (1 + JITTER)
