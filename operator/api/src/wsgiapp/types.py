"""A WsgiApp as frozen values: parsed once, by `parse_app`, and never looked at as YAML again.

Knows the meaning of the spec, not what becomes of it (`resources/`) nor the cluster.
"""

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Manifest = dict[str, Any]

HTTP_PORT = 80
# Of a reload, besides the boot of the new generation: the kubelet brings the files within a minute, and the
# generation shows its health.
AROUND_BOOT_S = 60


class OnChange(enum.Enum):
    """What becomes of pods when a config entry changes."""

    RELOAD = "Reload"
    RESTART = "Restart"
    IGNORE = "Ignore"


class Ref(NamedTuple):
    """A ConfigMap or Secret in the app's namespace."""

    kind: str
    name: str


@dataclass(frozen=True, kw_only=True)
class Content:
    """A ConfigMap or Secret that is mounted as a folder: the source, or one entry of `config`."""

    name: str
    ref: Ref
    mount_path: str
    on_change: OnChange


@dataclass(frozen=True, kw_only=True)
class EnvSource:
    """A ConfigMap or Secret whose keys are environment variables: an entry of `envFrom`."""

    ref: Ref
    on_change: OnChange
    pod_field: Manifest  # the entry, as a pod has it


@dataclass(frozen=True, kw_only=True)
class Server:
    """How prefork serves; sizes in bytes, 0 = no limit where the CRD says so."""

    workers: int | str
    worker_class: str
    threads: int
    request_timeout_s: int
    graceful_timeout_s: int
    keep_alive_s: int
    max_requests: int
    max_requests_jitter: int
    max_worker_memory_bytes: int
    max_request_body_bytes: int
    access_log: str  # the format; "" for none
    access_log_fields: tuple[str, ...]  # () for prefork's own choice
    hides_query_strings: bool
    log_format: str
    duration_buckets_s: tuple[float, ...]  # () for prefork's own choice
    keeps_exemplars: bool
    python: str
    config_file: str | None
    image: str | None  # None: the operator's own
    extra_args: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class HealthCheck:
    path: str | None
    startup_timeout_s: int


@dataclass(frozen=True, kw_only=True)
class Service:
    port: int
    type: str
    annotations: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Ingress:
    class_name: str | None
    hosts: tuple[str, ...]
    path: str
    tls_secret: str | None
    annotations: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Reload:
    max_concurrent: int | str
    timeout_s: int

    def parallel(self, replicas: int) -> int:
        """Return how many of `replicas` pods may reload at a time, at least 1."""
        if isinstance(self.max_concurrent, int):
            return self.max_concurrent
        return max(1, replicas * int(self.max_concurrent.removesuffix("%")) // 100)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    max_surge: int | str
    max_unavailable: int | str
    min_ready_s: int
    progress_deadline_s: int
    paused: bool


@dataclass(frozen=True, kw_only=True)
class Termination:
    drain_delay_s: int


@dataclass(frozen=True, kw_only=True)
class DisruptionBudget:
    """How many pods node drains take at a time; at most one of the two bounds is set."""

    enabled: bool
    max_unavailable: int | str | None
    min_available: int | str | None


@dataclass(frozen=True, kw_only=True)
class Security:
    """Ids of the pod; None is left to the installation (`Platform.pod_id`)."""

    run_as_user: int | None
    run_as_group: int | None
    fs_group: int | None


@dataclass(frozen=True, kw_only=True)
class App:
    """One WsgiApp. `env` and the resources are as in a pod."""

    name: str
    namespace: str
    uid: str
    generation: int
    own_digest: str  # of what is the app's own in its pods, as it is written; not what an operator upgrade changes
    pods_digest: str  # of all that the spec says of pods; another one is a change by the user
    image: str
    image_pull_policy: str | None
    image_pull_secrets: tuple[str, ...]
    callable: str
    source: Content | None
    config: tuple[Content, ...]
    replicas: int
    server: Server
    env: Sequence[Manifest]
    env_from: tuple[EnvSource, ...]
    health_check: HealthCheck
    resources: Manifest
    agent_resources: Manifest
    pod_template: Manifest
    service: Service
    ingress: Ingress | None
    reload: Reload
    rollout: Rollout
    termination: Termination
    disruption_budget: DisruptionBudget
    security: Security

    @property
    def contents(self) -> tuple[Content, ...]:
        """All mounted contents, the source first."""
        return ((self.source,) if self.source else ()) + self.config

    @property
    def reloadable(self) -> tuple[Content, ...]:
        """The contents whose change is brought to running pods by a reload."""
        return tuple(c for c in self.contents if c.on_change is OnChange.RELOAD)

    @property
    def restart_refs(self) -> Mapping[str, Ref]:
        """What restarts the pods by its change, by names of its own: config entries, and `envFrom`."""
        config = {c.name: c.ref for c in self.config if c.on_change is OnChange.RESTART}
        env = {
            f"envFrom/{source.ref.kind}/{source.ref.name}": source.ref
            for source in self.env_from
            if source.on_change is OnChange.RESTART
        }
        return config | env

    @property
    def pinned(self) -> tuple[Content, ...]:
        """The contents of which pods keep versions; what the app itself rereads is mounted as it is."""
        return tuple(c for c in self.contents if c.on_change is not OnChange.IGNORE)

    @property
    def copied(self) -> tuple[Content, ...]:
        """The contents of which a last good copy is kept: no copies of Secrets lie around."""
        return tuple(c for c in self.pinned if c.ref.kind == "ConfigMap")

    @property
    def secret_contents(self) -> tuple[Content, ...]:
        """The pinned contents that are Secrets: pods name what they hold by keyed digests."""
        return tuple(c for c in self.pinned if c.ref.kind == "Secret")

    @property
    def named_secrets(self) -> frozenset[Ref]:
        """The Secrets whose content decides about the app: contents, what restarts it, and TLS."""
        refs = {c.ref for c in self.contents} | set(self.restart_refs.values())
        if self.ingress is not None and self.ingress.tls_secret is not None:
            refs.add(Ref("Secret", self.ingress.tls_secret))
        return frozenset(ref for ref in refs if ref.kind == "Secret")

    @property
    def reload_limit_s(self) -> int:
        """How long a pod's reload may take before it has failed.

        The server ends a boot by `startupTimeoutSeconds`. A limit that is over before that would call a reload
        failed that succeeds a moment later.
        """
        return max(self.reload.timeout_s, self.health_check.startup_timeout_s + AROUND_BOOT_S)

    @property
    def service_url(self) -> str:
        """Where the app is reached inside the cluster."""
        port = "" if self.service.port == HTTP_PORT else f":{self.service.port}"
        return f"http://{self.name}.{self.namespace}.svc{port}"
