"""Names that other parts rely on (docs/contracts.md): the API's, labels, annotations, ports, paths.

A change here changes what running pods, the server and other people's queries see.
"""

GROUP = "wsgi.dev"
VERSION = "v1alpha1"
KIND = "WsgiApp"
API_VERSION = f"{GROUP}/{VERSION}"

FIELD_MANAGER = "wsgiapp-operator"
APP_LABEL = "wsgi.dev/app"  # selects an app's pods
NAME_LABEL = "app.kubernetes.io/name"
MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = FIELD_MANAGER
# What a WsgiApp becomes; pods belong to the Deployment.
OWNED_KINDS = ("ServiceAccount", "Service", "PodDisruptionBudget", "Deployment", "Ingress")
OWNED_SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY},{APP_LABEL}"

# On the Deployment's template and so on pods.
TEMPLATE_ANNOTATION = "wsgi.dev/template"  # names the template that a pod was made from
RESTART_ANNOTATION = "wsgi.dev/restart"  # digests of contents whose change replaces the pods
# On pods, by the operator.
RELOAD_ANNOTATION = "wsgi.dev/reload"  # the reload request
RELOAD_STARTED_ANNOTATION = "wsgi.dev/reload-started"  # when it was made, RFC 3339
# On owned resources.
APPLIED_ANNOTATION = "wsgi.dev/applied"  # hash of the manifest that was last applied

APP_CONTAINER = "app"
AGENT_CONTAINER = "agent"
APP_PORT = 8000
APP_PORT_NAME = "http"
AGENT_PORT = 9000
AGENT_PORT_NAME = "metrics"

CONTENT_VOLUME_PREFIX = "content-"
SOURCE = "source"  # the code's name among the contents; no config entry may take it
RUN_DIR = "/run/prefork"
PREFORK_DIR = "/prefork"
RELOAD_DIR = "/podinfo"
RELOAD_FILE = f"{RELOAD_DIR}/reload"
CONTENT_DIR = "/content"  # where the agent sees the contents, by name


def config_variable(name: str) -> str:
    """Return the variable that gives the app the path of a config entry."""
    return "WSGIAPP_CONFIG_" + name.upper().replace("-", "_")
