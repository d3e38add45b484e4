"""The pod's volumes: the server, the run directory, the reload request, and the contents.

A content is mounted in the agent, which keeps its versions in a volume in memory; the app sees these,
and at the content's mountPath the one that serves (docs/decisions/0017). Only a content that the app itself
rereads is mounted in the app as the kubelet changes it.
"""

from wsgiapp.names import (
    CONTENT_DIR,
    CONTENT_VOLUME_PREFIX,
    DIGEST_KEY_DIR,
    DIGEST_KEY_VOLUME,
    LAST_GOOD_DIR,
    LAST_GOOD_VOLUME_PREFIX,
    LIVE_DIR,
    MOUNTED_DIR,
    RELOAD_ANNOTATION,
    VERSIONS_VOLUME,
    digest_key_name,
    last_good_name,
)
from wsgiapp.resources.platform import Platform
from wsgiapp.types import App, Content, Manifest, OnChange

# A cap, not a reservation; the pages count for the agent, whose memory limit is above it.
VERSIONS_SIZE = "64Mi"


def build_volumes(app: App, platform: Platform) -> list[Manifest]:
    if platform.image_volumes:
        image = {"reference": platform.prefork_image, "pullPolicy": platform.prefork_pull_policy}
        server: Manifest = {"name": "prefork", "image": image}
    else:
        server = {"name": "prefork", "emptyDir": {"sizeLimit": "256Mi"}}
    request = {
        "path": "reload",
        "fieldRef": {"fieldPath": f"metadata.annotations['{RELOAD_ANNOTATION}']"},
    }
    versions = {
        "name": VERSIONS_VOLUME,
        "emptyDir": {"medium": "Memory", "sizeLimit": VERSIONS_SIZE},
    }
    return [
        server,
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "podinfo", "downwardAPI": {"items": [request]}},
        *(content_volume(app, content) for content in app.contents),
        *(last_good_volume(app, content) for content in app.copied),
        *([versions] if app.pinned else []),
        *([digest_key_volume(app)] if app.secret_contents else []),
    ]


def content_volume(app: App, content: Content) -> Manifest:
    """Optional where a last good copy is kept: a pod boots that one, also when the ConfigMap was deleted."""
    volume: Manifest = {"name": f"{CONTENT_VOLUME_PREFIX}{content.name}"}
    if content in app.copied:
        return volume | {"configMap": {"name": content.ref.name, "optional": True}}
    if content.ref.kind == "ConfigMap":
        return volume | {"configMap": {"name": content.ref.name}}
    return volume | {"secret": {"secretName": content.ref.name}}


def last_good_volume(app: App, content: Content) -> Manifest:
    """Optional: a pod starts without one, before the first copy is made and when there is no operator."""
    config_map = {"name": last_good_name(app.name, content.name), "optional": True}
    return {"name": f"{LAST_GOOD_VOLUME_PREFIX}{content.name}", "configMap": config_map}


def digest_key_volume(app: App) -> Manifest:
    """Optional: an operator that may not read Secrets makes no key, and the agent then has one of its own."""
    return {
        "name": DIGEST_KEY_VOLUME,
        "secret": {"secretName": digest_key_name(app.name), "optional": True},
    }


def mount_contents_in_app(app: App) -> list[Manifest]:
    """Return the app's mounts: all versions, and for each content what serves at its own path."""
    mounts: list[Manifest] = []
    if app.pinned:
        mounts.append({"name": VERSIONS_VOLUME, "mountPath": CONTENT_DIR, "readOnly": True})
    for content in app.contents:
        mount: Manifest = {"name": VERSIONS_VOLUME, "subPath": f"{content.name}/{LIVE_DIR}"}
        if content.on_change is OnChange.IGNORE:
            mount = {"name": f"{CONTENT_VOLUME_PREFIX}{content.name}"}
        mounts.append({**mount, "mountPath": content.mount_path, "readOnly": True})
    return mounts


def mount_contents_in_agent(app: App) -> list[Manifest]:
    """Return the agent's mounts: what the kubelet brings, and the versions that it keeps of that."""
    brought = [
        *((CONTENT_VOLUME_PREFIX, MOUNTED_DIR, content.name) for content in app.pinned),
        *((LAST_GOOD_VOLUME_PREFIX, LAST_GOOD_DIR, content.name) for content in app.copied),
    ]
    key = {"name": DIGEST_KEY_VOLUME, "mountPath": DIGEST_KEY_DIR, "readOnly": True}
    return [
        *(
            {"name": f"{prefix}{name}", "mountPath": f"{folder}/{name}", "readOnly": True}
            for prefix, folder, name in brought
        ),
        *([{"name": VERSIONS_VOLUME, "mountPath": CONTENT_DIR}] if app.pinned else []),
        *([key] if app.secret_contents else []),
    ]
