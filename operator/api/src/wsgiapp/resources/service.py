"""The Service: one stable name for the app's pods."""

from wsgiapp.names import APP_PORT_NAME
from wsgiapp.resources.owned import build_owned, selector
from wsgiapp.types import App, Manifest


def build_service(app: App) -> Manifest:
    spec = {
        "type": app.service.type,
        "selector": selector(app),
        "ports": [
            {
                "name": APP_PORT_NAME,
                "port": app.service.port,
                "protocol": "TCP",
                "targetPort": APP_PORT_NAME,
            }
        ],
    }
    manifest = build_owned(app, "v1", "Service", spec=spec)
    if app.service.annotations:
        manifest["metadata"]["annotations"] = dict(app.service.annotations)
    return manifest
