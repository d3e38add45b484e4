"""From a Pod as the API server has it to what planning needs of it. Pure."""

import json
from collections.abc import Mapping
from datetime import datetime

from wsgiapp.names import (
    APP_CONTAINER,
    CONTENT_VOLUME_PREFIX,
    DIGEST_KEY_VOLUME,
    LAST_GOOD_VOLUME_PREFIX,
    RELOAD_ANNOTATION,
    RELOAD_STARTED_ANNOTATION,
    TEMPLATE_ANNOTATION,
)
from wsgiapp.types import Manifest, Ref

from wsgiapp_operator.state import Issue, Pod, ReloadRequest

OUT_OF_MEMORY = "OOMKilled"
ENDED = ("Failed", "Succeeded")
# Ends of a pod, and of a container, that are no doing of what runs in them.
ENDED_FROM_OUTSIDE = frozenset({"Preempting", "Shutdown", "Terminated", "NodeShutdown", "NodeLost"})
LOST_SIGHT_OF = frozenset({"ContainerStatusUnknown", "Unknown"})  # by a kubelet that started anew
STOPPED = (0, 128 + 15)  # exit codes of a server that was told to stop, by SIGTERM
NODE_IS_SHORT = ("The node was low on resource", "The node had condition")
# Reasons for which a container waits that do not pass by waiting.
NO_IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
STUCK = NO_IMAGE | frozenset({
    "CreateContainerConfigError", "CreateContainerError", "RunContainerError",
})  # fmt: skip


def is_of_deployment(manifest: Manifest, name: str) -> bool:
    """Return whether a pod was made for the Deployment `name`, by its ReplicaSet.

    Labels alone do not tell: anybody may put them on a pod of their own.
    """
    metadata = manifest["metadata"]
    template_hash = (metadata.get("labels") or {}).get("pod-template-hash")
    return any(
        owner.get("controller")
        and owner["kind"] == "ReplicaSet"
        and owner["name"] == f"{name}-{template_hash}"
        for owner in metadata.get("ownerReferences", ())
    )


def parse_pod(manifest: Manifest) -> Pod:
    metadata, status = manifest["metadata"], manifest.get("status", {})
    annotations = metadata.get("annotations") or {}
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    started = annotations.get(RELOAD_STARTED_ANNOTATION)
    ready = conditions.get("Ready", {})
    return Pod(
        name=metadata["name"],
        uid=metadata["uid"],
        ip=status.get("podIP"),
        template=annotations.get(TEMPLATE_ANNOTATION),
        ready=ready.get("status") == "True",
        ready_changed_at=parse_time(ready.get("lastTransitionTime")),
        ended_at=find_end(status, by_itself=True),
        stopped_at=find_end(status, by_itself=False),
        has_failed=has_failed_by_itself(metadata, status),
        # An evicted pod stays as an object for long after another has taken its place.
        terminating="deletionTimestamp" in metadata or status.get("phase") in ENDED,
        request=parse_reload_request(annotations.get(RELOAD_ANNOTATION)),
        requested_at=parse_time(started),
        issue=find_issue(status, conditions),
        contents=find_contents(manifest.get("spec", {})),
        copies=find_copies(manifest.get("spec", {})),
        has_key=any(
            volume["name"] == DIGEST_KEY_VOLUME
            for volume in manifest.get("spec", {}).get("volumes", ())
        ),
    )


def find_contents(spec: Manifest) -> dict[str, Ref]:
    """Return the ConfigMaps and Secrets that the pod mounts as contents, by the content's name."""
    contents = {}
    for volume in spec.get("volumes", ()):
        name = volume["name"].removeprefix(CONTENT_VOLUME_PREFIX)
        if name == volume["name"]:
            continue
        if "configMap" in volume:
            contents[name] = Ref("ConfigMap", volume["configMap"]["name"])
        elif "secret" in volume:
            contents[name] = Ref("Secret", volume["secret"]["secretName"])
    return contents


def find_copies(spec: Manifest) -> frozenset[str]:
    """Return the names of the last good copies that pods with this spec mount."""
    return frozenset(
        volume["configMap"]["name"]
        for volume in spec.get("volumes", ())
        if volume["name"].startswith(LAST_GOOD_VOLUME_PREFIX) and "configMap" in volume
    )


def has_failed_by_itself(metadata: Manifest, status: Manifest) -> bool:
    """Return whether a pod has ended for good, and what ran in it may be the reason.

    That is not so for one that was deleted or whose node went. A node that is short of something evicts whom
    it likes: the kubelet names the containers that have grown beyond their requests.
    """
    if status.get("phase") != "Failed" or "deletionTimestamp" in metadata:
        return False
    if status.get("reason") in ENDED_FROM_OUTSIDE:
        return False
    message = status.get("message", "")
    return (
        not message.startswith(NODE_IS_SHORT) or f"Container {APP_CONTAINER} was using" in message
    )


def find_end(status: Manifest, *, by_itself: bool) -> datetime | None:
    """Return when the app's container ended last by itself, or not by itself.

    A server that was told to stop says nothing of its content; if the content did that, the agent notices
    (docs/contracts.md §5).
    """
    for container in status.get("containerStatuses", ()):
        if container["name"] == APP_CONTAINER:
            ended = [
                container.get(field, {}).get("terminated", {}) for field in ("state", "lastState")
            ]
            moments = [
                parse_time(each.get("finishedAt"))
                for each in ended
                if has_ended_by_itself(each) is by_itself
            ]
            return max((moment for moment in moments if moment is not None), default=None)
    return None


def has_ended_by_itself(ended: Manifest) -> bool:
    return ended.get("reason") not in LOST_SIGHT_OF and ended.get("exitCode") not in STOPPED


def parse_reload_request(text: str | None) -> ReloadRequest | None:
    """Return the request on a pod; a garbled one counts as none and is written anew."""
    try:
        request = json.loads(text or "")
        content = dict(request["content"])
        is_sound = all(isinstance(digest, str) for digest in content.values())
        return ReloadRequest(str(request["id"]), content) if is_sound else None
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def parse_time(text: str | None) -> datetime | None:
    """Return a moment as Kubernetes writes it; one without a time zone cannot be compared and counts as none."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def find_issue(status: Manifest, conditions: Mapping[str, Manifest]) -> Issue | None:
    """Return why a pod does not serve, as far as its status tells; the first thing counts."""
    if status.get("phase") == "Failed" and "reason" in status:
        return Issue(str(status["reason"]), str(status.get("message", status["reason"])))
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        return Issue("Unschedulable", scheduled.get("message", "no node takes the pod"))
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    for container in containers:
        issue = find_container_issue(container)
        if issue is not None:
            return issue
    return None


def find_container_issue(container: Manifest) -> Issue | None:
    name, state = container["name"], container.get("state", {})
    waiting = state.get("waiting", {})
    if waiting.get("reason") in STUCK:
        message = f"container {name}: {waiting.get('message', waiting['reason'])}"
        if name == APP_CONTAINER and waiting["reason"] in NO_IMAGE:
            message += "; check spec.image, and spec.imagePullSecrets for a private registry"
        return Issue(waiting["reason"], message)
    if container.get("ready") or ("running" in state and container.get("started")):
        return None
    ended = state.get("terminated") or container.get("lastState", {}).get("terminated")
    if ended is None or ended.get("exitCode") == 0:
        return None
    if ended.get("reason") == OUT_OF_MEMORY:
        return Issue("OOMKilled", explain_out_of_memory(name, container))
    last_words = last_line(ended.get("message", ""))
    reason = "AppCrashed" if name == APP_CONTAINER else "ContainerCrashed"
    if not last_words:
        last_words = f"exit code {ended.get('exitCode')}; its log says more"
    return Issue(reason, f"container {name} ended: {last_words}")


def explain_out_of_memory(name: str, container: Manifest) -> str:
    """Return the sentence, with the limit where the kubelet reports it, and the field that raises it."""
    limit = container.get("resources", {}).get("limits", {}).get("memory")
    what = f"container {name} needed more memory than its limit" + (f" of {limit}" if limit else "")
    if name == APP_CONTAINER:
        return f"{what}; raise spec.resources.limits.memory or lower spec.server.workers"
    return f"{what}; raise the memory limit of that container"


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
