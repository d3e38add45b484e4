"""A WsgiApp as frozen values: parsed once, by `parse_app`, and never looked at as YAML again.

Knows the meaning of the spec, not what becomes of it (`resources/`) nor the cluster.
"""

import enum
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from wsgiapp.schema import Invalid, complete_spec

GROUP = "wsgi.dev"
VERSION = "v1alpha1"
KIND = "WsgiApp"
SOURCE = "source"  # the code's name among the contents; no config entry may take it

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}

Manifest = dict[str, Any]


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
class Server:
    """How prefork serves; sizes in bytes, 0 = no limit where the CRD says so."""

    workers: int | str
    threads: int
    request_timeout_s: int
    graceful_timeout_s: int
    keep_alive_s: int
    max_requests: int
    max_requests_jitter: int
    max_worker_memory_bytes: int
    max_request_body_bytes: int
    access_log: bool
    python: str
    extra_args: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Probes:
    path: str | None
    startup_timeout_s: int


@dataclass(frozen=True, kw_only=True)
class Ingress:
    class_name: str | None
    hosts: tuple[str, ...]
    path: str
    tls_secret: str | None
    annotations: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Reload:
    max_unavailable: int | str
    timeout_s: int

    def parallel(self, replicas: int) -> int:
        """Return how many of `replicas` pods may reload at a time, at least 1."""
        if isinstance(self.max_unavailable, int):
            return self.max_unavailable
        return max(1, replicas * int(self.max_unavailable.removesuffix("%")) // 100)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    max_surge: int | str
    max_unavailable: int | str
    min_ready_s: int
    progress_deadline_s: int
    drain_delay_s: int
    paused: bool


@dataclass(frozen=True, kw_only=True)
class App:
    """One WsgiApp. `env`, `env_from` and `resources` are as in a pod."""

    name: str
    namespace: str
    uid: str
    generation: int
    image: str
    image_pull_policy: str | None
    image_pull_secrets: tuple[str, ...]
    callable: str
    source: Content | None
    config: tuple[Content, ...]
    replicas: int
    server: Server
    env: Sequence[Manifest]
    env_from: Sequence[Manifest]
    probes: Probes
    resources: Manifest
    ingress: Ingress | None
    reload: Reload
    rollout: Rollout

    @property
    def contents(self) -> tuple[Content, ...]:
        """All mounted contents, the source first."""
        return ((self.source,) if self.source else ()) + self.config

    @property
    def reloadable(self) -> tuple[Content, ...]:
        """The contents whose change is brought to running pods by a reload."""
        return tuple(c for c in self.contents if c.on_change is OnChange.RELOAD)

    @property
    def url(self) -> str:
        """Where the app is reached: through its first host, or inside the cluster."""
        if self.ingress is None:
            return f"http://{self.name}.{self.namespace}.svc"
        scheme = "https" if self.ingress.tls_secret else "http"
        return f"{scheme}://{self.ingress.hosts[0]}{self.ingress.path}"


def parse_app(manifest: Mapping[str, Any]) -> App:
    """Return the App that `manifest`, a WsgiApp as read from YAML or the API server, declares.

    Raises Invalid where the CRD's schema does not hold.
    """
    metadata = manifest.get("metadata") or {}
    if not metadata.get("name"):
        raise Invalid("metadata.name", "is missing; name the app")
    spec = complete_spec(manifest.get("spec"))
    rollout, probes = spec["rollout"], spec["probes"]
    return App(
        name=metadata["name"],
        namespace=metadata.get("namespace", "default"),
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        image=spec["image"],
        image_pull_policy=spec.get("imagePullPolicy"),
        image_pull_secrets=tuple(item["name"] for item in spec.get("imagePullSecrets", ())),
        callable=spec["app"],
        source=parse_source(spec.get("source")),
        config=tuple(
            parse_config(item, f"spec.config[{i}]") for i, item in enumerate(spec.get("config", ()))
        ),
        replicas=spec["replicas"],
        server=parse_server(spec["server"]),
        env=tuple(spec.get("env", ())),
        env_from=tuple(spec.get("envFrom", ())),
        probes=Probes(path=probes.get("path"), startup_timeout_s=probes["startupTimeoutSeconds"]),
        resources=spec.get("resources", {}),
        ingress=parse_ingress(spec.get("ingress")),
        reload=Reload(
            max_unavailable=spec["reload"]["maxUnavailable"],
            timeout_s=spec["reload"]["timeoutSeconds"],
        ),
        rollout=Rollout(
            max_surge=rollout["maxSurge"],
            max_unavailable=rollout["maxUnavailable"],
            min_ready_s=rollout["minReadySeconds"],
            progress_deadline_s=rollout["progressDeadlineSeconds"],
            drain_delay_s=rollout["drainDelaySeconds"],
            paused=rollout["paused"],
        ),
    )


def parse_source(source: Manifest | None) -> Content | None:
    if source is None:
        return None
    return Content(
        name=SOURCE,
        ref=Ref("ConfigMap", source["configMap"]["name"]),
        mount_path=source["mountPath"],
        on_change=OnChange.RELOAD,
    )


def parse_config(item: Manifest, path: str) -> Content:
    refs = [
        Ref(kind, item[field]["name"])
        for field, kind in (("configMap", "ConfigMap"), ("secret", "Secret"))
        if field in item
    ]
    if len(refs) != 1:
        raise Invalid(path, f"has {len(refs)} of configMap and secret; use exactly one")
    if item["name"] == SOURCE:
        raise Invalid(f"{path}.name", f"is '{SOURCE}', which is the code's own; use another name")
    return Content(
        name=item["name"],
        ref=refs[0],
        mount_path=item["mountPath"],
        on_change=OnChange(item["onChange"]),
    )


def parse_server(server: Manifest) -> Server:
    workers = server["workers"]
    if workers != "auto" and not (isinstance(workers, int) and 1 <= workers <= 512):
        raise Invalid("spec.server.workers", f"is {workers}; use 1 to 512, or auto")
    return Server(
        workers=workers,
        threads=server["threads"],
        request_timeout_s=server["requestTimeoutSeconds"],
        graceful_timeout_s=server["gracefulTimeoutSeconds"],
        keep_alive_s=server["keepAliveSeconds"],
        max_requests=server["maxRequests"],
        max_requests_jitter=server["maxRequestsJitter"],
        max_worker_memory_bytes=parse_bytes(
            server.get("maxWorkerMemory", 0), "spec.server.maxWorkerMemory"
        ),
        max_request_body_bytes=parse_bytes(server["maxRequestBody"], "spec.server.maxRequestBody"),
        access_log=server["accessLog"] == "json",
        python=server["python"],
        extra_args=tuple(server.get("extraArgs", ())),
    )


def parse_ingress(ingress: Manifest | None) -> Ingress | None:
    if ingress is None:
        return None
    return Ingress(
        class_name=ingress.get("className"),
        hosts=tuple(ingress["hosts"]),
        path=ingress["path"],
        tls_secret=ingress["tls"]["secretName"] if "tls" in ingress else None,
        annotations=ingress.get("annotations", {}),
    )


def parse_bytes(quantity: int | str, field: str) -> int:
    """Return a quantity such as 512Ki, 16Mi or 1048576 in bytes."""
    match = re.fullmatch(r"(\d+)(Ki|Mi|Gi|k|M|G)?", str(quantity))
    if match is None:
        raise Invalid(field, f"is {quantity}; use bytes or a quantity as 512Ki, 16Mi, 1Gi")
    return int(match[1]) * UNITS[match[2] or ""]
