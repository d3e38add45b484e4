"""From what is observed to the WsgiApp's status: numbers, and conditions that a person can act on.

Pure. Ready says whether exactly what is declared serves, with all its replicas; its reason is the
first thing that stands in the way.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from wsgiapp.names import AGENT_CONTAINER, AGENT_PORT
from wsgiapp.resources.owned import selector
from wsgiapp.types import App, Ingress, Manifest, Ref

from wsgiapp_operator.reload import (
    NO_ANSWER,
    NO_FILES,
    UNHEALTHY,
    UNREADY,
    Failure,
    ReloadPlan,
    ReloadState,
)
from wsgiapp_operator.routes import HostRoute
from wsgiapp_operator.state import NO_CLASS, UPGRADE_FAILED, Issue, Observed, Pod
from wsgiapp_operator.tls import MISSING

LONGEST_MESSAGE = 1024
OVER_QUOTA = "exceeded quota:"  # the API server's words for a pod that a quota has no room for
LONGEST_CAUSE = 200  # of a failed reload, where another condition has the whole
NOT_FOUND = " answered 404"  # of a health path, in the agent's words
LONGEST_REVISION = 18  # digits that an int64 has room for; the annotation is the user's to edit
REVISION_ANNOTATION = "deployment.kubernetes.io/revision"
# Reasons that do not pass by themselves, and are no matter of the nodes or of other objects.
STALLED = frozenset(
    {
        "InvalidSpec",
        "NameConflict",
        "ApplyRefused",
        "ReloadFailed",
        "ReloadRefused",
        "ProgressDeadlineExceeded",
        "RouteTaken",
        "TLSDiffers",
    }
)


@dataclass(frozen=True, kw_only=True)
class Condition:
    type: str
    status: str
    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The Deployment's own numbers; all zero where it has not looked at the newest spec yet."""

    wanted: int
    existing: int
    updated: int
    ready: int
    available: int
    is_observed: bool

    @property
    def is_rolled_out(self) -> bool:
        return self.is_observed and self.existing == self.updated == self.available == self.wanted


def build_status(
    app: App,
    observed: Observed,
    plan: ReloadPlan,
    issues: Sequence[Issue],
    now: datetime,
    *,
    waits: Issue | None = None,
    refused: Issue | None = None,
) -> Manifest:
    """Return the status of `app`; `issues` are what stood in the way of writing the owned resources,
    `waits` says why its pods do not have the newest version of operator and cluster yet, or are not ready with it, and
    `refused` why pods could not be asked to reload."""
    deployment = observed.owned.get("Deployment", {})
    counts = count_pods(deployment, app.replicas)
    pods = [pod for pod in observed.pods if not pod.terminating]
    issue = find_issue(app, deployment, pods, counts)
    conditions = [
        available_condition(app, deployment, counts, issue),
        progressing_condition(app, deployment, counts),
        reloaded_condition(app, observed, plan, refused),
    ]
    ready = ready_condition(app, observed.missing, issues, issue, counts, conditions)
    if plan.failure is not None and ready.reason == "ReloadFailed":
        ready = replace(ready, message=summarize(plan.failure))
    elif issue is not None and issue.message not in ready.message:
        conditions[1] = say_why(conditions[1], issue)
    conditions.insert(0, ready)
    if app.ingress is not None:
        conditions.append(routed_condition(app, app.ingress, observed))
        if conditions[0].status == "True":
            conditions[0] = if_routed(conditions[0], conditions[-1])
    status: Manifest = {
        "observedGeneration": app.generation,
        "replicas": counts.existing,
        "readyReplicas": counts.ready,
        "updatedReplicas": counts.updated,
        "availableReplicas": counts.available,
        "selector": ",".join(f"{name}={value}" for name, value in selector(app).items()),
        "url": find_url(app, observed.routes),
        "workers": count_workers(pods),
    }
    if (revision := read_revision(deployment)) is not None:
        status["revision"] = revision
    if plan.request is not None:
        status["reload"] = describe_reload(plan)
    stalled = stalled_condition(conditions)
    if issue is not None and stalled.reason == "ProgressDeadlineExceeded":
        stalled = say_why(stalled, issue)
    conditions.append(stalled)
    if waits is not None:
        behind = Condition(
            type="UpToDate", status="False", reason=waits.reason, message=waits.message
        )
        if issue is not None and waits.reason == UPGRADE_FAILED:
            behind = say_why(behind, issue)
        conditions.append(behind)
    if (unread := observed.secrets_issue) is not None:
        conditions.append(
            Condition(
                type="SecretsRead", status="False", reason=unread.reason, message=unread.message
            )
        )
    status["conditions"] = date_conditions(conditions, observed.status, app.generation, now)
    return status


def build_invalid_status(
    previous: Manifest, generation: int, error: str, now: datetime
) -> Manifest:
    """Return the status of a WsgiApp that cannot be read: what runs, runs on as it is."""
    message = f"{error}. What runs stays as it is until the spec is fixed."
    invalid = Condition(type="Ready", status="False", reason="InvalidSpec", message=message)
    kept = [
        Condition(**{key: c[key] for key in ("type", "status", "reason", "message")})
        for c in previous.get("conditions", ())
        if c["type"] not in ("Ready", "Stalled")
    ]
    conditions = [invalid, *kept, stalled_condition([invalid])]
    return {
        **previous,
        "observedGeneration": generation,
        "conditions": date_conditions(conditions, previous, generation, now),
    }


# -- numbers ----------------------------------------------------------------------------------


def count_pods(deployment: Manifest, wanted: int) -> Counts:
    status = deployment.get("status", {})
    generation = deployment.get("metadata", {}).get("generation", 0)
    return Counts(
        wanted=wanted,
        existing=status.get("replicas", 0),
        updated=status.get("updatedReplicas", 0),
        ready=status.get("readyReplicas", 0),
        available=status.get("availableReplicas", 0),
        is_observed=bool(deployment) and status.get("observedGeneration", 0) >= generation,
    )


def read_revision(deployment: Manifest) -> int | None:
    """Return the revision that the Deployment controller has given to the newest template."""
    annotations = deployment.get("metadata", {}).get("annotations") or {}
    text = annotations.get(REVISION_ANNOTATION, "")
    is_number = text.isascii() and text.isdigit() and len(text) <= LONGEST_REVISION
    return int(text) if is_number else None


def count_workers(pods: Iterable[Pod]) -> dict[str, int]:
    agents = [pod.agent for pod in pods if pod.agent is not None]
    return {
        "ready": sum(agent.workers_ready for agent in agents),
        "desired": sum(agent.workers_desired for agent in agents),
        "busy": sum(agent.workers_busy for agent in agents),
    }


def describe_reload(plan: ReloadPlan) -> dict[str, Any]:
    reload: dict[str, Any] = {
        "hash": plan.content_hash,
        "updatedPods": plan.count(ReloadState.CURRENT, ReloadState.SETTLING),
    }
    if plan.failure is not None:
        reload["failedRequest"], reload["failedPod"], reload["message"] = plan.failure
    return reload


def read_failure(status: Manifest) -> Failure | None:
    """Return the failed reload that a status holds, if one does."""
    reload = status.get("reload", {})
    try:
        return Failure(reload["failedRequest"], reload["failedPod"], reload["message"])
    except KeyError:
        return None


# -- the way in -------------------------------------------------------------------------------


def find_url(app: App, routes: Sequence[HostRoute]) -> str:
    """Return where the app itself answers: by its first host that is not another's, or by its Service."""
    for route in routes:
        if route.taken_by is None and app.ingress is not None:
            decider = route.tls_holder.claim if route.tls_holder is not None else None
            secret = decider.tls_secret if decider is not None else app.ingress.tls_secret
            return f"{'https' if secret else 'http'}://{route.host}{app.ingress.path}"
    return app.service_url


def routed_condition(app: App, ingress: Ingress, observed: Observed) -> Condition:
    """Return whether each host leads to this app; the first one that does not is the reason."""
    issue = next(
        (found for route in observed.routes if (found := find_route_issue(ingress, route))), None
    )
    if issue is None and ingress.tls_secret is not None:
        issue = explain_tls(app, ingress.tls_secret, observed.tls_fault)
    if issue is not None:
        return Condition(type="Routed", status="False", reason=issue.reason, message=issue.message)
    if (no_class := find_class_issue(app, observed)) is not None:
        return Condition(
            type="Routed", status="Unknown", reason=no_class.reason, message=no_class.message
        )
    hosts = ", ".join(route.host for route in observed.routes)
    message = f"the ingress routes {ingress.path} of {hosts} to this app"
    return Condition(type="Routed", status="True", reason="HostsRouted", message=message)


def find_route_issue(ingress: Ingress, route: HostRoute) -> Issue | None:
    if route.taken_by is not None:
        what = f"{route.host}{ingress.path}"
        return Issue(
            "RouteTaken",
            f"{what} is served by {route.taken_by}, which had it first; use another host or path in "
            "spec.ingress, or remove it there. Only WsgiApps of one namespace can share a host, by path",
        )
    decider = route.tls_holder
    if decider is not None and decider.claim.tls_secret != ingress.tls_secret:
        has = f"the secret {decider.claim.tls_secret}" if decider.claim.tls_secret else "no TLS"
        return Issue(
            "TLSDiffers",
            f"{route.host} is shared with {decider.owner}, which had it first and decides about TLS: it has {has}; set the "
            "same spec.ingress.tls in both, or use another host",
        )
    return None


def find_class_issue(app: App, observed: Observed) -> Issue | None:
    """Return what is to be said where the IngressClass is not there.

    Some controllers can be set not to look for it, so that the app may be routed all the same.
    """
    if app.ingress is None or not observed.is_class_missing:
        return None
    name = app.ingress.class_name
    return Issue(
        NO_CLASS,
        f"IngressClass {name}, named by spec.ingress.className, does not exist, and without it ingress controllers pass "
        "over this app, as a rule; install the controller that it belongs to, or name one of: kubectl get ingressclasses",
    )


def explain_tls(app: App, secret: str, fault: str | None) -> Issue | None:
    if fault is None:
        return None
    remedy = (
        f"kubectl create secret tls {secret} --cert=FILE --key=FILE --namespace={app.namespace}"
    )
    reason = "TLSSecretMissing" if fault == MISSING else "TLSSecretInvalid"
    return Issue(
        reason,
        f"Secret {secret}, named by spec.ingress.tls, {fault}, so HTTPS is refused; create it with: {remedy}",
    )


def if_routed(ready: Condition, routed: Condition) -> Condition:
    """Return Ready as it is where the way in is as declared."""
    if routed.status != "False":
        return ready
    return replace(ready, status="False", reason=routed.reason, message=routed.message)


# -- what stands in the way -------------------------------------------------------------------


def find_issue(app: App, deployment: Manifest, pods: Sequence[Pod], counts: Counts) -> Issue | None:
    """Return why pods do not serve, where fewer serve than are wanted."""
    if counts.is_rolled_out:
        return None
    for condition in deployment.get("status", {}).get("conditions", ()):
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return explain_refused_pods(condition["message"], counts)
    unready = [pod for pod in pods if not pod.ready]
    for pod in unready:
        if pod.issue is not None:
            return Issue(pod.issue.reason, f"pod {pod.name}: {pod.issue.message}")
    for pod in unready:
        if pod.agent is not None and pod.agent.unready:
            remedy = "; check spec.healthCheck.path" if NOT_FOUND in pod.agent.unready else ""
            return Issue("NotReady", f"pod {pod.name}: {pod.agent.unready}{remedy}")
    return None


def explain_refused_pods(refusal: str, counts: Counts) -> Issue:
    """Return why pods are not made; for a full quota, with what makes room in it."""
    message = f"the API server refuses the pods: {refusal}"
    if OVER_QUOTA in refusal:
        is_surge = counts.existing >= counts.wanted  # beside the pods that it is to replace
        within = "replace pods within it (spec.rollout.maxSurge: 0, maxUnavailable: 1)"
        message += f"; raise the quota, or {within if is_surge else 'lower spec.replicas'}"
    return Issue("FailedCreate", message)


def available_condition(
    app: App, deployment: Manifest, counts: Counts, issue: Issue | None
) -> Condition:
    if app.replicas == 0:
        status, reason, message = (
            "False",
            "ScaledToZero",
            "spec.replicas is 0; raise it to start the app",
        )
    elif condition_status(deployment, "Available") == "True":
        status, reason = "True", "MinimumReplicasAvailable"
        message = f"{counts.available} of {app.replicas} pods serve"
    else:
        status, reason = "False", issue.reason if issue else "MinimumReplicasUnavailable"
        message = f"{counts.available} of {app.replicas} pods serve"
    return Condition(type="Available", status=status, reason=reason, message=message)


def progressing_condition(app: App, deployment: Manifest, counts: Counts) -> Condition:
    if counts.is_rolled_out:
        status, reason, message = (
            "True",
            "NewReplicaSetAvailable",
            "all pods run the newest template",
        )
    elif app.rollout.paused:
        status, reason = "Unknown", "DeploymentPaused"
        message = f"{counts.updated} of {app.replicas} pods have the newest template; spec.rollout.paused is true"
    elif is_stuck(deployment):
        status, reason = "False", "ProgressDeadlineExceeded"
        message = f"no progress for spec.rollout.progressDeadlineSeconds ({app.rollout.progress_deadline_s})"
    else:
        status, reason = "True", "RollingOut"
        message = (
            f"{counts.updated} of {app.replicas} pods have the newest template, "
            f"{counts.available} of {counts.existing} pods serve"
        )
    return Condition(type="Progressing", status=status, reason=reason, message=message)


def say_why(condition: Condition, issue: Issue) -> Condition:
    """Return a condition with what stands in the way; others leave it to Ready to say that."""
    if issue.message in condition.message:
        return condition
    return replace(condition, message=f"{condition.message}; {issue.message}")


def reloaded_condition(
    app: App, observed: Observed, plan: ReloadPlan, refused: Issue | None
) -> Condition:
    total, current = len(plan.states), plan.count(ReloadState.CURRENT)
    status, reason = "Unknown", "Starting"
    message = f"{current} of {max(total, app.replicas)} pods report the newest content"
    if observed.missing:
        reason, message = explain_missing(app, observed.missing)
    elif plan.request is None:
        status, reason = "True", "NothingToReload"
        message = "the app has no source and no config with onChange: Reload"
        if observed.secrets_issue is not None:
            message = f"the operator reads none of the contents: {observed.secrets_issue.message}"
    elif plan.failure is not None:
        status, reason = "False", "ReloadFailed"
        message = (
            f"reload failed on pod {plan.failure.pod}{describe_failed_pod(observed, plan.failure)}: "
            f"{plan.failure.message}. {current} of {total} pods have the new content; "
            f"{find_remedy(app, plan.failure)}; the next change is tried on this pod first"
            f"{explain_immutable(app, observed)}"
        )
    elif refused is not None:
        status, (reason, message) = "False", refused
    elif plan.is_running or plan.count(ReloadState.OUTDATED):
        reason, message = "Reloading", f"{current} of {total} pods serve the new content"
    elif plan.count(ReloadState.SILENT):
        # A slow answer says nothing about content that was seen to be loaded.
        if known := find_loaded(observed.status, plan.content_hash):
            return known
        reason = "AgentsSilent"
        message = (
            f"the agents of {plan.count(ReloadState.SILENT)} of {total} pods do not answer the operator; "
            f"let it reach port {AGENT_PORT} of the pods (NetworkPolicy)"
        )
    elif total and current == total:
        status, reason = "True", "ContentLoaded"
        message = f"{current} of {total} pods have loaded the newest content"
    return Condition(type="Reloaded", status=status, reason=reason, message=message)


def find_remedy(app: App, failure: Failure) -> str:
    """Return what to change: the content, as a rule, but not where something else is the matter or may be."""
    contents = name_contents(app)
    if failure.message.startswith((UNHEALTHY, UNREADY)):
        return f"fix {contents}, or spec.healthCheck.path"
    if failure.message.startswith((NO_ANSWER, NO_FILES)):
        return f"see kubectl logs {failure.pod} -c {AGENT_CONTAINER}, and annotate {contents} to try again"
    return f"fix {contents}"


def summarize(failure: Failure) -> str:
    """Return a failed reload in short; the condition Reloaded has the whole and the remedy."""
    cause = failure.message
    if len(cause) > LONGEST_CAUSE:
        cause = f"{cause[:LONGEST_CAUSE]}…"
    return f"reload failed on pod {failure.pod}: {cause}; see the condition Reloaded"


def describe_failed_pod(observed: Observed, failure: Failure) -> str:
    """Return what is the case with the pod: ` (…)`."""
    pod = next((pod for pod in observed.pods if pod.name == failure.pod), None)
    if pod is None or pod.terminating:
        return " (which is gone)"
    return " (which keeps serving the previous content)" if pod.ready else " (which is not ready)"


def find_loaded(previous: Manifest, content_hash: str) -> Condition | None:
    """Return the condition that said that this very content is loaded, if one did."""
    if previous.get("reload", {}).get("hash") != content_hash:
        return None
    for condition in previous.get("conditions", ()):
        if condition["type"] == "Reloaded" and condition["reason"] == "ContentLoaded":
            return Condition(
                **{key: condition[key] for key in ("type", "status", "reason", "message")}
            )
    return None


def ready_condition(
    app: App,
    missing: Sequence[Ref],
    issues: Sequence[Issue],
    issue: Issue | None,
    counts: Counts,
    others: Sequence[Condition],
) -> Condition:
    available, progressing, reloaded = others
    if issues:
        reason, message = issues[0]
    elif missing:
        reason, message = explain_missing(app, missing)
    elif reloaded.status == "False":
        reason, message = reloaded.reason, reloaded.message
    elif issue is not None:
        reason, message = issue
    elif not counts.is_rolled_out:
        reason, message = progressing.reason, progressing.message
    elif app.replicas == 0:
        return Condition(
            type="Ready", status="True", reason=available.reason, message=available.message
        )
    elif reloaded.status != "True":
        reason, message = reloaded.reason, reloaded.message
    else:
        message = f"{counts.available} of {app.replicas} pods are up to date and ready"
        return Condition(type="Ready", status="True", reason="Serving", message=message)
    return Condition(type="Ready", status="False", reason=reason, message=message)


def stalled_condition(conditions: Iterable[Condition]) -> Condition:
    """Return whether waiting is in vain until something is changed, as GitOps tools ask.

    https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md
    """
    for condition in conditions:
        if condition.status == "False" and condition.reason in STALLED:
            return replace(condition, type="Stalled", status="True")
    message = "no rollout or reload has been given up"
    return Condition(type="Stalled", status="False", reason="NotStalled", message=message)


def explain_missing(app: App, missing: Sequence[Ref]) -> tuple[str, str]:
    """Return reason and message for the ConfigMaps and Secrets that do not exist; the reason is the first one's."""
    names = ", and ".join(
        f"{ref.kind} {ref.name}, named by {name_fields(app, ref)}" for ref in missing
    )
    verb, remedy = ("is", "create it") if len(missing) == 1 else ("are", "create them")
    message = f"{names}, {verb} not in namespace {app.namespace}; {remedy}"
    return f"{missing[0].kind}Missing", message


def name_fields(app: App, ref: Ref) -> str:
    """Return the fields that name a ConfigMap or Secret."""
    return " and ".join(
        "spec.source" if content is app.source else f"spec.config '{content.name}'"
        for content in app.contents
        if content.ref == ref
    )


def explain_immutable(app: App, observed: Observed) -> str:
    """Return the remedy where a content cannot change under the pods that mount it."""
    names = dict.fromkeys(
        f"{content.ref.kind} {content.ref.name}"
        for content in app.reloadable
        if content.ref in observed.digests and observed.digests[content.ref].immutable
    )
    if not names:
        return ""
    return (
        f". {' and '.join(names)} is immutable, and pods keep what they mounted: put the new content into an "
        "object of another name, and name that one in the spec"
    )


def name_contents(app: App) -> str:
    return " or ".join(dict.fromkeys(f"{c.ref.kind} {c.ref.name}" for c in app.reloadable))


def is_stuck(deployment: Manifest) -> bool:
    """Return whether the rollout has made no progress until its deadline."""
    return condition_status(deployment, "Progressing") == "False"


def condition_status(deployment: Manifest, kind: str) -> str | None:
    for condition in deployment.get("status", {}).get("conditions", ()):
        if condition["type"] == kind:
            return str(condition["status"])
    return None


def date_conditions(
    conditions: Sequence[Condition], previous: Manifest, generation: int, now: datetime
) -> list[Manifest]:
    """Return conditions as objects; the time changes only when the status does."""
    before = {condition["type"]: condition for condition in previous.get("conditions", ())}
    dated = []
    for condition in conditions:
        known = before.get(condition.type, {})
        is_same = known.get("status") == condition.status
        dated.append({
            "type": condition.type,
            "status": condition.status,
            "observedGeneration": generation,
            "lastTransitionTime": known["lastTransitionTime"] if is_same else show_time(now),
            "reason": condition.reason,
            "message": condition.message[:LONGEST_MESSAGE],
        })  # fmt: skip
    return dated


def show_time(moment: datetime) -> str:
    """Return RFC 3339 in UTC, to the second, as the API server writes it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
