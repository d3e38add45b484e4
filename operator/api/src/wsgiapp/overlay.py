"""`spec.podTemplate`: what it may not touch, and how it is laid over the template that the operator builds.

Strategic merge as `kubectl patch` does it: maps by key, lists of named things by their key, all other lists
and values as a whole. Pure, on plain data.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from wsgiapp.names import (
    AGENT_CONTAINER,
    AGENT_OPTIONS_VARIABLE,
    AGENT_PORT,
    AGENT_PORT_NAME,
    APP_CONTAINER,
    APP_LABEL,
    APP_PORT,
    APP_PORT_NAME,
    CONTENT_DIR,
    CONTENT_VOLUME_PREFIX,
    DIGEST_KEY_DIR,
    DIGEST_KEY_VOLUME,
    GROUP,
    LAST_GOOD_DIR,
    LAST_GOOD_VOLUME_PREFIX,
    MANAGED_BY_LABEL,
    MOUNTED_DIR,
    NAME_LABEL,
    PREFORK_DIR,
    RELOAD_DIR,
    RUN_DIR,
    VERSIONS_VOLUME,
)

# Of a list, by its field: the key by which its items are one and the same.
KEYS = {
    "containers": "name", "initContainers": "name", "volumes": "name", "env": "name",
    "imagePullSecrets": "name", "resourceClaims": "name", "hostAliases": "ip", "ports": "containerPort",
    "volumeMounts": "mountPath", "volumeDevices": "devicePath", "topologySpreadConstraints": "topologyKey",
}  # fmt: skip
# Items of which one takes the place of the other: their kinds exclude each other.
REPLACED = ("volumes", "env")
OWN = {"containers": {APP_CONTAINER}, "initContainers": {AGENT_CONTAINER, "prefork"}}
OWN_NAMES = {APP_CONTAINER, AGENT_CONTAINER, "prefork"}
OWN_LABELS = {APP_LABEL, NAME_LABEL, MANAGED_BY_LABEL, "pod-template-hash"}
OWN_VOLUMES = {"prefork", "run", "podinfo", VERSIONS_VOLUME, DIGEST_KEY_VOLUME}
OWN_VOLUME_PREFIXES = (CONTENT_VOLUME_PREFIX, LAST_GOOD_VOLUME_PREFIX)
OWN_FOLDERS = (
    PREFORK_DIR, RUN_DIR, RELOAD_DIR, CONTENT_DIR, MOUNTED_DIR, LAST_GOOD_DIR, DIGEST_KEY_DIR,
)  # fmt: skip
OWN_PORTS = {APP_PORT, AGENT_PORT}
OWN_PORT_NAMES = {APP_PORT_NAME, AGENT_PORT_NAME}
FIXED = {
    "command": "the operator sets it from spec.server",
    "args": "the operator sets it; use spec.server",
    "image": "use spec.image",
    "imagePullPolicy": "use spec.imagePullPolicy",
    "workingDir": "it is spec.source.mountPath",
    "restartPolicy": "the operator sets it",
    "terminationMessagePath": "the operator reads it",
}
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
HANDLERS = ("exec", "grpc", "httpGet", "tcpSocket")


def lay_over(base: Any, overlay: Any, key: str = "") -> Any:
    """Return `base` with `overlay` on top; `key` is the field that holds them."""
    if isinstance(base, dict) and isinstance(overlay, Mapping):
        merged = {name: lay_over(base.get(name), value, name) for name, value in overlay.items()}
        return {**base, **merged}
    if isinstance(base, list) and isinstance(overlay, list) and key in KEYS:
        return lay_items_over(base, overlay, key)
    return overlay


def lay_items_over(base: list[Any], overlay: list[Any], key: str) -> list[Any]:
    merged = {identify(item, key): item for item in base}
    for item in overlay:
        name = identify(item, key)
        is_whole = key in REPLACED or name not in merged
        merged[name] = item if is_whole else lay_over(merged[name], item)
    return list(merged.values())


def identify(item: Mapping[str, Any], key: str) -> tuple[Any, str]:
    """Return what tells an item of a list from the others: 443 may be a port of TCP and one of UDP."""
    return item[KEYS[key]], item.get("protocol", "TCP") if key == "ports" else ""


def find_faults(template: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield field and reason of each thing that is the operator's own."""
    metadata, spec = template.get("metadata", {}), template.get("spec", {})
    for name in sorted(metadata.get("labels", {}).keys() & OWN_LABELS):
        yield (
            "spec.podTemplate.metadata.labels",
            f"has '{name}', which the operator sets; remove it",
        )
    for name in metadata.get("annotations", {}):
        if name.startswith(f"{GROUP}/"):
            where = "spec.podTemplate.metadata.annotations"
            yield where, f"has '{name}', which the operator sets; remove it"
    for volume in spec.get("volumes", ()):
        name = volume["name"]
        if name in OWN_VOLUMES or name.startswith(OWN_VOLUME_PREFIXES):
            yield (
                "spec.podTemplate.spec.volumes",
                f"has '{name}', the operator's own; use another name",
            )
    for field in OWN:
        for container in spec.get(field, ()):
            where = f"spec.podTemplate.spec.{field}[{container['name']}]"
            if container["name"] in OWN[field]:
                yield from find_faults_of_own(container, where)
            elif container["name"] in OWN_NAMES:
                yield where, "has the name of a container of the operator; use another name"
            elif "image" not in container:
                yield f"{where}.image", "is missing; name the image of this container"
            yield from find_taken_ports(container, where)


def find_faults_of_own(container: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    """Yield what must not be changed of the app's container or the agent."""
    for field, reason in FIXED.items():
        if field in container:
            yield f"{where}.{field}", f"cannot be changed: {reason}"
    for probe in PROBES:
        if any(handler in container.get(probe, {}) for handler in HANDLERS):
            yield (
                f"{where}.{probe}",
                "asks something else; only its times and thresholds can be changed",
            )
    if "preStop" in container.get("lifecycle", {}):
        yield (
            f"{where}.lifecycle.preStop",
            "cannot be changed; use spec.termination.drainDelaySeconds",
        )
    for variable in container.get("env", ()):
        name = variable["name"]
        if name.startswith("WSGIAPP_CONFIG_") or name == AGENT_OPTIONS_VARIABLE:
            yield (
                f"{where}.env",
                f"has '{name}', which the operator sets; use another name",
            )
    for mount in container.get("volumeMounts", ()):
        path = mount["mountPath"].rstrip("/")
        if any(path == own or path.startswith(f"{own}/") for own in OWN_FOLDERS):
            yield (
                f"{where}.volumeMounts",
                f"has '{path}', which the pod uses itself; use another folder",
            )


def find_taken_ports(container: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    for port in container.get("ports", ()):
        if port["containerPort"] in OWN_PORTS or port.get("name") in OWN_PORT_NAMES:
            yield (
                f"{where}.ports",
                f"has {port['containerPort']}, the app's or the agent's; use another port and name",
            )
