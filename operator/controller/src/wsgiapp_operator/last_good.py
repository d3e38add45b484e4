"""The last good contents: which are worth keeping, and the copies that pods boot (docs/decisions/0017).

A content is good when every pod of the app that has a node serves it and has been ready with it for long enough. Its copy
names all contents that were good together and the revision of the pods, so that a pod boots only what fits.
What is decided here is pure; `keep` writes.
"""

import json
import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from wsgiapp.digest import digest_object
from wsgiapp.names import LAST_GOOD_KEY, REVISION_ANNOTATION, SOURCE, last_good_name
from wsgiapp.resources.owned import build_owned
from wsgiapp.types import App, Content, Manifest, Ref

from wsgiapp_operator.cache import AppKey, Cache, Digest
from wsgiapp_operator.client import ApiError, Cluster
from wsgiapp_operator.metrics import Metrics
from wsgiapp_operator.ownership import explain_refusal, find_obstacle, is_owned
from wsgiapp_operator.pods import find_copies
from wsgiapp_operator.reload import BUSY, ReloadPlan
from wsgiapp_operator.state import Observed, Pod
from wsgiapp_operator.status import LONGEST_MESSAGE, count_pods

logger = logging.getLogger(__name__)

SHOWN_DIGITS = 12  # of a digest, as the server's log shows it


class LastGood(NamedTuple):
    """Contents that were good together: digests by name, and the revision of the pods that served them."""

    revision: str
    contents: Mapping[str, str]

    @property
    def mark(self) -> str:
        """What a copy says of itself (docs/contracts.md §5)."""
        mark = {"contents": dict(self.contents), "revision": self.revision}
        return json.dumps(mark, sort_keys=True)


def revision_of(deployment: Manifest | None) -> str | None:
    """Return the revision of the newest template's pods."""
    if deployment is None:
        return None
    annotations: Mapping[str, str] = deployment["spec"]["template"]["metadata"].get(
        "annotations", {}
    )
    return annotations.get(REVISION_ANNOTATION)


def find_good(app: App, observed: Observed, plan: ReloadPlan) -> LastGood | None:
    """Return the contents that every pod serves healthily; None while that is not so.

    Pods that no node has room for do not count: an app that is scaled beyond its cluster may have some for days.
    """
    deployment = observed.owned.get("Deployment")
    if deployment is None or not app.copied or observed.missing or plan.failure is not None:
        return None
    revision = revision_of(deployment)
    pods = [pod for pod in observed.pods if not pod.terminating]
    counts = count_pods(deployment, app.replicas)
    is_newest = counts.is_observed and counts.existing == counts.updated == app.replicas
    placed = [pod for pod in pods if not pod.has_no_node]
    is_whole = is_newest and app.replicas == len(pods) and bool(placed)
    if revision is None or not is_whole or plan.count(*BUSY):
        return None
    wanted = {
        content.name: observed.digests[content.ref].digest
        for content in app.pinned
        if content.ref in observed.digests
    }
    least_s = app.rollout.min_ready_s
    if not all(serves(pod, wanted) and pod.has_been_ready(least_s) for pod in placed):
        return None
    return LastGood(revision, {c.name: str(wanted[c.name]) for c in app.copied})


def serves(pod: Pod, wanted: Mapping[str, str | None]) -> bool:
    """Return whether a pod's agent says that it serves this content, and nothing else is under way."""
    agent = pod.agent
    if agent is None or agent.unready or (agent.reload and not agent.reload.is_finished):
        return False
    return all(agent.content.get(name) == digest for name, digest in wanted.items())


def is_kept(good: LastGood, copies: Mapping[str, Digest]) -> bool:
    """Return whether the copies that there are, are these contents."""
    kept = {name: copy.digest for name, copy in copies.items()}
    return kept == good.contents and all(copy.mark == good.mark for copy in copies.values())


def read_kept(copies: Mapping[str, Digest], revision: str | None) -> dict[str, str]:
    """Return the digests that a pod of this revision boots, by content; none where it boots the newest."""
    marks = {copy.mark for copy in copies.values()}
    if len(marks) != 1:
        return {}
    try:
        good = json.loads(marks.pop())
        found = {name: copy.digest for name, copy in copies.items()}
        is_whole = good["revision"] == revision and good["contents"] == found
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {name: digest for name, digest in found.items() if digest} if is_whole else {}


def is_newest_kept(app: App, observed: Observed) -> bool:
    """Return whether pods that start now boot what is declared now; True where no content is copied."""
    kept = read_kept(observed.copies, revision_of(observed.owned.get("Deployment")))
    return all(kept.get(c.name) == observed.digests[c.ref].digest for c in app.copied)


def is_good(app: App, observed: Observed) -> bool:
    """Return whether every pod has served healthily all that is reloaded; never so where that is a Secret."""
    is_copied = bool(app.reloadable) and set(app.reloadable) <= set(app.copied)
    return is_copied and not observed.missing and is_newest_kept(app, observed)


def describe_contents(app: App, observed: Observed, why_not_kept: str) -> list[dict[str, Any]]:
    """Return for each content that has copies: what is declared, what a start boots, what pods serve."""
    revision = revision_of(observed.owned.get("Deployment"))
    kept = read_kept(observed.copies, revision)
    described = []
    for content in app.copied:
        name, declared = content.name, observed.digests[content.ref].digest
        shown: dict[str, Any] = {"name": name}
        if declared is not None:
            shown["declared"] = declared[:SHOWN_DIGITS]
        if name in kept:
            shown["lastGood"] = kept[name][:SHOWN_DIGITS]
        shown["serving"] = count_serving(name, observed)
        if why_not_kept:
            shown["message"] = f"no last good copy is kept: {why_not_kept}"[:LONGEST_MESSAGE]
        described.append(shown)
    return described


def has_other_content(manifest: Manifest, cache: Cache) -> bool:
    """Return whether a ConfigMap is known to hold something else than what the status of its app speaks of."""
    shown = {
        each["name"]: each.get("declared", "")
        for each in (manifest.get("status") or {}).get("contents", ())
    }
    for name, config_map in read_config_maps(manifest["spec"]):
        seen = cache.digest(manifest["metadata"]["namespace"], Ref("ConfigMap", config_map))
        if name in shown and seen is not None and shown[name] != (seen.digest or "")[:SHOWN_DIGITS]:
            return True
    return False


def read_config_maps(spec: Manifest) -> Iterator[tuple[str, str]]:
    """Yield the name of each content that is a ConfigMap, and that of the ConfigMap, of a spec that nobody has parsed:
    that of thousands takes seconds."""
    for entry in ({"name": SOURCE, **(spec.get("source") or {})}, *(spec.get("config") or ())):
        match entry:
            case {"name": str(name), "configMap": {"name": str(config_map)}}:
                yield name, config_map


def count_serving(name: str, observed: Observed) -> list[dict[str, Any]]:
    """Return how many pods serve which version of a content.

    While the agent of a pod that serves does not answer, what was last known stands: the pod serves on.
    """
    pods = [pod for pod in observed.pods if not pod.terminating]
    if any(pod.ready and pod.agent is None for pod in pods):
        known = {each["name"]: each for each in observed.status.get("contents", ())}
        serving: list[dict[str, Any]] = known.get(name, {}).get("serving", [])
        if 0 < sum(each["pods"] for each in serving) <= len(pods):
            return serving
    agents = [pod.agent for pod in pods if pod.agent is not None]
    counts = Counter(a.content[name][:SHOWN_DIGITS] for a in agents if name in a.content)
    return [{"digest": digest, "pods": number} for digest, number in sorted(counts.items())]


def build_copy(app: App, content: Content, config_map: Manifest, good: LastGood) -> Manifest:
    """Return the copy of a content; it goes with the WsgiApp, not with the operator."""
    fields: dict[str, object] = {
        "data": {**(config_map.get("data") or {}), LAST_GOOD_KEY: good.mark}
    }
    if config_map.get("binaryData"):
        fields["binaryData"] = config_map["binaryData"]
    copy = build_owned(app, "v1", "ConfigMap", **fields)
    copy["metadata"]["name"] = last_good_name(app.name, content.name)
    return copy


async def keep(app: App, good: LastGood, cluster: Cluster, cache: Cache, metrics: Metrics) -> str:
    """Write the copies; return why they could not be written, empty where they were or will be.

    Contents that have changed meanwhile are left for a later reconcile, which sees them.
    """
    copies = []
    for content in app.copied:
        source = await cluster.get("ConfigMap", app.namespace, content.ref.name)
        if source is None or digest_object(source) != good.contents[content.name]:
            return ""
        copies.append(build_copy(app, content, source, good))
    if why := await find_foreign(app, copies, cluster):
        return why
    for copy in copies:
        try:
            written = await cluster.apply(copy, force=True)
        except ApiError as error:
            if not error.is_refusal:
                raise
            return explain_refusal(f"ConfigMap {copy['metadata']['name']}", error).message
        cache.record_content(written)
        metrics.applies.labels(kind="ConfigMap", changed="true").inc()
    logger.info("last good content kept: app=%s/%s contents=%s", app.namespace, app.name, good.mark)
    return ""


def find_unused(app: App, observed: Observed, copies: Collection[str]) -> set[str]:
    """Return which of an app's copies nothing boots: of contents that the spec no longer has, or with names of
    an earlier version of the operator.

    What a pod mounts stays, also where the template does not mount it any more: the pod may start again.
    """
    deployment = observed.owned.get("Deployment")
    if deployment is None:
        return set()
    wanted = {last_good_name(app.name, content.name) for content in app.copied}
    mounted = find_copies(deployment["spec"]["template"]["spec"]).union(
        *(pod.copies for pod in observed.pods)
    )
    return set(copies) - wanted - mounted


async def collect(app: App, observed: Observed, cluster: Cluster, cache: Cache) -> None:
    """Delete the copies that nothing boots; one whose deletion is refused is tried again at the next look."""
    key = AppKey(app.namespace, app.name)
    for name in sorted(find_unused(app, observed, cache.copies(key))):
        live = await cluster.get("ConfigMap", app.namespace, name)
        if live is not None and is_owned(live, app) and LAST_GOOD_KEY in (live.get("data") or {}):
            try:
                await cluster.delete(live)
            except ApiError as error:
                if not error.is_refusal:
                    raise
                logger.warning(
                    "last good copy not deleted: app=%s name=%s error=%s", key, name, error
                )
                continue
            logger.info("last good copy is of no use any more: app=%s name=%s", key, name)
        cache.forget_copy(key, name)


async def find_foreign(app: App, copies: Sequence[Manifest], cluster: Cluster) -> str:
    """Return which object has a copy's name and is not the app's; empty where there is none."""
    for copy in copies:
        live = await cluster.get("ConfigMap", app.namespace, copy["metadata"]["name"])
        obstacle = find_obstacle(app, live) if live is not None else None
        if obstacle is not None:
            return obstacle.message
    return ""
