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
REVISION_ANNOTATION = (
    "wsgi.dev/revision"  # the app's own part of the template; last good copies are bound to it
)
# On pods, by the operator.
RELOAD_ANNOTATION = "wsgi.dev/reload"  # the reload request
RELOAD_STARTED_ANNOTATION = "wsgi.dev/reload-started"  # when it was made, RFC 3339
RELOAD_BEFORE_ANNOTATION = "wsgi.dev/reload-before"  # JSON: how the pod was when it was made
# On owned resources.
PODS_ANNOTATION = (
    "wsgi.dev/pods"  # on the Deployment: digest of what its template's spec says of pods
)
APPLIED_ANNOTATION = "wsgi.dev/applied"  # hash of the manifest that was last applied
# On Leases.
INSTALLATION_ANNOTATION = "wsgi.dev/installation"  # whose holder it is: NAMESPACE/RELEASE

APP_CONTAINER = "app"
AGENT_CONTAINER = "agent"
APP_PORT = 8000
APP_PORT_NAME = "http"
AGENT_PORT = 9000
AGENT_PORT_NAME = "metrics"
AGENT_OPTIONS_VARIABLE = (
    "PREFORK_AGENT_OPTIONS"  # JSON: what an older agent does not know, and ignores
)

CONTENT_VOLUME_PREFIX = "content-"
LAST_GOOD_VOLUME_PREFIX = "last-good-"
VERSIONS_VOLUME = "versions"
DIGEST_KEY_VOLUME = "digest-key"
LAST_GOOD_KEY = "wsgi.dev.last-good"  # in a last good copy: what it is good for
SOURCE = "source"  # the code's name among the contents; no config entry may take it
RUN_DIR = "/run/prefork"
PREFORK_DIR = "/prefork"
RELOAD_DIR = "/podinfo"
RELOAD_FILE = f"{RELOAD_DIR}/reload"
CONTENT_DIR = (
    "/content"  # the contents by name and version, as the agent keeps them and the app boots them
)
LIVE_DIR = "live"  # in a content's folder there: what is mounted at its mountPath
MOUNTED_DIR = "/mounted"  # the contents by name, as the agent sees the kubelet change them
LAST_GOOD_DIR = "/last-good"  # the last good copies by name, likewise
DIGEST_KEY_DIR = "/digest-key"  # the Secret with the key of digests, in the agent
DIGEST_KEY_FIELD = "key"  # in that Secret


def last_good_name(app: str, content: str) -> str:
    """Return the name of the ConfigMap with the last good copy of a content.

    Neither name has a dot in it, so no two pairs have one name, as shop-x and source, shop and x-source would.
    """
    return f"{app}.{content}.last-good"


def digest_key_name(app: str) -> str:
    """Return the name of the Secret with the key of the digests of what an app's Secrets hold."""
    return f"{app}-digest-key"


def config_variable(name: str) -> str:
    """Return the variable that gives the app the path of a config entry."""
    return "WSGIAPP_CONFIG_" + name.upper().replace("-", "_")
