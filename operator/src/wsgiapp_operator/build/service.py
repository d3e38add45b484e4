"""The Service: one stable name for the app's pods."""

from wsgiapp_operator.api import App, Manifest
from wsgiapp_operator.build.child import build_child, selector

PORT = 80


def build_service(app: App) -> Manifest:
    spec = {
        "selector": selector(app),
        "ports": [{"name": "http", "port": PORT, "protocol": "TCP", "targetPort": "http"}],
    }
    return build_child(app, "v1", "Service", spec=spec)
