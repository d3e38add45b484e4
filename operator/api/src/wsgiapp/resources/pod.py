"""The pod: the app container, and the agent as a native sidecar.

docs/contracts.md §5 is the contract with the server. Everything passes the restricted Pod Security
Standard (https://kubernetes.io/docs/concepts/security/pod-security-standards/) on a read-only root.
"""

import json

from wsgiapp.names import (
    AGENT_CONTAINER,
    AGENT_OPTIONS_VARIABLE,
    AGENT_PORT,
    AGENT_PORT_NAME,
    APP_CONTAINER,
    APP_PORT,
    APP_PORT_NAME,
    CONTENT_DIR,
    DIGEST_KEY_DIR,
    DIGEST_KEY_FIELD,
    LAST_GOOD_DIR,
    MOUNTED_DIR,
    PREFORK_DIR,
    RELOAD_DIR,
    RELOAD_FILE,
    RUN_DIR,
    config_variable,
)
from wsgiapp.resources.platform import Platform
from wsgiapp.resources.server_args import (
    health_arguments,
    health_host,
    health_path,
    server_arguments,
)
from wsgiapp.resources.volumes import (
    build_volumes,
    mount_contents_in_agent,
    mount_contents_in_app,
)
from wsgiapp.types import App, Manifest

STOP_MARGIN_S = 5
PROBE_MARGIN_S = 5
COPY_SERVER = "import shutil; shutil.copytree('/prefork', '/copy/prefork', dirs_exist_ok=True)"
RESTRICTED_SECURITY_CONTEXT = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def build_pod(app: App, platform: Platform, revision: str) -> Manifest:
    """Return the pod's spec; `revision` names the app's own part of it."""
    stop_s = app.termination.drain_delay_s + app.server.graceful_timeout_s + STOP_MARGIN_S
    pod: Manifest = {
        "serviceAccountName": app.name,
        "automountServiceAccountToken": False,
        # Variables such as PREFORK_SERVICE_HOST would be taken for settings of the server.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": stop_s,
        "securityContext": build_security_context(app, platform),
        "initContainers": build_init_containers(app, platform, revision),
        "containers": [build_app_container(app, platform)],
        "volumes": build_volumes(app, platform),
    }
    pull_secrets = dict.fromkeys((*app.image_pull_secrets, *platform.prefork_pull_secrets))
    if pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in pull_secrets]
    return pod


def build_security_context(app: App, platform: Platform) -> Manifest:
    wanted = {
        "runAsUser": app.security.run_as_user,
        "runAsGroup": app.security.run_as_group,
        "fsGroup": app.security.fs_group,
    }
    ids = {name: platform.pod_id if value is None else value for name, value in wanted.items()}
    return {
        "runAsNonRoot": True,
        **{name: value for name, value in ids.items() if value is not None},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def build_app_container(app: App, platform: Platform) -> Manifest:
    bind = f"{platform.any_address}:{APP_PORT}"
    container: Manifest = {
        "name": APP_CONTAINER,
        "image": app.image,
        "command": [app.server.python, PREFORK_DIR],
        "args": server_arguments(app, bind=bind, further=health_arguments(app)),
        "env": build_env(app),
        "ports": [{"name": APP_PORT_NAME, "containerPort": APP_PORT, "protocol": "TCP"}],
        "resources": app.resources,
        "volumeMounts": [
            # A subPath is not refreshed by the kubelet: this never changes, and the agent changes the contents.
            {"name": "prefork", "mountPath": PREFORK_DIR, "subPath": "prefork", "readOnly": True},
            {"name": "run", "mountPath": RUN_DIR},
            {"name": "tmp", "mountPath": "/tmp"},
            *mount_contents_in_app(app),
        ],
        "startupProbe": probe(
            "/readyz", period_s=1, failures=app.health_check.startup_timeout_s + PROBE_MARGIN_S
        ),
        "readinessProbe": probe("/readyz", period_s=2, failures=3),
        # The agent answers for the server. A hung one is restarted by its own probe long before this
        # one gives up, so that the app outlives it.
        "livenessProbe": probe("/livez", period_s=10, failures=6),
        "securityContext": RESTRICTED_SECURITY_CONTEXT,
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
    }
    if app.source is not None:
        container["workingDir"] = app.source.mount_path
    if app.image_pull_policy is not None:
        container["imagePullPolicy"] = app.image_pull_policy
    if app.env_from:
        container["envFrom"] = [source.pod_field for source in app.env_from]
    if app.termination.drain_delay_s:
        # The pod leaves the endpoints at once, the ingress some time later: serve until then.
        container["lifecycle"] = {"preStop": {"sleep": {"seconds": app.termination.drain_delay_s}}}
    return container


def build_env(app: App) -> list[Manifest]:
    """Return the environment; what the WsgiApp sets wins, but for the paths of its config."""
    given = {variable["name"] for variable in app.env}
    # A read-only root and a uid without a name or home: libraries that write below ~ go to /tmp, and
    # getpass.getuser() finds no entry in /etc/passwd.
    # Unbuffered, or the last lines before a crash are never seen.
    defaults = [
        {"name": "HOME", "value": "/tmp"},
        {"name": "USER", "value": APP_CONTAINER},
        {"name": "PYTHONUNBUFFERED", "value": "1"},
    ]
    paths = [
        {"name": config_variable(content.name), "value": content.mount_path}
        for content in app.config
    ]
    return [v for v in defaults if v["name"] not in given] + paths + list(app.env)


def probe(path: str, *, period_s: int, failures: int) -> Manifest:
    """Return a probe that asks the agent, which answers while every worker is busy."""
    return {
        "httpGet": {"path": path, "port": AGENT_PORT},
        "periodSeconds": period_s,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def build_init_containers(app: App, platform: Platform, revision: str) -> list[Manifest]:
    """Return the native sidecar; before it a copy of the server where image volumes are missing."""
    agent = build_agent(app, platform, revision)
    if platform.image_volumes:
        return [agent]
    copy = {
        "name": "prefork",
        "image": platform.prefork_image,
        "imagePullPolicy": platform.prefork_pull_policy,
        "command": ["python3", "-c", COPY_SERVER],
        "resources": app.agent_resources,
        "volumeMounts": [{"name": "prefork", "mountPath": "/copy"}],
        "securityContext": RESTRICTED_SECURITY_CONTEXT,
    }
    return [copy, agent]


def build_agent(app: App, platform: Platform, revision: str) -> Manifest:
    arguments = [
        f"--listen={platform.any_address}:{AGENT_PORT}",
        f"--run-dir={RUN_DIR}",
        f"--reload-file={RELOAD_FILE}",
        *(f"--content={content.name}={MOUNTED_DIR}/{content.name}" for content in app.pinned),
        *(f"--last-good={content.name}={LAST_GOOD_DIR}/{content.name}" for content in app.copied),
    ]
    if app.pinned:
        arguments += [f"--versions={CONTENT_DIR}", f"--revision={revision}"]
    if app.health_check.path is not None:
        arguments.append(f"--probe=http://127.0.0.1:{APP_PORT}{health_path(app)}")
        if app.ingress is not None:
            arguments.append(f"--probe-host={health_host(app)}")
    agent: Manifest = {
        "name": AGENT_CONTAINER,
        "image": platform.prefork_image,
        "imagePullPolicy": platform.prefork_pull_policy,
        "restartPolicy": "Always",  # makes an init container a native sidecar
        "command": ["python3", PREFORK_DIR, "agent"],
        "args": arguments,
        "env": [{"name": AGENT_OPTIONS_VARIABLE, "value": agent_options(app)}],
        "livenessProbe": {
            # /livez speaks for the server: while that crashes, the agent is not to be restarted.
            **probe("/metrics", period_s=5, failures=3),
            # A stopped process ignores SIGTERM; waiting for the pod's own grace would take the app along.
            "terminationGracePeriodSeconds": 5,
        },
        "ports": [{"name": AGENT_PORT_NAME, "containerPort": AGENT_PORT, "protocol": "TCP"}],
        "resources": app.agent_resources,
        "volumeMounts": [
            {"name": "run", "mountPath": RUN_DIR},
            {"name": "podinfo", "mountPath": RELOAD_DIR, "readOnly": True},
            *mount_contents_in_agent(app),
        ],
        "securityContext": RESTRICTED_SECURITY_CONTEXT,
    }
    if app.pinned:
        # It answers when the contents are in place; the kubelet starts the app's container after that.
        agent["startupProbe"] = probe("/metrics", period_s=1, failures=60)
    return agent


def agent_options(app: App) -> str:
    """Return what agents later than 0.1.0 know, and others ignore: `spec.server.image` may pin an older one.

    An argument that an agent does not know would keep its pod from starting (docs/contracts.md §5).
    """
    options: dict[str, object] = {"log-format": app.server.log_format}
    if app.secret_contents:
        options["secret"] = [content.name for content in app.secret_contents]
        options["digest-key"] = f"{DIGEST_KEY_DIR}/{DIGEST_KEY_FIELD}"
    return json.dumps(options, sort_keys=True)
