"""The Service: one stable name for the app's pods."""

from wsgiapp.names import SERVICE_PORT
from wsgiapp.resources.owned import build_child, selector
from wsgiapp.types import App, Manifest


def build_service(app: App) -> Manifest:
    spec = {
        "selector": selector(app),
        "ports": [{"name": "http", "port": SERVICE_PORT, "protocol": "TCP", "targetPort": "http"}],
    }
    return build_child(app, "v1", "Service", spec=spec)
