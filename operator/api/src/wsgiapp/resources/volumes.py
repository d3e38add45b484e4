"""The pod's volumes: the server, the run directory, the reload request and the contents."""

from wsgiapp.names import CONTENT_VOLUME_PREFIX, RELOAD_ANNOTATION
from wsgiapp.resources.platform import Platform
from wsgiapp.types import App, Content, Manifest


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
    return [
        server,
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "podinfo", "downwardAPI": {"items": [request]}},
        *(content_volume(content) for content in app.contents),
    ]


def content_volume(content: Content) -> Manifest:
    volume: Manifest = {"name": f"{CONTENT_VOLUME_PREFIX}{content.name}"}
    if content.ref.kind == "ConfigMap":
        return volume | {"configMap": {"name": content.ref.name}}
    return volume | {"secret": {"secretName": content.ref.name}}


def mount_content(content: Content, path: str) -> Manifest:
    return {"name": f"{CONTENT_VOLUME_PREFIX}{content.name}", "mountPath": path, "readOnly": True}
