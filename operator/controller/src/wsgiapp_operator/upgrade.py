"""How a new version of the operator or of the cluster reaches the apps' pods: a few apps at a time.

A new version may change the pod template of every app. Such a change is not the app's own: each app takes
it when its turn comes, and the first app that does not become ready with it stops the others
(docs/decisions/0019). What the app's user has changed is never held back.

What counts is in the cluster: the status of the WsgiApp says which template was applied last and whether an
upgrade brought it, and the status of the Deployment whether it is rolled out. Neither can be written by who
may only edit the objects of a namespace; annotations of a Deployment can, and one app's would decide about the
upgrade of all. `Upgrades` is only an index of that, made anew by each operator.
"""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from typing import NamedTuple

from wsgiapp.digest import digest_json
from wsgiapp.names import (
    KIND,
    PODS_ANNOTATION,
    REVISION_ANNOTATION,
    TEMPLATE_ANNOTATION,
)
from wsgiapp.types import Manifest, Ref

from wsgiapp_operator.cache import AppKey, Cache
from wsgiapp_operator.metrics import Metrics
from wsgiapp_operator.pods import parse_time
from wsgiapp_operator.state import UPGRADE_FAILED, Issue
from wsgiapp_operator.status import OVER_QUOTA, count_pods, is_stuck

logger = logging.getLogger(__name__)

# A rollout that has made no progress for as long, beyond the time in which its pods may boot and prove
# themselves, is stuck, whatever progressDeadlineSeconds its user gives it: it would hold up everybody's upgrade.
LONGEST_STANDSTILL = timedelta(minutes=10)
LONGEST_BOOT = timedelta(hours=2)  # of that time; the CRD's bounds allow as much
COMPLETE = (
    "NewReplicaSetAvailable"  # the Deployment controller's word for a rollout that is complete
)


REMEDY = (
    "fix what keeps its pods from becoming ready, set its spec.rollout.paused or spec.replicas: 0, or go back to the "
    "version before"
)


class Upgrade(Enum):
    """How far a Deployment is with the upgrade that brought its template."""

    NONE = auto()  # the template is its user's own change, or everything runs it
    UNDER_WAY = auto()
    STUCK = auto()


class Applied(NamedTuple):
    """What the status of a WsgiApp says of the pod template that was applied last."""

    template: str  # names it
    revision: str  # the app's own part
    pods: str  # digest of what the spec says of pods
    upgrading: bool = False  # an upgrade brought it, and has not reached all pods yet


def read_applied(status: Manifest) -> Applied | None:
    known = status.get("podTemplate", {})
    try:
        applied = Applied(known["name"], known["revision"], known["spec"])
    except KeyError:
        return None
    return applied._replace(upgrading=bool(known.get("upgrading")))


def show_applied(applied: Applied) -> Manifest:
    """Return what `read_applied` reads."""
    shown = {"name": applied.template, "revision": applied.revision, "spec": applied.pods}
    return {**shown, "upgrading": True} if applied.upgrading else shown


def describe_template(desired: Manifest) -> Applied:
    """Return what is to be remembered of a Deployment as the operator builds it."""
    there = template_annotations(desired)
    pods = annotations_of(desired)[PODS_ANNOTATION]
    return Applied(there[TEMPLATE_ANNOTATION], there[REVISION_ANNOTATION], pods)


def follow_applied(desired: Manifest, live: Manifest, before: Applied | None) -> Applied | None:
    """Return what is to be remembered now that `desired` was written, and `live` is there."""
    wanted = describe_template(desired)
    if template_annotations(live).get(TEMPLATE_ANNOTATION) != wanted.template:
        return before  # refused
    is_same = before is not None and before.upgrading and before.template == wanted.template
    return wanted._replace(upgrading=is_same and not is_complete(live))


def is_upgrade(
    desired: Manifest,
    live: Manifest | None,
    applied: Applied | None = None,
    *,
    is_known_spec: bool = False,
    former_revision: str | None = None,
) -> bool:
    """Return whether `desired` has another template than `live` for no reason of the app's user.

    `applied` is what the status remembers, and `former_revision` what the revision was when Secrets had plain digests.
    """
    if live is None:
        return False
    wanted = describe_template(desired)
    there = template_annotations(live)
    if there.get(TEMPLATE_ANNOTATION) == wanted.template:
        return False
    if applied is None:
        return is_first_upgrade(wanted, live, former_revision, is_known_spec=is_known_spec)
    if applied.pods != wanted.pods:
        return False  # such as more memory, which pods that are not ready may be waiting for
    if applied.revision not in (wanted.revision, former_revision):
        return False
    # Where the template is the one that was applied, somebody has edited it: it is put back.
    return applied.template != wanted.template or applied.upgrading


def is_first_upgrade(
    wanted: Applied, live: Manifest, former_revision: str | None, *, is_known_spec: bool
) -> bool:
    """Decide for a Deployment of before the status remembered, by its annotations.

    `is_known_spec`: an operator has applied this generation of the spec before. It decides for one of before there were
    revisions.
    """
    if annotations_of(live).get(PODS_ANNOTATION) not in (None, wanted.pods):
        return False
    revision = template_annotations(live).get(REVISION_ANNOTATION)
    return is_known_spec if revision is None else revision in (wanted.revision, former_revision)


def read_upgrade(deployment: Manifest, applied: Applied | None) -> Upgrade:
    """Return how far a live Deployment is.

    A rollout that is complete stays so: what befalls the pods later is not the upgrade's doing. One that is
    paused replaces no pods until its user says so; one for which the namespace's quota has no room, until its
    owner makes some.
    """
    if applied is None or not applied.upgrading:
        return Upgrade.NONE
    if template_annotations(deployment).get(TEMPLATE_ANNOTATION) != applied.template:
        return Upgrade.NONE  # it could not be written
    if deployment["spec"].get("paused") or is_complete(deployment) or is_over_quota(deployment):
        return Upgrade.NONE
    return Upgrade.STUCK if is_stuck(deployment) else Upgrade.UNDER_WAY


def read_progress(deployment: Manifest) -> datetime | None:
    """Return when the rollout made its last progress, as the Deployment controller notes it."""
    for condition in deployment.get("status", {}).get("conditions", ()):
        if condition["type"] == "Progressing":
            return parse_time(condition.get("lastUpdateTime"))
    return None


def find_patience(deployment: Manifest) -> timedelta:
    """Return for how long the rollout may make no progress: a pod that boots, or that has become ready and has to
    stay so for minReadySeconds, makes none."""
    spec = deployment["spec"]
    probes = [each.get("startupProbe", {}) for each in spec["template"]["spec"]["containers"]]
    boots_s = max(each.get("failureThreshold", 0) * each.get("periodSeconds", 0) for each in probes)
    settles_s = min(boots_s + spec.get("minReadySeconds", 0), LONGEST_BOOT.total_seconds())
    return LONGEST_STANDSTILL + timedelta(seconds=settles_s)


def is_complete(deployment: Manifest) -> bool:
    """Return whether all pods were available with the newest template, once."""
    counts = count_pods(deployment, deployment["spec"].get("replicas", 1))
    conditions = deployment.get("status", {}).get("conditions", ())
    reasons = [each.get("reason") for each in conditions if each["type"] == "Progressing"]
    was_complete = counts.is_observed and counts.existing == counts.updated and COMPLETE in reasons
    return counts.is_rolled_out or was_complete


def is_over_quota(deployment: Manifest) -> bool:
    """Return whether the namespace's quota refuses the first pod of the template.

    Many quotas have room for the pods that run and no more. That says nothing of the upgrade, and is nothing
    that other tenants could wait for.
    """
    status = deployment.get("status", {})
    return not status.get("updatedReplicas") and any(
        each["type"] == "ReplicaFailure" and OVER_QUOTA in each.get("message", "")
        for each in status.get("conditions", ())
        if each["status"] == "True"
    )


def digest_pods(deployment: Manifest) -> str:
    """Return a digest of what pods are made from, without annotations: `kubectl rollout restart` writes one."""
    return digest_json(deployment["spec"]["template"]["spec"])


def annotations_of(manifest: Manifest) -> dict[str, str]:
    return manifest["metadata"].get("annotations") or {}


def template_annotations(deployment: Manifest) -> dict[str, str]:
    return deployment["spec"]["template"]["metadata"].get("annotations") or {}


class Rollout(NamedTuple):
    """An upgrade that is under way in one app, or stuck there."""

    state: Upgrade
    moved_at: datetime | None  # when it began, or made its last progress
    patience: timedelta = LONGEST_STANDSTILL

    def at(self, now: datetime) -> Upgrade:
        if self.moved_at is not None and now - self.moved_at > self.patience:
            return Upgrade.STUCK
        return self.state


class Upgrades:
    """Whose turn it is. Single-threaded; a decision and its note are one step without an await."""

    def __init__(
        self,
        at_a_time: int,
        wake: Callable[[AppKey], None],
        metrics: Metrics,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._at_a_time = at_a_time
        self._wake = wake
        self._metrics = metrics
        self._now = now
        self._under_way: dict[AppKey, Rollout] = {}
        self._waiting: dict[AppKey, None] = {}  # in the order of their asking
        # What the pods of those that were refused looked like then: the template's name, and its digest.
        self._refused: dict[AppKey, tuple[str | None, str]] = {}
        self._is_stopped = False

    def see_all(self, cache: Cache) -> None:
        """Take note of every app in the cluster, as an operator that has just listed it."""
        for app in cache.apps():
            manifest = cache.get(KIND, *app) or {}
            applied = read_applied(manifest.get("status") or {})
            self.see(app, cache.get("Deployment", *app), applied)

    def see(self, app: AppKey, deployment: Manifest | None, applied: Applied | None = None) -> None:
        """Take note of an app's Deployment as it is now, None where it is gone, and of what its status remembers."""
        state = Upgrade.NONE if deployment is None else read_upgrade(deployment, applied)
        before, began, _ = self._under_way.pop(app, Rollout(Upgrade.NONE, None))
        if deployment is not None and state is not Upgrade.NONE:
            # Until the Deployment controller has looked, its word is about the rollout before.
            moves = [moment for moment in (began, read_progress(deployment)) if moment is not None]
            rollout = Rollout(state, max(moves, default=None), find_patience(deployment))
            state = rollout.at(self._now())
            self._under_way[app] = rollout._replace(state=state)
        if deployment is None:
            self._waiting.pop(app, None)
            self._refused.pop(app, None)
        if state is Upgrade.STUCK and before is not Upgrade.STUCK:
            logger.warning(
                "upgrade stopped, other apps wait for this one: app=%s; see its condition UpToDate, and %s", app, REMEDY
            )  # fmt: skip
        self._wake_next()
        self._show()

    def ask(self, app: AppKey, live: Manifest, missing: Sequence[Ref] = ()) -> Issue | None:
        """Return None where the app takes its upgrade now, else why it waits.

        `missing` are contents that do not exist: new pods could not mount them, and an upgrade that is stuck stops
        everybody's.

        A template that was edited by hand while the app waits is replaced at once: its pods roll anyway, and
        what they were made from before is not known any more.
        """
        self._waiting.pop(app, None)
        looks = template_annotations(live).get(TEMPLATE_ANNOTATION), digest_pods(live)
        before = self._refused.get(app, looks)
        is_edited = before[0] == looks[0] and before != looks
        why_not = self._find_stopped(app) if is_edited else self._refuse(app, live, missing)
        self._refused[app] = before if is_edited else looks
        if why_not is None:
            del self._refused[app]
            self._under_way[app] = Rollout(Upgrade.UNDER_WAY, self._now())
        self._wake_next()
        self._show()
        return why_not

    def explain_stuck(self, app: AppKey) -> Issue | None:
        """Return what the app itself is to say where it did not become ready with its upgrade, and stops the others."""
        rollout = self._under_way.get(app)
        if rollout is None or rollout.at(self._now()) is not Upgrade.STUCK:
            return None
        return Issue(
            UPGRADE_FAILED,
            "the app did not become ready with a new version of the operator or of the cluster, and the other apps "
            f"wait for it; {REMEDY}",
        )

    def _refuse(self, app: AppKey, live: Manifest, missing: Sequence[Ref]) -> Issue | None:
        replicas = live["spec"].get("replicas", 1)
        if app in self._under_way or replicas == 0 or live["spec"].get("paused"):
            return None  # what an upgrade has broken, the next one may fix; and no pod is no risk
        if not count_pods(live, replicas).is_rolled_out:
            return Issue(
                "WaitingForUpgrade",
                "a new version of the operator or of the cluster changes the pods; they get it when all "
                "of them are ready, or with the next change of the spec",
            )
        if missing:
            return Issue(
                "WaitingForUpgrade",
                "a new version of the operator or of the cluster changes the pods; they get it when "
                f"{missing[0].kind} {missing[0].name} is there, without which new pods cannot start",
            )
        if stopped := self._find_stopped(app):
            return stopped
        if len(self._under_way) >= self._at_a_time:
            self._waiting[app] = None
            return Issue(
                "WaitingForUpgrade",
                "a new version of the operator or of the cluster changes the pods; "
                f"{self._at_a_time} apps get it at a time",
            )
        return None

    def _find_stopped(self, app: AppKey) -> Issue | None:
        # Of several always the same one: all who wait have its name in their status.
        stuck = sorted(str(key) for key, state in self._states().items() if state is Upgrade.STUCK)
        if not stuck:
            return None
        self._waiting[app] = None
        return Issue(
            "UpgradeStopped",
            f"a new version of the operator or of the cluster changes the pods, and app {stuck[0]} did "
            "not become ready with it; fix that app, set its spec.rollout.paused or spec.replicas: 0, or go back to "
            "the version before",
        )

    def _states(self) -> dict[AppKey, Upgrade]:
        now = self._now()
        return {app: rollout.at(now) for app, rollout in self._under_way.items()}

    def _wake_next(self) -> None:
        """Let as many of those who wait ask again as there is room for; all of them, where what they say of why they
        wait has become untrue."""
        was_stopped, self._is_stopped = self._is_stopped, Upgrade.STUCK in self._states().values()
        room = 0 if self._is_stopped else max(0, self._at_a_time - len(self._under_way))
        asking = len(self._waiting) if self._is_stopped != was_stopped else room
        for app in list(self._waiting)[:asking]:
            del self._waiting[app]
            self._wake(app)

    def _show(self) -> None:
        states = list(self._states().values())
        for name, state in (("under_way", Upgrade.UNDER_WAY), ("stuck", Upgrade.STUCK)):
            self._metrics.upgrades.labels(state=name).set(states.count(state))
        self._metrics.upgrades.labels(state="waiting").set(len(self._waiting))
