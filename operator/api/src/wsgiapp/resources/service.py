"""The Service: one stable name for the app's pods."""

from wsgiapp.names import APP_PORT_NAME, SERVICE_PORT
from wsgiapp.resources.owned import build_owned, selector
from wsgiapp.types import App, Manifest


def build_service(app: App) -> Manifest:
    spec = {
        "selector": selector(app),
        "ports": [
            {
                "name": APP_PORT_NAME,
                "port": SERVICE_PORT,
                "protocol": "TCP",
                "targetPort": APP_PORT_NAME,
            }
        ],
    }
    return build_owned(app, "v1", "Service", spec=spec)
