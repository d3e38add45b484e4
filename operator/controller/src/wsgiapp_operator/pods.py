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
    RELOAD_BEFORE_ANNOTATION,
    RELOAD_STARTED_ANNOTATION,
    TEMPLATE_ANNOTATION,
)
from wsgiapp.types import Manifest, Ref

from wsgiapp_operator.state import Before, End, Issue, Pod, ReloadRequest

OUT_OF_MEMORY = "OOMKilled"
ENDED = ("Failed", "Succeeded")
# Ends of a pod, and of a container, that are no doing of what runs in them.
ENDED_FROM_OUTSIDE = frozenset({"Preempting", "Shutdown", "Terminated", "NodeShutdown", "NodeLost"})
LOST_SIGHT_OF = frozenset({"ContainerStatusUnknown", "Unknown"})  # by a kubelet that started anew
# Exit codes of a server that was told to stop, by SIGTERM, or that was killed: what runs in a container cannot send
# SIGKILL to its first process, but the kernel can, for the memory that a neighbour takes, and so can a person.
STOPPED = (0, 128 + 15, 128 + 9)
NODE_IS_SHORT = ("The node was low on resource", "The node had condition")
# What helps a pod that no node takes; the scheduler's words say what is missing.
NO_NODE = "lower what the containers request (spec.resources), change what spec.podTemplate asks of a node, or add one"
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
        ready_changed=str(ready.get("lastTransitionTime") or ""),
        end=find_end(manifest.get("spec", {}), status),
        has_failed=has_failed_by_itself(metadata, status),
        # An evicted pod stays as an object for long after another has taken its place.
        terminating="deletionTimestamp" in metadata or status.get("phase") in ENDED,
        request=parse_reload_request(annotations.get(RELOAD_ANNOTATION)),
        requested_at=parse_time(started),
        before=parse_before(annotations.get(RELOAD_BEFORE_ANNOTATION)),
        issue=find_issue(manifest.get("spec", {}), status, conditions),
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


def find_end(spec: Manifest, status: Manifest) -> End | None:
    """Return how the app's container ended last, None where it never did."""
    for container in status.get("containerStatuses", ()):
        if container["name"] == APP_CONTAINER:
            ended = container.get("state", {}).get("terminated")
            ended = ended or container.get("lastState", {}).get("terminated")
            if ended and ended.get("containerID"):
                return End(ended["containerID"], has_ended_by_itself(ended, spec))
    return None


def has_ended_by_itself(ended: Manifest, spec: Manifest) -> bool:
    """Return whether nothing else than what ran in the container can be the reason for its end.

    The kernel kills for memory where the container has reached its limit, or where the whole node has none left. A
    container without a limit shows that it was the node.
    """
    if ended.get("reason") == OUT_OF_MEMORY:
        return bool(find_memory_limit(APP_CONTAINER, spec))
    return ended.get("reason") not in LOST_SIGHT_OF and ended.get("exitCode") not in STOPPED


def find_memory_limit(name: str, spec: Manifest) -> str:
    """Return the memory limit of a container, or of its pod; empty for none."""
    containers = (*spec.get("initContainers", ()), *spec.get("containers", ()))
    for each in (*(c for c in containers if c["name"] == name), spec):
        limits = (each.get("resources") or {}).get("limits") or {}
        if "memory" in limits:
            return str(limits["memory"])
    return ""


def show_before(pod: Pod, request: ReloadRequest) -> str:
    """Return the annotation that says how the pod is now that it is asked this."""
    return json.dumps(
        {
            "end": pod.end.container if pod.end is not None else "",
            "ready": pod.ready,
            "readyChanged": pod.ready_changed,
            "isSecond": pod.request == request,
        },
        sort_keys=True,
    )


def parse_before(text: str | None) -> Before | None:
    """Return how the pod was when it was asked; what is garbled counts as nothing."""
    try:
        match json.loads(text or ""):
            case {
                "end": str(end), "ready": bool(ready), "readyChanged": str(changed), "isSecond": bool(is_second),
            }:  # fmt: skip
                return Before(end, ready, changed, is_second)
    except (ValueError, RecursionError):
        pass
    return None


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


def find_issue(
    spec: Manifest, status: Manifest, conditions: Mapping[str, Manifest]
) -> Issue | None:
    """Return why a pod does not serve, as far as its status tells; the first thing counts."""
    if status.get("phase") == "Failed" and "reason" in status:
        return Issue(str(status["reason"]), str(status.get("message", status["reason"])))
    scheduled = conditions.get("PodScheduled", {})
    if scheduled.get("status") == "False":
        why = str(scheduled.get("message", "no node takes the pod")).rstrip(".")
        return Issue("Unschedulable", f"{why}; {NO_NODE}")
    containers = [*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())]
    for container in containers:
        issue = find_container_issue(container, spec)
        if issue is not None:
            return issue
    return None


def find_container_issue(container: Manifest, spec: Manifest) -> Issue | None:
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
        return Issue("OOMKilled", explain_out_of_memory(name, container, spec))
    last_words = last_line(ended.get("message", ""))
    reason = "AppCrashed" if name == APP_CONTAINER else "ContainerCrashed"
    if not last_words:
        last_words = f"exit code {ended.get('exitCode')}; its log says more"
    return Issue(reason, f"container {name} ended: {last_words}")


def explain_out_of_memory(name: str, container: Manifest, spec: Manifest) -> str:
    """Return the sentence, with the limit that there was, and the field that raises it."""
    reported = (container.get("resources") or {}).get("limits") or {}
    limit = reported.get("memory") or find_memory_limit(name, spec)
    if not limit:
        what = f"container {name} was killed because its node had no memory left"
        remedy = "; set spec.resources.requests.memory to what the app needs"
        return what + (remedy if name == APP_CONTAINER else "")
    what = f"container {name} needed more memory than its limit of {limit}"
    if name == APP_CONTAINER:
        return f"{what}; raise spec.resources.limits.memory or lower spec.server.workers"
    return f"{what}; raise the memory limit of that container"


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
