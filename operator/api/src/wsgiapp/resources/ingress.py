"""The Ingress, with the nginx.org annotations that fit the server."""

from wsgiapp.resources.owned import build_owned
from wsgiapp.types import App, Ingress, Manifest

NO_LIMIT_S = 3600


def build_ingress(app: App, ingress: Ingress) -> Manifest:
    backend = {"service": {"name": app.name, "port": {"number": app.service.port}}}
    path = {"path": ingress.path, "pathType": "Prefix", "backend": backend}
    spec: Manifest = {
        "rules": [{"host": host, "http": {"paths": [path]}} for host in ingress.hosts]
    }
    if ingress.class_name is not None:
        spec["ingressClassName"] = ingress.class_name
    if ingress.tls_secret is not None:
        spec["tls"] = [{"hosts": list(ingress.hosts), "secretName": ingress.tls_secret}]
    manifest = build_owned(app, "networking.k8s.io/v1", "Ingress", spec=spec)
    manifest["metadata"]["annotations"] = {**nginx_annotations(app), **ingress.annotations}
    return manifest


def nginx_annotations(app: App) -> dict[str, str]:
    """Return settings for F5 NGINX Ingress Controller; others ignore them."""
    timeout_s = app.server.request_timeout_s
    return {
        # Idle connections to the pods; the server keeps them longer than nginx does.
        "nginx.org/keepalive": "32",
        # A pod that vanished costs seconds, not nginx's minute.
        "nginx.org/proxy-connect-timeout": "5s",
        # The server answers 504 itself, with the stack in its log: nginx must not be first.
        "nginx.org/proxy-read-timeout": f"{timeout_s + 10 if timeout_s else NO_LIMIT_S}s",
        "nginx.org/proxy-send-timeout": f"{timeout_s + 10 if timeout_s else NO_LIMIT_S}s",
        # Readiness decides which pods get requests; one broken connection says nothing of a pod.
        "nginx.org/max-fails": "3",
        "nginx.org/fail-timeout": "5s",
        "nginx.org/client-max-body-size": str(app.server.max_request_body_bytes),
    }
