"""The Deployment: app container, agent beside it, and the volumes that they share.

docs/contracts.md §5 is the contract with the server. Everything passes the restricted Pod Security
Standard (https://kubernetes.io/docs/concepts/security/pod-security-standards/) on a read-only root.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from wsgiapp.digest import digest_json
from wsgiapp.resources.owned import build_child, labels, selector
from wsgiapp.types import App, Content, Manifest

APP_PORT = 8000
AGENT_PORT = 9000
TEMPLATE_ANNOTATION = "wsgi.dev/template"  # names the template that a pod was made from
RESTART_ANNOTATION = "wsgi.dev/restart"
RELOAD_ANNOTATION = "wsgi.dev/reload"  # the reload wish, on pods

# Any uid but root: images without a USER of their own run too.
UID = 10001
RUN_DIR = "/run/prefork"
STOP_MARGIN_S = 5
PROBE_MARGIN_S = 5
COPY_SERVER = "import shutil; shutil.copytree('/prefork', '/copy/prefork', dirs_exist_ok=True)"
CONFINED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


@dataclass(frozen=True, kw_only=True)
class Platform:
    """What the cluster and the installation give: the server's image, and how pods get at it."""

    prefork_image: str
    prefork_pull_policy: str
    image_volumes: bool  # on by default from Kubernetes 1.35


def build_deployment(app: App, platform: Platform, restart_digests: Mapping[str, str]) -> Manifest:
    """Return the desired Deployment; pure."""
    rollout = app.rollout
    spec = {
        "replicas": app.replicas,
        "selector": {"matchLabels": selector(app)},
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {
                "maxSurge": rollout.max_surge,
                "maxUnavailable": rollout.max_unavailable,
            },
        },
        "minReadySeconds": rollout.min_ready_s,
        "progressDeadlineSeconds": rollout.progress_deadline_s,
        "paused": rollout.paused,
        "revisionHistoryLimit": 3,
        "template": build_template(app, platform, restart_digests),
    }
    return build_child(app, "apps/v1", "Deployment", spec=spec)


def build_template(app: App, platform: Platform, restart_digests: Mapping[str, str]) -> Manifest:
    annotations = {"prometheus.io/scrape": "true", "prometheus.io/port": str(AGENT_PORT)}
    if restart_digests:
        annotations[RESTART_ANNOTATION] = json.dumps(dict(restart_digests), sort_keys=True)
    template: Manifest = {
        "metadata": {"labels": labels(app), "annotations": annotations},
        "spec": build_pod(app, platform),
    }
    annotations[TEMPLATE_ANNOTATION] = digest_json(template)
    return template


def read_restart_digests(deployment: Manifest) -> dict[str, str]:
    """Return the restart digests in a live Deployment's template."""
    annotations = deployment["spec"]["template"]["metadata"].get("annotations", {})
    try:
        return dict(json.loads(annotations.get(RESTART_ANNOTATION, "{}")))
    except ValueError:  # edited by hand: drift repair writes it anew
        return {}


def build_pod(app: App, platform: Platform) -> Manifest:
    stop_s = app.rollout.drain_delay_s + app.server.graceful_timeout_s + STOP_MARGIN_S
    pod: Manifest = {
        "serviceAccountName": app.name,
        "automountServiceAccountToken": False,
        # Variables such as PREFORK_SERVICE_HOST would be taken for settings of the server.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": stop_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": UID,
            "runAsGroup": UID,
            "fsGroup": UID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": build_init_containers(app, platform),
        "containers": [build_app_container(app)],
        "volumes": build_volumes(app, platform),
    }
    if app.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in app.image_pull_secrets]
    return pod


# -- the app container ------------------------------------------------------------------------


def build_app_container(app: App) -> Manifest:
    container: Manifest = {
        "name": "app",
        "image": app.image,
        "command": [app.server.python, "/prefork"],
        "args": server_arguments(app),
        "env": build_env(app),
        "ports": [{"name": "http", "containerPort": APP_PORT, "protocol": "TCP"}],
        "resources": app.resources,
        "volumeMounts": [
            # The only subPath: it never changes. Config mounts have none, or they would not refresh.
            {"name": "prefork", "mountPath": "/prefork", "subPath": "prefork", "readOnly": True},
            {"name": "run", "mountPath": RUN_DIR},
            {"name": "tmp", "mountPath": "/tmp"},
            *(mount_content(content, content.mount_path) for content in app.contents),
        ],
        "startupProbe": probe(
            "/readyz", period_s=1, failures=app.probes.startup_timeout_s + PROBE_MARGIN_S
        ),
        "readinessProbe": probe("/readyz", period_s=2, failures=3),
        "livenessProbe": probe("/livez", period_s=10, failures=3),
        "securityContext": CONFINED,
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }
    if app.source is not None:
        container["workingDir"] = app.source.mount_path
    if app.image_pull_policy is not None:
        container["imagePullPolicy"] = app.image_pull_policy
    if app.env_from:
        container["envFrom"] = list(app.env_from)
    if app.rollout.drain_delay_s:
        # The pod leaves the endpoints at once, the ingress some time later: serve until then.
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": app.rollout.drain_delay_s}}}
    return container


def server_arguments(
    app: App, *, bind: str = f"0.0.0.0:{APP_PORT}", run_dir: str = RUN_DIR
) -> list[str]:
    """Return prefork's command line behind `python3 /prefork`; `wsgiapp run` uses it as well."""
    server = app.server
    arguments = [
        f"--bind={bind}",
        f"--run-dir={run_dir}",
        f"--workers={server.workers}",
        f"--threads={server.threads}",
        f"--timeout={server.request_timeout_s}",
        f"--graceful-timeout={server.graceful_timeout_s}",
        f"--keep-alive={server.keep_alive_s}",
        f"--boot-timeout={app.probes.startup_timeout_s}",
        f"--max-request-body={server.max_request_body_bytes}",
    ]
    if server.max_requests:
        arguments += [
            f"--max-requests={server.max_requests}",
            f"--max-requests-jitter={server.max_requests_jitter}",
        ]
    if server.max_worker_memory_bytes:
        arguments.append(f"--max-worker-memory={server.max_worker_memory_bytes}")
    if server.access_log:
        arguments.append("--access-logfile=-")
    arguments += proxy_arguments(app)
    arguments += [f"--content={content.name}={content.mount_path}" for content in app.reloadable]
    return [*arguments, *server.extra_args, app.callable]


def proxy_arguments(app: App) -> list[str]:
    """Return what follows from an ingress in front: whom to believe, and where the app lives."""
    if app.ingress is None:
        return []
    arguments = []
    if app.ingress.path != "/":
        arguments.append(f"--script-name={app.ingress.path}")
    # The controller's pods have no fixed addresses. Who wants less says so in extraArgs.
    if not any(item.startswith("--forwarded-allow-ips") for item in app.server.extra_args):
        arguments.append("--forwarded-allow-ips=*")
    return arguments


def build_env(app: App) -> list[Manifest]:
    """Return the environment; what the WsgiApp sets wins, but for the paths of its config."""
    given = {variable["name"] for variable in app.env}
    # A read-only root and a uid without a home: libraries that write below ~ go to /tmp.
    # Unbuffered, or the last lines before a crash are never seen.
    defaults = [{"name": "HOME", "value": "/tmp"}, {"name": "PYTHONUNBUFFERED", "value": "1"}]
    paths = [
        {"name": config_variable(content.name), "value": content.mount_path}
        for content in app.config
    ]
    return [v for v in defaults if v["name"] not in given] + paths + list(app.env)


def config_variable(name: str) -> str:
    """Return the variable that tells the app where a config entry is mounted."""
    return "WSGIAPP_CONFIG_" + name.upper().replace("-", "_")


def probe(path: str, *, period_s: int, failures: int) -> Manifest:
    """Return a probe that asks the agent, which answers while every worker is busy."""
    return {
        "httpGet": {"path": path, "port": AGENT_PORT},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


# -- the agent and the server's files -----------------------------------------------------------


def build_init_containers(app: App, platform: Platform) -> list[Manifest]:
    """Return the native sidecar; before it a copy of the server where image volumes are missing."""
    agent = build_agent(app, platform)
    if platform.image_volumes:
        return [agent]
    copy = {
        "name": "prefork",
        "image": platform.prefork_image,
        "imagePullPolicy": platform.prefork_pull_policy,
        "command": ["python3", "-c", COPY_SERVER],
        "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "volumeMounts": [{"name": "prefork", "mountPath": "/copy"}],
        "securityContext": CONFINED,
    }
    return [copy, agent]


def build_agent(app: App, platform: Platform) -> Manifest:
    arguments = [
        f"--listen=0.0.0.0:{AGENT_PORT}",
        f"--run-dir={RUN_DIR}",
        "--reload-file=/podinfo/reload",
        *(f"--content={content.name}=/content/{content.name}" for content in app.reloadable),
    ]
    if app.probes.path is not None:
        prefix = app.ingress.path.rstrip("/") if app.ingress is not None else ""
        arguments.append(f"--probe=http://127.0.0.1:{APP_PORT}{prefix}{app.probes.path}")
        if app.ingress is not None and app.ingress.hosts:
            # An app that checks its Host (Django's ALLOWED_HOSTS) knows this one, and not 127.0.0.1.
            arguments.append(f"--probe-host={app.ingress.hosts[0].replace('*', 'probe')}")
    return {
        "name": "agent",
        "image": platform.prefork_image,
        "imagePullPolicy": platform.prefork_pull_policy,
        "restartPolicy": "Always",  # makes an init container a native sidecar
        "command": ["python3", "/prefork", "agent"],
        "args": arguments,
        "ports": [{"name": "metrics", "containerPort": AGENT_PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "10m", "memory": "48Mi"}, "limits": {"memory": "128Mi"}},
        "volumeMounts": [
            {"name": "run", "mountPath": RUN_DIR},
            {"name": "podinfo", "mountPath": "/podinfo", "readOnly": True},
            *(mount_content(content, f"/content/{content.name}") for content in app.reloadable),
        ],
        "securityContext": CONFINED,
    }


# -- volumes ----------------------------------------------------------------------------------


def build_volumes(app: App, platform: Platform) -> list[Manifest]:
    if platform.image_volumes:
        image = {"reference": platform.prefork_image, "pullPolicy": platform.prefork_pull_policy}
        server: Manifest = {"name": "prefork", "image": image}
    else:
        server = {"name": "prefork", "emptyDir": {"sizeLimit": "256Mi"}}
    wish = {
        "path": "reload",
        "fieldRef": {"fieldPath": f"metadata.annotations['{RELOAD_ANNOTATION}']"},
    }
    return [
        server,
        {"name": "run", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}},
        {"name": "tmp", "emptyDir": {}},
        {"name": "podinfo", "downwardAPI": {"items": [wish]}},
        *(content_volume(content) for content in app.contents),
    ]


def content_volume(content: Content) -> Manifest:
    volume: Manifest = {"name": f"content-{content.name}"}
    if content.ref.kind == "ConfigMap":
        return volume | {"configMap": {"name": content.ref.name}}
    return volume | {"secret": {"secretName": content.ref.name}}


def mount_content(content: Content, path: str) -> Manifest:
    return {"name": f"content-{content.name}", "mountPath": path, "readOnly": True}
