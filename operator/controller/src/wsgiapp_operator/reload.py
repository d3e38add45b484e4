"""The next step of a rolling reload, from what is observed alone. Pure.

No phase is stored anywhere: pods say what they serve, their annotation says what they were asked for, and
the status keeps a failure beyond the life of its pod. So an operator that was killed in the middle goes on
where the pods stand.
"""

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from wsgiapp.digest import digest_json
from wsgiapp.types import App, Ref

from wsgiapp_operator.cache import Digest
from wsgiapp_operator.state import Pod, ReloadRequest

BOOTING = "booting"
# How failures begin that may have another cause than the content.
UNHEALTHY = "the new generation is not healthy"  # the server's words: docs/contracts.md §4
UNREADY = "the pod is not ready with the new content"
NO_ANSWER = "the pod's agent did not answer"
NO_FILES = "the pod's files did not show the new content"
# After a reload's deadline a failure can be seen for as long; later a pod's trouble is not the reload's.
BLAME_S = 60.0
TRY_AGAIN = (
    "if something else than the content is the reason, add an annotation to the ConfigMap or Secret, and the same "
    "content is tried again"
)


class ReloadState(enum.Enum):
    """Where a pod stands on the way to the wanted content."""

    STARTING = "starting"  # boots: what it serves is not known yet
    SILENT = "silent"  # is ready, but its agent does not answer
    OUTDATED = "outdated"  # serves other content
    RELOADING = "reloading"  # was asked to reload
    SETTLING = "settling"  # serves the wanted content, not yet ready for long enough
    CURRENT = "current"  # serves the wanted content
    FAILED = "failed"  # could not take it, or is not ready with it


BUSY = (ReloadState.RELOADING, ReloadState.SETTLING)


class Failure(NamedTuple):
    """A reload that failed: for which request, in which pod, and why."""

    request_id: str
    pod: str
    message: str


@dataclass(frozen=True, kw_only=True)
class ReloadPlan:
    """What is wanted, where each pod stands, and what pods are to be asked for now.

    `request` is None where nothing is reloadable or a content is missing.
    """

    request: ReloadRequest | None
    content_hash: str
    states: Mapping[str, ReloadState]
    failure: Failure | None = None
    ask: tuple[tuple[Pod, ReloadRequest], ...] = ()

    def count(self, *states: ReloadState) -> int:
        return sum(seen in states for seen in self.states.values())

    @property
    def is_running(self) -> bool:
        """Whether pods reload, or will now."""
        return self.count(*BUSY) > 0 or bool(self.ask)


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Decides where one pod stands; times in seconds."""

    request: ReloadRequest
    refs: Mapping[str, Ref]
    plain: Mapping[
        str, str
    ]  # of contents that are Secrets, for pods that do not know the app's key
    timeout_s: int
    min_ready_s: int
    now: datetime
    is_good: bool  # every pod has served the wanted content healthily: what comes later says nothing about it

    def request_for(self, pod: Pod) -> ReloadRequest:
        """Return the request without contents that the pod does not mount: an older template's."""
        plain = {} if pod.names_by_key else self.plain
        content = {
            name: plain.get(name, digest)
            for name, digest in self.request.content.items()
            if pod.contents.get(name) == self.refs[name]
        }
        return ReloadRequest(self.request.id, content)

    def state_of(self, pod: Pod) -> ReloadState:
        wanted = self.request_for(pod).content
        is_asked = pod.request is not None and pod.request.content == wanted
        is_this = is_asked and pod.request is not None and pod.request.id == self.request.id
        if is_this and (ended := self.judge_end(pod)) is not None:
            return ended
        agent = pod.agent
        if agent is None or agent.state == BOOTING:
            if is_asked and self.passed_s(pod) <= self.timeout_s:
                return ReloadState.RELOADING
            if is_this and self.is_to_blame(pod) and not self.is_good:
                return ReloadState.FAILED
            return ReloadState.SILENT if agent is None and pod.ready else ReloadState.STARTING
        result = agent.reload.result if agent.reload is not None else None
        if result != "running" and all(agent.content.get(n) == d for n, d in wanted.items()):
            return self.state_of_loaded(pod, is_this=is_this)
        if not is_asked or (is_this and pod.has_ended):
            return ReloadState.OUTDATED
        is_answered = agent.reload is not None and pod.request and agent.reload.id == pod.request.id
        if (is_answered and result == "failed") or self.passed_s(pod) > self.timeout_s:
            return ReloadState.FAILED if is_this else ReloadState.OUTDATED
        return ReloadState.RELOADING

    def state_of_loaded(self, pod: Pod, *, is_this: bool) -> ReloadState:
        """A pod that has just been reloaded has to stay ready; one that booted so has its rollout."""
        if not is_this or not self.is_to_blame(pod) or pod.agent is None:
            return ReloadState.CURRENT
        if pod.ready and not pod.agent.unready:
            is_steady = pod.agent.steady_s >= self.min_ready_s
            return ReloadState.CURRENT if is_steady else ReloadState.SETTLING
        # A pod that was not ready before may take its time; one that was has lost something.
        is_late = self.passed_s(pod) > self.timeout_s + self.min_ready_s
        has_failed = (pod.has_lost_readiness or is_late) and not self.is_good
        return ReloadState.FAILED if has_failed else ReloadState.SETTLING

    def judge_end(self, pod: Pod) -> ReloadState | None:
        """Return where the pod stands by the end of its app's container, or its own, since it was asked; None for
        nowhere in particular.

        Where something else than the content may be the reason, the pod is asked the same once more, and has its
        time anew. The same holds for a pod that was not ready: what it had before may have ended it.
        """
        if self.is_good or pod.requested_at is None or not self.is_to_blame(pod):
            return None
        if pod.has_failed:
            return ReloadState.FAILED
        if not pod.has_ended or pod.end is None or pod.before is None:
            return None
        is_sure = pod.before.is_second or (pod.end.by_itself and pod.before.ready)
        return ReloadState.FAILED if is_sure else ReloadState.OUTDATED

    def passed_s(self, pod: Pod) -> float:
        """Return the seconds since the pod was asked."""
        if pod.requested_at is None:
            return 0.0
        return (self.now - pod.requested_at) / timedelta(seconds=1)

    def is_to_blame(self, pod: Pod) -> bool:
        """Return whether a pod's trouble may still come from its reload."""
        return self.passed_s(pod) <= self.timeout_s + self.min_ready_s + BLAME_S

    def is_proof(self, pod: Pod, state: ReloadState) -> bool:
        """Return whether the pod shows that the content serves: ready with it, for long enough."""
        return state is ReloadState.CURRENT and pod.has_been_ready(self.min_ready_s)


def plan_reload(
    app: App,
    template: str | None,
    pods: tuple[Pod, ...],
    digests: Mapping[Ref, Digest],
    now: datetime,
    *,
    plain: Mapping[Ref, str] | None = None,
    is_stuck: bool = False,
    is_good: bool = False,
    remembered: Failure | None = None,
) -> ReloadPlan:
    """Return the next step.

    One pod goes first, alone. Once a ready pod has served the wanted content for
    `rollout.minReadySeconds`, however it came to it, up to `reload.maxConcurrent` go at a time; replicas
    that are not ready count against that. One failure stops the rest; `remembered` is the one that the
    status holds. Where the wanted content `is_good`, the last good one, a container that ends later does
    not speak against it. Pods of an older template are left to the rollout that replaces them, unless it is
    paused or stuck.
    """
    request, content_hash = make_request(app, digests)
    if request is None:
        return ReloadPlan(request=None, content_hash=content_hash, states={})
    judge = Judge(
        request=request,
        refs={content.name: content.ref for content in app.reloadable},
        plain={c.name: (plain or {})[c.ref] for c in app.reloadable if c.ref in (plain or {})},
        timeout_s=app.reload_limit_s,
        min_ready_s=app.rollout.min_ready_s,
        now=now,
        is_good=is_good,
    )
    takes_all = app.rollout.paused or is_stuck or template is None
    members = [p for p in pods if not p.terminating and (takes_all or p.template == template)]
    states = {pod.name: judge.state_of(pod) for pod in members}
    failure = find_failure(app, judge, pods, states, remembered)
    ask = choose_pods(app, judge, pods, members, states) if failure is None else ()
    return ReloadPlan(
        request=request, content_hash=content_hash, states=states, failure=failure, ask=ask
    )


def choose_pods(
    app: App,
    judge: Judge,
    pods: Iterable[Pod],
    members: Sequence[Pod],
    states: Mapping[str, ReloadState],
) -> tuple[tuple[Pod, ReloadRequest], ...]:
    """Return the pods that may be asked now, each with its request."""
    outdated = [pod for pod in members if states[pod.name] is ReloadState.OUTDATED]
    # The pod that was asked before, and perhaps failed, is the one to try the next content on.
    outdated.sort(key=lambda pod: (pod.request is None, pod.name))
    is_proven = any(judge.is_proof(pod, states[pod.name]) for pod in members)
    limit = app.reload.parallel(app.replicas) if is_proven else 1
    free = limit - sum(state in BUSY for state in states.values())
    # Asking a pod that is not ready takes nothing from what serves: it may be the fix that it waits for.
    unready = [pod for pod in outdated if not pod.ready][: max(free, 0)]
    spare = max(free - max(len(unready), count_down(app, pods, states)), 0)
    ready = [pod for pod in outdated if pod.ready][:spare]
    return tuple((pod, judge.request_for(pod)) for pod in (*unready, *ready))


def count_down(app: App, pods: Iterable[Pod], states: Mapping[str, ReloadState]) -> int:
    """Return how many replicas are not ready, but for those that reload or find no node."""
    alive = [pod for pod in pods if not pod.terminating]
    missing = app.replicas - sum(pod.ready for pod in alive)
    excused = [
        pod for pod in alive if not pod.ready and (states.get(pod.name) in BUSY or pod.has_no_node)
    ]
    return max(missing - len(excused), 0)


def find_failure(
    app: App,
    judge: Judge,
    pods: Iterable[Pod],
    states: Mapping[str, ReloadState],
    remembered: Failure | None,
) -> Failure | None:
    """Return the failure that stops the reload: one that is seen, or the one that is remembered.

    A remembered one is over when the content is another or was touched, when all pods have taken it,
    or when its pod has taken it late and is ready with it.
    """
    for pod in pods:
        is_lost = pod.has_failed and pod.request == judge.request_for(pod)
        if (is_lost and judge.judge_end(pod)) or states.get(pod.name) is ReloadState.FAILED:
            return Failure(judge.request.id, pod.name, explain_failure(pod, app))
    if remembered is None or remembered.request_id != judge.request.id:
        return None
    is_done = states and all(state is ReloadState.CURRENT for state in states.values())
    late = any(p.name == remembered.pod and p.ready and not p.has_crashed for p in pods)
    if is_done or (late and states.get(remembered.pod) is ReloadState.CURRENT):
        return None
    return remembered


def make_request(app: App, digests: Mapping[Ref, Digest]) -> tuple[ReloadRequest | None, str]:
    """Return the request for the wanted content, and the hash that names this content.

    The id also depends on the objects' versions: after a failure, a touch of the ConfigMap tries the
    same content again.
    """
    content, versions = {}, {}
    for item in app.reloadable:
        if item.ref not in digests:
            continue  # a Secret that is not read
        seen = digests[item.ref]
        if seen.digest is None:
            return None, ""
        content[item.name] = seen.digest
        versions[item.name] = seen.version
    if not content:
        return None, ""
    return ReloadRequest(digest_json([content, versions]), content), digest_json(content)


def name_limit(app: App) -> str:
    """Return the field that a reload has run into, and the seconds that it gives."""
    if app.reload_limit_s == app.reload.timeout_s:
        return f"spec.reload.timeoutSeconds ({app.reload.timeout_s})"
    return (
        f"{app.reload_limit_s} s, which follow from spec.healthCheck.startupTimeoutSeconds "
        f"({app.health_check.startup_timeout_s})"
    )


def explain_failure(pod: Pod, app: App) -> str:
    """Return why a pod's reload failed: the traceback's last line, or what went wrong afterwards."""
    limit = name_limit(app)
    if pod.has_failed:
        return f"the pod ended: {pod.issue.message if pod.issue else 'no reason given'}"
    if pod.has_ended:
        why = f": {pod.issue.message}" if pod.issue else ""
        if pod.has_crashed:
            return f"the app's container ended during or right after the reload{why}"
        return f"the app's container was ended twice during or right after the reload{why}; {TRY_AGAIN}"
    reload = pod.agent.reload if pod.agent is not None else None
    if reload is None:
        return f"{NO_ANSWER} within {limit}"
    if reload.result == "failed":
        return reload.message or "the new generation did not boot"
    if reload.result == "running":
        return f"the new generation was not ready within {limit}"
    if reload.result == "succeeded":
        why = f": {pod.agent.unready}" if pod.agent and pod.agent.unready else ""
        return f"{UNREADY}{why}"
    waits_for = f" ({reload.message})" if reload.message else ""
    return f"{NO_FILES} within {limit}{waits_for}"
