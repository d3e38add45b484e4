"""A new version reaches a few apps at a time, stops at the first that does not become ready, and never
holds back what a user changed."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from prometheus_client import generate_latest
from wsgiapp.names import PODS_ANNOTATION, REVISION_ANNOTATION, TEMPLATE_ANNOTATION
from wsgiapp.resources import Platform, build_resources
from wsgiapp.types import Manifest
from wsgiapp_operator.cache import AppKey
from wsgiapp_operator.metrics import Metrics
from wsgiapp_operator.status import show_time
from wsgiapp_operator.upgrade import (
    LONGEST_BOOT,
    LONGEST_STANDSTILL,
    Applied,
    Upgrade,
    Upgrades,
    describe_template,
    find_patience,
    follow_applied,
    is_upgrade,
    read_applied,
    read_upgrade,
    show_applied,
)

from tests.unit.operator.samples import NOW, PLATFORM, make_app

NEW = replace(PLATFORM, prefork_image="wsgiapp/prefork:9")
A, B, C, D = (AppKey("web", name) for name in "abcd")


def deployment(
    platform: Platform = PLATFORM,
    *,
    ready: int = 3,
    stuck: bool = False,
    reason: str = "ReplicaSetUpdated",
    digests: dict[str, str] | None = None,
    **spec: Any,
) -> Manifest:
    """Return a Deployment as it is in the cluster, its pods made from the newest template."""
    built = build_resources(make_app(**spec), platform, digests or {})
    made: Manifest = next(m for m in built if m["kind"] == "Deployment")
    replicas = made["spec"]["replicas"]
    counts = {"replicas": replicas, "updatedReplicas": replicas, "availableReplicas": ready}
    progressing = {"type": "Progressing", "status": "False" if stuck else "True", "reason": reason}
    return {**made, "status": {**counts, "conditions": [progressing]}}


def by_upgrade(made: Manifest) -> Applied:
    """Return what the status remembers where an upgrade brought the template of `made`."""
    return describe_template(made)._replace(upgrading=True)


def read_by_upgrade(made: Manifest) -> Upgrade:
    return read_upgrade(made, by_upgrade(made))


def see(gate: Upgrades, app: AppKey, made: Manifest) -> None:
    """Let `gate` see a Deployment whose template an upgrade brought."""
    gate.see(app, made, by_upgrade(made))


@pytest.fixture
def woken() -> list[AppKey]:
    return []


@pytest.fixture
def upgrades(woken: list[AppKey]) -> Callable[..., Upgrades]:
    """Return make(at_a_time)."""
    return lambda at_a_time=2: Upgrades(at_a_time, woken.append, Metrics())


def test_only_what_the_user_did_not_change_is_an_upgrade() -> None:
    live = deployment()
    assert is_upgrade(deployment(NEW), live)
    assert is_upgrade(deployment(replace(PLATFORM, image_volumes=False)), live)
    assert not is_upgrade(deployment(), live)
    assert not is_upgrade(deployment(replicas=5), live)
    assert not is_upgrade(deployment(NEW, image="shop:2"), live)
    assert not is_upgrade(deployment(NEW, digests={"settings": "1"}), live)
    assert not is_upgrade(deployment(NEW), None)


def test_first_upgrade_from_before_there_were_revisions_is_one_where_the_spec_was_applied_already() -> (
    None
):
    live = deployment()
    del live["spec"]["template"]["metadata"]["annotations"][REVISION_ANNOTATION]
    del live["metadata"]["annotations"][PODS_ANNOTATION]
    assert is_upgrade(deployment(NEW), live, is_known_spec=True)
    assert not is_upgrade(deployment(NEW, image="shop:2"), live, is_known_spec=False)


def test_another_name_of_the_same_secret_is_an_upgrade_and_another_secret_is_not() -> None:
    live = deployment(digests={"db": "plain"})
    former = live["spec"]["template"]["metadata"]["annotations"][REVISION_ANNOTATION]
    keyed = deployment(NEW, digests={"db": "keyed"})
    assert is_upgrade(keyed, live, former_revision=former)
    assert not is_upgrade(keyed, live, former_revision="another")


@pytest.mark.parametrize(
    "change",
    [{"resources": {"limits": {"memory": "1Gi"}}}, {"agent": {"resources": {"limits": {"memory": "1Gi"}}}},
     {"healthCheck": {"startupTimeoutSeconds": 99}}, {"termination": {"drainDelaySeconds": 9}},
     {"imagePullPolicy": "Always"}, {"imagePullSecrets": [{"name": "registry"}]}],
)  # fmt: skip
def test_what_mends_an_app_never_waits_for_an_upgrade(change: dict[str, Any]) -> None:
    assert not is_upgrade(deployment(**change), deployment())
    assert not is_upgrade(deployment(NEW, **change), deployment())


def test_scaling_takes_no_upgrade_along() -> None:
    assert is_upgrade(deployment(NEW, replicas=5), deployment())


def test_what_befalls_an_app_after_its_upgrade_does_not_count(
    upgrades: Callable[..., Upgrades],
) -> None:
    gate = upgrades(1)
    later = deployment(NEW, ready=1, reason="NewReplicaSetAvailable")
    see(gate, A, later)
    newest = replace(PLATFORM, prefork_image="wsgiapp/prefork:10")
    assert is_upgrade(deployment(newest), later)
    assert gate.ask(A, later) is not None, "only an app whose pods are all ready gets a turn"
    assert gate.ask(B, deployment()) is None, "and one that is not holds up no other"


def test_the_word_complete_counts_only_for_pods_of_the_newest_template() -> None:
    begun = deployment(NEW, reason="NewReplicaSetAvailable")
    begun["status"] |= {"updatedReplicas": 0}
    assert read_upgrade(begun, by_upgrade(begun)) is Upgrade.UNDER_WAY
    begun["status"] |= {"updatedReplicas": 3, "availableReplicas": 0, "observedGeneration": 1}
    begun["metadata"]["generation"] = 2
    assert read_upgrade(begun, by_upgrade(begun)) is Upgrade.UNDER_WAY


def test_paused_app_takes_no_place_of_those_that_roll(upgrades: Callable[..., Upgrades]) -> None:
    gate, paused = upgrades(1), {"rollout": {"paused": True}}
    assert gate.ask(A, deployment(**paused)) is None
    see(gate, A, deployment(NEW, ready=2, **paused))
    assert gate.ask(B, deployment()) is None
    see(gate, A, deployment(NEW, ready=2))
    assert gate.ask(C, deployment()) is not None, "it counts once it rolls"


@pytest.mark.parametrize(
    ("message", "updated", "expected"),
    [
        ('pods "shop-1-x" is forbidden: exceeded quota: bounds, requested: pods=1', 0, Upgrade.NONE),
        ('pods "shop-1-x" is forbidden: exceeded quota: bounds, requested: pods=1', 1, Upgrade.STUCK),
        ('pods "shop-1-x" is forbidden: violates PodSecurity "restricted:latest"', 0, Upgrade.STUCK),
        ('pods "shop-1-x" is forbidden: failed quota: bounds: must specify limits.cpu', 0, Upgrade.STUCK),
    ],
)  # fmt: skip
def test_a_full_quota_stops_nobody_elses_upgrade(
    upgrades: Callable[..., Upgrades], message: str, updated: int, expected: Upgrade
) -> None:
    made = deployment(NEW, stuck=True)
    failure = {"type": "ReplicaFailure", "status": "True", "message": message}
    made["status"]["conditions"].append({**failure, "reason": "FailedCreate"})
    made["status"] |= {"replicas": 3 + updated, "updatedReplicas": updated}
    assert read_by_upgrade(made) is expected
    gate = upgrades(1)
    assert gate.ask(A, deployment()) is None
    see(gate, A, made)
    assert (gate.ask(B, deployment()) is None) is (expected is Upgrade.NONE)


def test_app_that_gives_its_rollout_days_holds_up_no_upgrade_that_long() -> None:
    now = [NOW]
    gate = Upgrades(1, lambda app: None, Metrics(), lambda: now[0])
    slow = deployment(NEW, ready=2, rollout={"progressDeadlineSeconds": 86400})
    moved = {"lastUpdateTime": show_time(NOW)}
    slow["status"]["conditions"] = [{**c, **moved} for c in slow["status"]["conditions"]]
    see(gate, A, slow)
    waits = gate.ask(B, deployment())
    assert waits is not None
    assert waits.reason == "WaitingForUpgrade"
    now[0] += find_patience(slow) + timedelta(seconds=1)
    waits = gate.ask(B, deployment())
    assert waits is not None
    assert waits.reason == "UpgradeStopped"
    assert "web/a" in waits.message
    moved["lastUpdateTime"] = show_time(now[0])
    slow["status"]["conditions"] = [{**c, **moved} for c in slow["status"]["conditions"]]
    see(gate, A, slow)
    waits = gate.ask(B, deployment())
    assert waits is not None
    assert waits.reason == "WaitingForUpgrade", "it moves on"


def moved_at(made: Manifest, moment: datetime) -> Manifest:
    """Return a Deployment whose rollout made its last progress at a moment."""
    moved = {"lastUpdateTime": show_time(moment)}
    status = made["status"]
    conditions = [{**condition, **moved} for condition in status["conditions"]]
    return {**made, "status": {**status, "conditions": conditions}}


def test_the_end_of_the_rollout_before_is_no_standstill_of_this_one() -> None:
    """The Deployment controller has not looked yet: the last progress that it notes was days ago."""
    gate = Upgrades(2, lambda app: None, Metrics(), lambda: NOW)
    settled = moved_at(deployment(), NOW - timedelta(days=3))
    assert gate.ask(A, settled) is None
    begun = moved_at(deployment(NEW), NOW - timedelta(days=3))
    begun["metadata"]["generation"], begun["status"]["observedGeneration"] = 2, 1
    see(gate, A, begun)
    assert gate.ask(B, deployment()) is None


@pytest.mark.parametrize(
    "spec",
    [
        {"rollout": {"minReadySeconds": 1800, "progressDeadlineSeconds": 3600}},
        {
            "healthCheck": {"startupTimeoutSeconds": 1800},
            "rollout": {"progressDeadlineSeconds": 3600},
        },
    ],
)
def test_pods_that_may_take_long_are_no_standstill(spec: dict[str, Any]) -> None:
    now = [NOW]
    gate = Upgrades(1, lambda app: None, Metrics(), lambda: now[0])
    see(gate, A, moved_at(deployment(NEW, ready=2, **spec), NOW))
    for passed, reason in ((1800, "WaitingForUpgrade"), (2500, "UpgradeStopped")):
        now[0] = NOW + timedelta(seconds=passed)
        waits = gate.ask(B, deployment())
        assert waits is not None
        assert waits.reason == reason


def by_hand(**changes: Any) -> Manifest:
    live = deployment(**changes)
    live["spec"]["template"]["spec"]["containers"][0]["image"] = "shop:by-hand"
    live["status"]["availableReplicas"] = 2  # its pods roll
    return live


def test_what_is_edited_by_hand_is_put_back_while_the_app_waits(
    upgrades: Callable[..., Upgrades],
) -> None:
    gate = upgrades(1)
    assert gate.ask(A, deployment()) is None
    assert gate.ask(B, deployment()) is not None
    assert gate.ask(B, deployment()) is not None, "nothing was edited"
    assert gate.ask(B, by_hand()) is None


def test_a_restart_by_hand_is_no_edit_and_gives_no_turn(upgrades: Callable[..., Upgrades]) -> None:
    gate = upgrades(1)
    assert gate.ask(A, deployment()) is None
    assert gate.ask(B, deployment()) is not None
    restarted = deployment()
    annotations = restarted["spec"]["template"]["metadata"]["annotations"]
    annotations["kubectl.kubernetes.io/restartedAt"] = "2026-11-22T12:00:00Z"
    assert gate.ask(B, restarted) is not None


def test_another_template_of_the_apps_own_is_no_edit(upgrades: Callable[..., Upgrades]) -> None:
    gate = upgrades(1)
    assert gate.ask(A, deployment()) is None
    assert gate.ask(B, deployment()) is not None
    assert gate.ask(B, deployment(image="shop:2")) is not None


def test_an_edit_by_hand_brings_no_version_that_has_stopped(
    upgrades: Callable[..., Upgrades],
) -> None:
    gate = upgrades(2)
    see(gate, A, deployment(NEW, ready=2, stuck=True))
    assert gate.ask(B, deployment()) is not None
    waits = gate.ask(B, by_hand())
    assert waits is not None
    assert waits.reason == "UpgradeStopped"
    see(gate, A, deployment(NEW))
    assert gate.ask(B, by_hand()) is None, "it was noticed before"


def test_what_drifts_by_hand_is_no_upgrade() -> None:
    live = deployment()
    live["spec"]["template"]["spec"]["containers"][0]["image"] = "shop:by-hand"
    assert not is_upgrade(deployment(), live)


def test_an_upgrade_is_under_way_until_all_pods_serve() -> None:
    assert read_by_upgrade(deployment(NEW, ready=2)) is Upgrade.UNDER_WAY
    assert read_by_upgrade(deployment(NEW, ready=2, stuck=True)) is Upgrade.STUCK
    assert read_by_upgrade(deployment(NEW)) is Upgrade.NONE
    assert (
        read_upgrade(deployment(NEW, ready=2), describe_template(deployment(NEW))) is Upgrade.NONE
    ), "its user's own rollout"


def test_what_is_remembered_goes_with_the_template_that_it_is_about() -> None:
    begun = deployment(NEW, ready=2)
    kept = follow_applied(deployment(NEW), begun, by_upgrade(begun))
    assert kept == by_upgrade(begun)
    assert kept is not None
    assert read_applied({"podTemplate": show_applied(kept)}) == kept
    done = follow_applied(deployment(NEW), deployment(NEW), kept)
    assert done == describe_template(begun), "every pod has it"
    changed = deployment(NEW, image="shop:2", ready=2)
    assert follow_applied(changed, changed, kept) == describe_template(changed), "the user's own"
    assert follow_applied(changed, begun, kept) == kept, "it could not be written"


FORGED = {PODS_ANNOTATION: "x", "wsgi.dev/upgrade": "x"}


def forge(live: Manifest, **of_template: str) -> Manifest:
    """Return a Deployment as somebody who may edit it can make it."""
    template = live["spec"]["template"]
    metadata = template["metadata"]
    annotations = {**metadata["annotations"], **of_template}
    template = {**template, "metadata": {**metadata, "annotations": annotations}}
    marks = {**FORGED, "wsgi.dev/upgrade": annotations[TEMPLATE_ANNOTATION]}
    return {
        **live,
        "metadata": {**live["metadata"], "annotations": marks},
        "spec": {**live["spec"], "template": template},
    }


def test_no_annotation_of_an_apps_deployment_counts_its_rollout_as_an_upgrade() -> None:
    own = deployment(image="shop:broken", ready=2, stuck=True)
    applied = describe_template(own)
    assert read_upgrade(forge(own), applied) is Upgrade.NONE
    assert read_upgrade(forge(own), None) is Upgrade.NONE


def test_no_annotation_makes_a_change_of_the_spec_an_upgrade() -> None:
    """Otherwise a broken image of one app would be given a turn, and stop everybody's upgrade."""
    live, wanted = deployment(), deployment(image="shop:broken")
    looks = describe_template(wanted)
    forged = forge(live, **{REVISION_ANNOTATION: looks.revision})
    forged["metadata"]["annotations"][PODS_ANNOTATION] = looks.pods
    assert not is_upgrade(wanted, forged, describe_template(live))


@pytest.mark.parametrize("annotation", [TEMPLATE_ANNOTATION, REVISION_ANNOTATION])
def test_template_that_is_edited_by_hand_is_put_back_and_is_no_upgrade(annotation: str) -> None:
    live = deployment()
    assert not is_upgrade(live, forge(live, **{annotation: "forged"}), describe_template(live))


def test_no_annotation_spares_an_app_its_turn() -> None:
    live = deployment()
    forged = forge(live, **{REVISION_ANNOTATION: "forged"})
    assert is_upgrade(deployment(NEW), forged, describe_template(live))


def test_upgrade_whose_write_was_refused_asks_again() -> None:
    wanted = deployment(NEW)
    assert is_upgrade(wanted, deployment(), by_upgrade(wanted))
    assert read_upgrade(deployment(), by_upgrade(wanted)) is Upgrade.NONE


@pytest.mark.parametrize(
    "status",
    [{}, {"podTemplate": {}}, {"podTemplate": {"name": "t", "revision": "r"}}],
)
def test_status_of_before_remembers_nothing(status: Manifest) -> None:
    assert read_applied(status) is None


def test_a_probe_of_a_sidecar_holds_up_no_upgrade_for_days() -> None:
    endless = {"failureThreshold": 10**6, "periodSeconds": 3600}
    sidecar = {"name": "mine", "image": "busybox", "startupProbe": endless}
    slow = deployment(podTemplate={"spec": {"containers": [sidecar]}})
    assert find_patience(slow) == LONGEST_STANDSTILL + LONGEST_BOOT


def test_no_more_apps_than_allowed_are_on_the_way(
    upgrades: Callable[..., Upgrades], woken: list[AppKey]
) -> None:
    gate, live = upgrades(2), deployment()
    assert [gate.ask(app, live) for app in (A, B)] == [None, None]
    waits = gate.ask(C, live)
    assert waits is not None
    assert waits.reason == "WaitingForUpgrade"
    assert "2 apps" in waits.message
    assert gate.ask(A, live) is None, "asking again is no second turn"
    see(gate, A, deployment(NEW, ready=1))
    assert woken == []
    see(gate, A, deployment(NEW))
    assert woken == [C]
    assert gate.ask(C, live) is None
    assert gate.ask(D, live) is not None


def test_a_turn_that_came_to_nothing_is_free_again(
    upgrades: Callable[..., Upgrades], woken: list[AppKey]
) -> None:
    gate, live = upgrades(1), deployment()
    assert gate.ask(A, live) is None
    assert gate.ask(B, live) is not None
    gate.see(A, live)  # the write was refused
    assert woken == [B]
    assert gate.ask(B, live) is None
    gate.see(B, None)  # deleted meanwhile
    assert gate.ask(C, live) is None


def test_the_first_app_that_does_not_become_ready_stops_the_others(
    upgrades: Callable[..., Upgrades], woken: list[AppKey]
) -> None:
    gate, live = upgrades(2), deployment()
    assert gate.ask(A, live) is None
    broken = deployment(NEW, ready=1, stuck=True)
    see(gate, A, broken)
    waits = gate.ask(B, live)
    assert waits is not None
    assert waits.reason == "UpgradeStopped"
    assert "web/a" in waits.message
    assert woken == []
    assert gate.ask(A, broken) is None, "a further version may mend what one has broken"
    assert woken == [B], "and the others go on with that"


def test_all_who_wait_say_that_the_upgrade_has_stopped_and_that_it_goes_on(
    upgrades: Callable[..., Upgrades], woken: list[AppKey]
) -> None:
    gate, live = upgrades(1), deployment()
    assert gate.ask(A, live) is None
    for app in (B, C, D):
        gate.ask(app, live)
    see(gate, A, deployment(NEW, ready=1, stuck=True))
    assert woken == [B, C, D]
    stopped = [gate.ask(app, live) for app in (B, C, D)]
    assert [waits.reason for waits in stopped if waits] == ["UpgradeStopped"] * 3
    assert woken == [B, C, D], "told once"
    see(gate, A, deployment(NEW))
    assert woken[3:] == [B, C, D]
    assert gate.ask(B, live) is None
    waits = gate.ask(C, live)
    assert waits is not None
    assert waits.reason == "WaitingForUpgrade"


def test_of_several_apps_that_are_stuck_the_same_one_is_named_whoever_was_looked_at_last(
    upgrades: Callable[..., Upgrades],
) -> None:
    gate, live, broken = upgrades(2), deployment(), deployment(NEW, ready=1, stuck=True)
    for app in (A, B):
        assert gate.ask(app, live) is None
    for app in (A, B):
        see(gate, app, broken)
    first = gate.ask(C, live)
    for app in (B, A, B):
        see(gate, app, broken)
        assert gate.ask(C, live) == first


def test_an_app_that_is_not_ready_waits_and_holds_up_no_other(
    upgrades: Callable[..., Upgrades], woken: list[AppKey]
) -> None:
    gate = upgrades(1)
    waits = gate.ask(A, deployment(ready=2))
    assert waits is not None
    assert "ready" in waits.message
    assert gate.ask(B, deployment()) is None
    assert gate.ask(C, deployment(replicas=0, ready=0)) is None, "no pods, no turn"


def test_a_new_operator_knows_who_is_on_the_way(upgrades: Callable[..., Upgrades]) -> None:
    gate = upgrades(1)
    see(gate, A, deployment(NEW, ready=2))
    assert gate.ask(B, deployment()) is not None


def test_figures_say_how_far_it_is() -> None:
    metrics = Metrics()
    gate = Upgrades(1, lambda app: None, metrics)
    see(gate, A, deployment(NEW, ready=2, stuck=True))
    gate.ask(B, deployment())
    text = generate_latest(metrics.registry).decode()
    assert 'wsgiapp_operator_upgrade_apps{state="stuck"} 1.0' in text
    assert 'wsgiapp_operator_upgrade_apps{state="waiting"} 1.0' in text
    assert 'wsgiapp_operator_upgrade_apps{state="under_way"} 0.0' in text


def test_figures_go_with_the_lease() -> None:
    metrics = Metrics()
    see(Upgrades(1, lambda app: None, metrics), A, deployment(NEW, ready=2))
    metrics.queue_depth.set(300)
    metrics.drop_all_apps()
    text = generate_latest(metrics.registry).decode()
    assert "upgrade_apps{" not in text
    assert "wsgiapp_operator_queue_depth 0.0" in text
