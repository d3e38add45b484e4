"""The Ingresses, with the nginx.org annotations that fit the server.

One, named like the app, for the hosts that it has alone. A host that apps share by path needs two more for
each of them with F5 NGINX Ingress Controller: a master, which names the host and its TLS, and a minion with
the app's path. Every app has a master of its own; the oldest is in force, the others stand by, so that the
host stays when the app that came first goes.
https://docs.nginx.com/nginx-ingress-controller/configuration/ingress-resources/cross-namespace-configuration
"""

from collections.abc import Collection, Sequence

from wsgiapp.digest import digest_json
from wsgiapp.names import APP_PORT_NAME
from wsgiapp.resources.owned import build_owned
from wsgiapp.types import App, Ingress, Manifest

NO_LIMIT_S = 3600
NGINX_KEEP_ALIVE_S = 60  # nginx's own, for connections to a backend
# The app answers late on purpose when a request takes its whole time: nginx waits longer.
MARGIN_S = 10
TYPE_ANNOTATION = "nginx.org/mergeable-ingress-type"
OF_NGINX = ("nginx.org/", "nginx.com/")
# About a host as a whole; the controller takes them of a master only.
OF_THE_HOST = frozenset(
    f"nginx.org/{name}"
    for name in (
        "redirect-to-https", "ssl-redirect", "http-redirect-code", "hsts", "hsts-max-age",
        "hsts-include-subdomains", "hsts-behind-proxy", "server-tokens", "listen-ports", "listen-ports-ssl",
        "server-snippets", "ssl-ciphers", "ssl-prefer-server-ciphers", "app-root", "proxy-hide-headers",
        "proxy-pass-headers",
    )
)  # fmt: skip


def build_ingresses(
    app: App, ingress: Ingress, *, shared: Collection[str] = (), left_out: Collection[str] = ()
) -> list[Manifest]:
    """Return the Ingresses for all hosts but those `left_out`; `shared` ones are shared with other apps.

    Those of shared hosts come first: the app's own Ingress gives up a host when they are there.
    """
    hosts = [host for host in ingress.hosts if host not in left_out]
    manifests = []
    for host in hosts:
        if host in shared:
            manifests += [build_master(app, ingress, host), build_minion(app, ingress, host)]
    alone = [host for host in hosts if host not in shared]
    if alone:
        manifests.append(build_own(app, ingress, alone))
    return manifests


def is_of_the_host(annotation: str) -> bool:
    """Return whether an annotation belongs to the Ingress with a host's name and TLS.

    Those of other controllers may, and do: cert-manager makes the certificate of the Ingress that names the Secret.
    """
    return annotation in OF_THE_HOST or not annotation.startswith(OF_NGINX)


def build_own(app: App, ingress: Ingress, hosts: Sequence[str]) -> Manifest:
    manifest = build_base(app, ingress, [build_rule(app, ingress, host) for host in hosts])
    if ingress.tls_secret is not None:
        manifest["spec"]["tls"] = [{"hosts": list(hosts), "secretName": ingress.tls_secret}]
    manifest["metadata"]["annotations"] = {**nginx_annotations(app), **ingress.annotations}
    return manifest


def build_master(app: App, ingress: Ingress, host: str) -> Manifest:
    manifest = build_base(app, ingress, [{"host": host}])
    if ingress.tls_secret is not None:
        manifest["spec"]["tls"] = [{"hosts": [host], "secretName": ingress.tls_secret}]
    of_the_host = {n: v for n, v in ingress.annotations.items() if is_of_the_host(n)}
    manifest["metadata"]["name"] = master_name(app, host)
    manifest["metadata"]["annotations"] = {**of_the_host, TYPE_ANNOTATION: "master"}
    return manifest


def build_minion(app: App, ingress: Ingress, host: str) -> Manifest:
    manifest = build_base(app, ingress, [build_rule(app, ingress, host)])
    own = {**nginx_annotations(app), **ingress.annotations}
    manifest["metadata"]["name"] = minion_name(app, host)
    manifest["metadata"]["annotations"] = {
        **{name: value for name, value in own.items() if name not in OF_THE_HOST},
        TYPE_ANNOTATION: "minion",
    }
    return manifest


def build_base(app: App, ingress: Ingress, rules: list[Manifest]) -> Manifest:
    spec: Manifest = {"rules": rules}
    if ingress.class_name is not None:
        spec["ingressClassName"] = ingress.class_name
    return build_owned(app, "networking.k8s.io/v1", "Ingress", spec=spec)


def build_rule(app: App, ingress: Ingress, host: str) -> Manifest:
    # By name: the number may change, and while the Service has another one than the Ingress no request arrives.
    backend = {"service": {"name": app.name, "port": {"name": APP_PORT_NAME}}}
    exact, prefix = ["Exact", "Prefix"], ["Prefix"]
    paths = prefix_paths(ingress.path)
    kinds = exact if len(paths) > 1 else prefix
    return {
        "host": host,
        "http": {
            "paths": [
                {"path": path, "pathType": kind, "backend": backend}
                for path, kind in zip(paths, kinds, strict=True)
            ]
        },
    }


def prefix_paths(path: str) -> list[str]:
    """Return what routes `path` and all below it: itself, and itself with a slash.

    nginx takes a prefix by its letters: /shop alone would take /shopping away from another app.
    """
    return ["/"] if path == "/" else [path, f"{path}/"]


def master_name(app: App, host: str) -> str:
    return f"{app.name}.{digest_json(host)[:8]}.master"


def minion_name(app: App, host: str) -> str:
    """Return a name with a dot, which no app's own Ingress can have."""
    return f"{app.name}.{digest_json(host)[:8]}.minion"


def nginx_annotations(app: App) -> dict[str, str]:
    """Return settings for F5 NGINX Ingress Controller; others ignore them."""
    timeout_s = app.server.request_timeout_s
    return {
        # Idle connections to the pods, unless the server would close them under a request.
        "nginx.org/keepalive": "32" if app.server.keep_alive_s > NGINX_KEEP_ALIVE_S else "0",
        # A pod that vanished costs seconds, not nginx's minute.
        "nginx.org/proxy-connect-timeout": "5s",
        # The server answers 504 itself, with the stack in its log: nginx must not be first.
        "nginx.org/proxy-read-timeout": f"{timeout_s + MARGIN_S if timeout_s else NO_LIMIT_S}s",
        "nginx.org/proxy-send-timeout": f"{timeout_s + MARGIN_S if timeout_s else NO_LIMIT_S}s",
        # Readiness decides which pods get requests; one broken connection says nothing of a pod.
        "nginx.org/max-fails": "3",
        "nginx.org/fail-timeout": "5s",
        "nginx.org/client-max-body-size": str(app.server.max_request_body_bytes),
    }
