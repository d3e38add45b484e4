"""The next step of a rolling reload, from what is observed alone.

No phase is stored anywhere: pods say what they serve, their annotation says what they were asked for.
So an operator that was killed in the middle goes on where the pods stand.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from wsgiapp.digest import digest_json
from wsgiapp.types import App, Ref

from wsgiapp_operator.cache import Digest
from wsgiapp_operator.state import Pod, ReloadRequest

BOOTING = "booting"


class ReloadState(enum.Enum):
    """Where a pod stands on the way to the wanted content."""

    STARTING = "starting"  # boots: what it serves is not known yet
    SILENT = "silent"  # is ready, but its agent does not answer
    OUTDATED = "outdated"  # serves other content
    RELOADING = "reloading"  # was asked to reload
    CURRENT = "current"  # serves the wanted content
    FAILED = "failed"  # could not take it, and serves on with what it had


@dataclass(frozen=True, kw_only=True)
class ReloadPlan:
    """What is wanted, where each pod stands, and which pods are to be asked now.

    `request` is None where nothing is reloadable or a content is missing.
    """

    request: ReloadRequest | None
    content_hash: str
    states: Mapping[str, ReloadState]
    failure: tuple[str, str] | None = None  # pod, why
    ask: tuple[Pod, ...] = ()

    def count(self, state: ReloadState) -> int:
        return sum(seen is state for seen in self.states.values())

    @property
    def is_running(self) -> bool:
        """Whether pods reload, or will now."""
        return self.count(ReloadState.RELOADING) > 0 or bool(self.ask)


def plan_reload(
    app: App,
    template: str | None,
    pods: tuple[Pod, ...],
    digests: Mapping[Ref, Digest],
    now: datetime,
) -> ReloadPlan:
    """Return the next step; pure.

    One pod goes first, alone. Once a ready pod serves the wanted content, however it came to it, up to
    `reload.maxUnavailable` go at a time. One failure stops the rest. Pods of an older template are left
    to the rollout that replaces them, unless it is paused.
    """
    request, content_hash = make_request(app, digests)
    if request is None:
        return ReloadPlan(request=None, content_hash=content_hash, states={})
    taking_part = [
        pod
        for pod in pods
        if not pod.terminating
        and (app.rollout.paused or template is None or pod.template == template)
    ]
    states = {pod.name: pod_state(pod, request, app.reload.timeout_s, now) for pod in taking_part}
    failed = [pod for pod in taking_part if states[pod.name] is ReloadState.FAILED]
    outdated = [pod for pod in taking_part if states[pod.name] is ReloadState.OUTDATED]
    # The pod that was asked before, and perhaps failed, is the one to try the next content on.
    outdated.sort(key=lambda pod: (pod.request is None, pod.name))
    is_proven = any(pod.ready and states[pod.name] is ReloadState.CURRENT for pod in taking_part)
    limit = app.reload.parallel(app.replicas) if is_proven else 1
    free = limit - sum(state is ReloadState.RELOADING for state in states.values())
    return ReloadPlan(
        request=request,
        content_hash=content_hash,
        states=states,
        failure=(failed[0].name, explain_failure(failed[0], app)) if failed else None,
        ask=tuple(outdated[: max(free, 0)]) if not failed else (),
    )


def make_request(app: App, digests: Mapping[Ref, Digest]) -> tuple[ReloadRequest | None, str]:
    """Return the request for the wanted content, and the hash that names this content.

    The id also depends on the objects' versions: after a failure, a touch of the ConfigMap tries the
    same content again.
    """
    content, versions = {}, {}
    for item in app.reloadable:
        seen = digests[item.ref]
        if seen.digest is None:
            return None, ""
        content[item.name] = seen.digest
        versions[item.name] = seen.version
    if not content:
        return None, ""
    return ReloadRequest(digest_json([content, versions]), content), digest_json(content)


def pod_state(pod: Pod, request: ReloadRequest, timeout_s: int, now: datetime) -> ReloadState:
    agent = pod.agent
    if agent is None:
        return ReloadState.SILENT if pod.ready else ReloadState.STARTING
    if agent.state == BOOTING:
        return ReloadState.STARTING
    result = agent.reload.result if agent.reload is not None else None
    is_loaded = all(agent.content.get(name) == digest for name, digest in request.content.items())
    if is_loaded and result != "running":
        return ReloadState.CURRENT
    if pod.request is None or pod.request.content != request.content:
        return ReloadState.OUTDATED
    is_answered = agent.reload is not None and agent.reload.id == pod.request.id
    if is_answered and result == "failed":
        return ReloadState.FAILED if pod.request.id == request.id else ReloadState.OUTDATED
    if is_overdue(pod, timeout_s, now):
        return ReloadState.FAILED if pod.request.id == request.id else ReloadState.OUTDATED
    return ReloadState.RELOADING


def is_overdue(pod: Pod, timeout_s: int, now: datetime) -> bool:
    return pod.requested_at is not None and now - pod.requested_at > timedelta(seconds=timeout_s)


def explain_failure(pod: Pod, app: App) -> str:
    """Return why a pod's reload failed: the traceback's last line, or what it still waits for."""
    reload = pod.agent.reload if pod.agent is not None else None
    if reload is not None and reload.result == "failed":
        return reload.message or "the new generation did not boot"
    if reload is not None and reload.result == "running":
        return f"the new generation was not ready within spec.reload.timeoutSeconds ({app.reload.timeout_s})"
    waits_for = f" ({reload.message})" if reload is not None and reload.message else ""
    return (
        "the pod's files did not show the new content within "
        f"spec.reload.timeoutSeconds ({app.reload.timeout_s}){waits_for}"
    )
