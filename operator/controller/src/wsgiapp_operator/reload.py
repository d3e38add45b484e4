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
from wsgiapp_operator.state import Pod, Wish

BOOTING = "booting"


class Place(enum.Enum):
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

    `wish` is None where nothing is reloadable or a content is missing.
    """

    wish: Wish | None
    content_hash: str
    places: Mapping[str, Place]
    failure: tuple[str, str] | None = None  # pod, why
    ask: tuple[Pod, ...] = ()

    def count(self, place: Place) -> int:
        return sum(seen is place for seen in self.places.values())

    @property
    def is_running(self) -> bool:
        """Whether pods reload, or will now."""
        return self.count(Place.RELOADING) > 0 or bool(self.ask)


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
    wish, content_hash = make_wish(app, digests)
    if wish is None:
        return ReloadPlan(wish=None, content_hash=content_hash, places={})
    taking_part = [
        pod
        for pod in pods
        if not pod.terminating
        and (app.rollout.paused or template is None or pod.template == template)
    ]
    places = {pod.name: place_pod(pod, wish, app.reload.timeout_s, now) for pod in taking_part}
    failed = [pod for pod in taking_part if places[pod.name] is Place.FAILED]
    outdated = [pod for pod in taking_part if places[pod.name] is Place.OUTDATED]
    # The pod that was asked before, and perhaps failed, is the one to try the next content on.
    outdated.sort(key=lambda pod: (pod.wish is None, pod.name))
    is_proven = any(pod.ready and places[pod.name] is Place.CURRENT for pod in taking_part)
    limit = app.reload.parallel(app.replicas) if is_proven else 1
    free = limit - sum(place is Place.RELOADING for place in places.values())
    return ReloadPlan(
        wish=wish,
        content_hash=content_hash,
        places=places,
        failure=(failed[0].name, explain_failure(failed[0], app)) if failed else None,
        ask=tuple(outdated[: max(free, 0)]) if not failed else (),
    )


def make_wish(app: App, digests: Mapping[Ref, Digest]) -> tuple[Wish | None, str]:
    """Return the wish for the wanted content, and the hash that names this content.

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
    return Wish(digest_json([content, versions]), content), digest_json(content)


def place_pod(pod: Pod, wish: Wish, timeout_s: int, now: datetime) -> Place:
    agent = pod.agent
    if agent is None:
        return Place.SILENT if pod.ready else Place.STARTING
    if agent.state == BOOTING:
        return Place.STARTING
    result = agent.reload.result if agent.reload is not None else None
    is_loaded = all(agent.content.get(name) == digest for name, digest in wish.content.items())
    if is_loaded and result != "running":
        return Place.CURRENT
    if pod.wish is None or pod.wish.content != wish.content:
        return Place.OUTDATED
    is_answered = agent.reload is not None and agent.reload.id == pod.wish.id
    if is_answered and result == "failed":
        return Place.FAILED if pod.wish.id == wish.id else Place.OUTDATED
    if is_overdue(pod, timeout_s, now):
        return Place.FAILED if pod.wish.id == wish.id else Place.OUTDATED
    return Place.RELOADING


def is_overdue(pod: Pod, timeout_s: int, now: datetime) -> bool:
    return pod.wish_started is not None and now - pod.wish_started > timedelta(seconds=timeout_s)


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
