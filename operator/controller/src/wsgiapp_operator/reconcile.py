"""One app, one step further: the whole story on one page.

Level-based and idempotent: nothing is remembered from one call to the next but the cache of what was
seen, so it does not matter how often, or after what, it is called.
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple

from wsgiapp.names import KIND, TEMPLATE_ANNOTATION
from wsgiapp.parse import parse_app
from wsgiapp.resources import Platform, build_resources, has_service_account
from wsgiapp.resources.deployment import pod_revision, read_restart_digests
from wsgiapp.resources.ingress import master_name
from wsgiapp.resources.service_account import build_service_account
from wsgiapp.schema import Invalid
from wsgiapp.types import App, Manifest

from wsgiapp_operator.agents import Agents
from wsgiapp_operator.apply import Writer
from wsgiapp_operator.cache import AppKey, Cache
from wsgiapp_operator.client import Cluster
from wsgiapp_operator.errors import OwnerDeleted, RequeueAfter
from wsgiapp_operator.events import choose_events
from wsgiapp_operator.ingress_classes import IngressClasses
from wsgiapp_operator.last_good import (
    collect,
    describe_contents,
    find_good,
    is_good,
    is_kept,
    is_newest_kept,
    keep,
)
from wsgiapp_operator.metrics import Metrics
from wsgiapp_operator.named_secrets import NamedSecrets
from wsgiapp_operator.observe import ask_agents, copy_ref, observe
from wsgiapp_operator.ownership import is_owned
from wsgiapp_operator.policy import check_policy
from wsgiapp_operator.reload import ReloadPlan, plan_reload
from wsgiapp_operator.requeue import is_whole, requeue_after
from wsgiapp_operator.slots import Slots
from wsgiapp_operator.state import AgentStatus, Issue, Observed
from wsgiapp_operator.status import (
    build_invalid_status,
    build_status,
    count_pods,
    find_class_issue,
    is_stuck,
    read_failure,
)
from wsgiapp_operator.upgrade import (
    Applied,
    Upgrades,
    describe_template,
    follow_applied,
    is_upgrade,
    read_applied,
    show_applied,
)

logger = logging.getLogger(__name__)

BUSY_S = 60.0  # that only the number of busy workers has changed is written no more often than this
ENDS_OF_RELOAD = {"ReloadFinished": "succeeded", "ReloadFailed": "failed"}


class Turn(NamedTuple):
    """What the status remembers of the pod template, and why an upgrade of it waits, if one does."""

    applied: Applied | None
    waits: Issue | None = None


@dataclass(frozen=True, kw_only=True)
class Reconciler:
    """Everything that a reconcile needs from outside."""

    cluster: Cluster
    cache: Cache
    agents: Agents
    writer: Writer
    secrets: NamedSecrets
    ingress_classes: IngressClasses
    metrics: Metrics
    platform: Platform
    upgrades: Upgrades
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    slots: Slots = field(
        default_factory=Slots
    )  # of those that read and write; asking agents needs none
    last_status_write: dict[AppKey, float] = field(default_factory=dict)
    quiet_since: dict[AppKey, float] = field(default_factory=dict)  # but for busy workers
    unready: set[AppKey] = field(default_factory=set)

    async def reconcile(self, key: AppKey) -> float | None:
        """Bring one app a step further; return the seconds after which to look again."""
        started, result = time.monotonic(), "error"
        try:
            again_s = await self._reconcile(key)
            result = "success"
        except RequeueAfter as retry:
            logger.info("waiting: app=%s reason=%s", key, retry)
            again_s, result = retry.after_s, "retry"
        except OwnerDeleted as deleted:
            is_known = self.cache.forget_app(key, deleted.uid)
            logger.info("WsgiApp is gone: app=%s uid=%s known=%s", key, deleted.uid, is_known)
            again_s, result = 0.0, "gone"  # once more, in case a namesake is there already
        finally:
            self.metrics.reconciles.labels(result=result).inc()
            self.metrics.reconcile_seconds.observe(time.monotonic() - started)
        return again_s

    async def _reconcile(self, key: AppKey) -> float | None:
        """Ask the agents first, outside the slots: an app whose pods are silent holds up no other."""
        answers: Mapping[str, AgentStatus] = {}
        manifest = self.cache.get(KIND, key.namespace, key.name)
        if manifest is not None:
            answers = await ask_agents(key, self.cache, self.agents)
        async with self.slots.hold(key, first=is_changed(manifest) or is_reloading(manifest)):
            return await self._take_step(key, answers)

    async def _take_step(self, key: AppKey, answers: Mapping[str, AgentStatus]) -> float | None:
        manifest = self.cache.get(KIND, key.namespace, key.name)
        if manifest is None or "deletionTimestamp" in manifest["metadata"]:
            self._forget(key)  # the garbage collector takes what it owned
            return None
        try:
            app = parse_app(manifest)
            check_policy(app, self.platform)
        except Invalid as error:
            applied = read_applied(manifest.get("status") or {})
            self.upgrades.see(key, self.cache.get("Deployment", *key), applied)
            await self._report_invalid(manifest, error)
            return None

        observed = await observe(
            app, manifest, answers, self.cluster, self.cache, self.secrets, self.ingress_classes
        )
        desired = choose_resources(app, self.platform, observed)
        manifest, turn = await self._take_turn(app, manifest, observed, desired)
        observed, issues, applied = await self._write_owned(app, observed, desired, turn)
        deployment = observed.owned.get("Deployment")
        plan = plan_reload(
            app,
            template_of(deployment),
            observed.pods,
            observed.digests,
            self.now(),
            plain=observed.plain_digests,
            is_stuck=deployment is not None and is_stuck(deployment),
            is_good=is_good(app, observed),
            remembered=read_failure(observed.status),
        )
        refused = await self.writer.request_reload(app, plan, self.now())
        if refused is not None:
            plan = replace(plan, ask=())  # looked at again as for what stands in the way
        observed, why_not_kept = await self._keep_last_good(app, observed, plan)
        await collect(app, observed, self.cluster, self.cache)
        waits = turn.waits or self.upgrades.explain_stuck(key)
        status = build_status(app, observed, plan, issues, self.now(), waits=waits, refused=refused)
        if applied is not None:
            status["podTemplate"] = show_applied(applied)
        if app.copied:
            status["contents"] = describe_contents(app, observed, why_not_kept)
        unwritten = await self._report(app, manifest, status)
        no_class = find_class_issue(app, observed)
        (self.unready.discard if is_whole(app, observed) else self.unready.add)(key)
        return requeue_after(
            app,
            observed,
            plan,
            [*issues, *(each for each in (refused, unwritten, no_class) if each is not None)],
            silent_s=self.agents.pause_s(observed.pods),
            quiet_s=time.monotonic() - self.quiet_since[key],
            is_kept=is_newest_kept(app, observed),
            apps=len(self.quiet_since),
            unready=len(self.unready),
        )

    async def _take_turn(
        self, app: App, manifest: Manifest, observed: Observed, desired: Sequence[Manifest]
    ) -> tuple[Manifest, Turn]:
        """Return the WsgiApp as it is then, and whether an upgrade of the pods waits.

        That one begins is in the status before it is in the Deployment, so that an operator which is killed in between
        counts one too many for a moment, and never one too few.
        """
        applied = read_applied(observed.status)
        wanted, live = find_deployment(desired), observed.owned.get("Deployment")
        if (
            wanted is None
            or live is None
            or not is_upgrade(
                wanted,
                live,
                applied,
                is_known_spec=observed.status.get("observedGeneration") == app.generation,
                former_revision=former_revision(app, observed),
            )
        ):
            return manifest, Turn(applied)
        waits = self.upgrades.ask(AppKey(app.namespace, app.name), live, observed.missing)
        upgrade = describe_template(wanted)._replace(upgrading=True)
        if waits is not None or upgrade == applied:
            return manifest, Turn(applied, waits)
        status = {**observed.status, "podTemplate": show_applied(upgrade)}
        if refused := await self.writer.write_status(manifest, status, self.now()):
            return manifest, Turn(applied, refused)
        return self._read_again(manifest), Turn(upgrade)

    def _read_again(self, manifest: Manifest) -> Manifest:
        """Return a WsgiApp whose status was just written. Raises RequeueAfter where its spec is another meanwhile."""
        named = manifest["metadata"]
        seen = self.cache.get(KIND, named["namespace"], named["name"])
        same = ("uid", "generation")
        if seen is None or any(seen["metadata"][key] != named[key] for key in same):
            raise RequeueAfter("the WsgiApp has changed meanwhile", 0.1)
        return seen

    async def _write_owned(
        self, app: App, observed: Observed, desired: Sequence[Manifest], turn: Turn
    ) -> tuple[Observed, list[Issue], Applied | None]:
        """Apply the owned resources; return what is observed with them as they are now, what stood in
        the way, and what is to be remembered of the pod template."""
        deployment, applied = observed.owned.get("Deployment"), turn.applied
        try:
            owned, issues = await self.writer.apply_owned(
                app, desired, observed.owned, keep_template=turn.waits is not None
            )
            deployment, wanted = owned.get("Deployment"), find_deployment(desired)
            if turn.waits is None and wanted is not None and deployment is not None:
                applied = follow_applied(wanted, deployment, applied)
        finally:
            self.upgrades.see(AppKey(app.namespace, app.name), deployment, applied)
        return replace(observed, owned=owned), issues, applied

    async def _keep_last_good(
        self, app: App, observed: Observed, plan: ReloadPlan
    ) -> tuple[Observed, str]:
        """Copy the contents that every pod serves healthily; return why that could not be done, if so."""
        good = find_good(app, observed, plan)
        if good is None or is_kept(good, observed.copies):
            return observed, ""
        why_not = await keep(app, good, self.cluster, self.cache, self.metrics)
        copies = {
            content.name: self.cache.digest(app.namespace, copy_ref(app, content))
            or observed.copies[content.name]
            for content in app.copied
        }
        return replace(observed, copies=copies), why_not

    async def _report(self, app: App, manifest: Manifest, status: Manifest) -> Issue | None:
        """Write the status where it says something new, and Events for what began or ended; return why the
        status was refused, where it was."""
        before = manifest.get("status") or {}
        key, moment = AppKey(app.namespace, app.name), time.monotonic()
        self.metrics.record_app(app.namespace, app.name, app.image, status["conditions"])
        self.quiet_since.setdefault(key, moment)
        is_due = moment - self.last_status_write.setdefault(key, moment) >= BUSY_S
        if not differs(before, status, busy_counts=is_due):
            return None
        if refused := await self.writer.write_status(manifest, status, self.now()):
            return refused
        self.last_status_write[key] = moment
        if differs(before, status, busy_counts=False):
            self.quiet_since[key] = moment
        for event in choose_events(before, status):
            await self.writer.post_event(manifest, event, self.now())
            if event.reason in ENDS_OF_RELOAD:
                self.metrics.reloads.labels(result=ENDS_OF_RELOAD[event.reason]).inc()
        return None

    async def _report_invalid(self, manifest: Manifest, error: Invalid) -> None:
        before = manifest.get("status") or {}
        generation = manifest["metadata"]["generation"]
        status = build_invalid_status(before, generation, str(error), self.now())
        named, image = manifest["metadata"], str(manifest.get("spec", {}).get("image", ""))
        self.metrics.record_app(named["namespace"], named["name"], image, status["conditions"])
        if status != before:
            await self.writer.write_status(manifest, status, self.now())

    def _forget(self, key: AppKey) -> None:
        self.cache.refer(key, ())
        self.secrets.forget(key)
        self.last_status_write.pop(key, None)
        self.quiet_since.pop(key, None)
        self.unready.discard(key)
        self.metrics.drop_app(key.namespace, key.name)
        self.upgrades.see(key, None)


def is_changed(manifest: Manifest | None) -> bool:
    """Return whether a WsgiApp declares what its status does not know yet."""
    if manifest is None:
        return False
    status = manifest.get("status") or {}
    return bool(status.get("observedGeneration") != manifest["metadata"]["generation"])


def is_reloading(manifest: Manifest | None) -> bool:
    """Return whether a content is on its way to the pods of an app: each of its steps is the user's change."""
    status = (manifest or {}).get("status") or {}
    conditions = {each["type"]: each["reason"] for each in status.get("conditions", ())}
    return conditions.get("Reloaded") == "Reloading"


def choose_resources(app: App, platform: Platform, observed: Observed) -> list[Manifest]:
    """Return the owned resources that are wanted now.

    A Deployment that does not exist yet waits for the contents it mounts: its pods could only hang. A
    ServiceAccount that the spec has replaced stays while pods may be made that run as it.
    """
    desired = build_resources(
        app,
        platform,
        restart_digests(app, observed),
        shared_hosts=choose_shared_hosts(app, observed),
        taken_hosts=[route.host for route in observed.routes if route.taken_by is not None],
    )
    if observed.missing and "Deployment" not in observed.owned:
        desired = [manifest for manifest in desired if manifest["kind"] != "Deployment"]
    if has_service_account(app) and is_account_used(app, observed.owned):
        desired.insert(0, build_service_account(app))
    return desired


def is_account_used(app: App, owned: Mapping[str, Manifest]) -> bool:
    """Return whether pods may still be made that run as the app's own ServiceAccount.

    Those of an older template are made anew until its rollout is complete, and that may never be: without the
    account the API server would refuse them, one after the other.
    """
    account, deployment = owned.get("ServiceAccount"), owned.get("Deployment")
    if account is None or deployment is None or not is_owned(account, app):
        return False
    named = deployment["spec"]["template"]["spec"].get("serviceAccountName")
    return named == app.name or not count_pods(deployment, app.replicas).is_rolled_out


def find_deployment(manifests: Sequence[Manifest]) -> Manifest | None:
    return next((each for each in manifests if each["kind"] == "Deployment"), None)


def restart_digests(app: App, observed: Observed) -> Mapping[str, str]:
    """Return the digests whose change replaces the pods.

    For a content that is missing or not read the one in the live template stands: pods made now could not start.
    """
    deployment = observed.owned.get("Deployment")
    before = read_restart_digests(deployment) if deployment is not None else {}
    digests = {}
    seen = {**observed.env_digests, **observed.digests}
    for name, ref in app.restart_refs.items():
        digest = (seen[ref].digest if ref in seen else None) or before.get(name)
        if digest is not None:
            digests[name] = digest
    return digests


def former_revision(app: App, observed: Observed) -> str:
    """Return the revision of the same pods as an operator named it that gave Secrets plain digests."""
    plain = {
        name: observed.plain_digests.get(app.restart_refs[name], digest)
        for name, digest in restart_digests(app, observed).items()
    }
    return pod_revision(app, plain)


def choose_shared_hosts(app: App, observed: Observed) -> list[str]:
    """Return the hosts for which `app` needs a master and a minion.

    One that was shared stays so: back and forth, its requests could fall between two Ingresses.
    """
    return [
        route.host
        for route in observed.routes
        if route.is_shared or f"Ingress/{master_name(app, route.host)}" in observed.owned
    ]


def template_of(deployment: Manifest | None) -> str | None:
    """Return what names the newest pod template, or None without a Deployment."""
    if deployment is None:
        return None
    annotations: Mapping[str, str] = deployment["spec"]["template"]["metadata"].get(
        "annotations", {}
    )
    return annotations.get(TEMPLATE_ANNOTATION)


def differs(before: Manifest, after: Manifest, *, busy_counts: bool) -> bool:
    """Return whether a status says something new; how many workers are busy changes all the time."""
    if busy_counts:
        return before != after
    busy = before.get("workers", {}).get("busy")
    return before != {**after, "workers": {**after["workers"], "busy": busy}}
