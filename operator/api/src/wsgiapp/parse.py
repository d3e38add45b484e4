"""From a WsgiApp manifest to an App: checked against the CRD's schema, defaults filled in."""

import re
from collections.abc import Mapping
from typing import Any

from wsgiapp.digest import digest_json
from wsgiapp.names import SOURCE
from wsgiapp.overlay import find_faults
from wsgiapp.schema import (
    Invalid,
    complete_spec,
    load_spec_schema,
    refuse,
    without_defaults,
)
from wsgiapp.types import (
    App,
    Content,
    DisruptionBudget,
    EnvSource,
    HealthCheck,
    Ingress,
    Manifest,
    OnChange,
    Ref,
    Reload,
    Rollout,
    Security,
    Server,
    Service,
    Termination,
)

OWN_PART = (
    "image", "app", "source", "config", "server", "env", "envFrom", "podTemplate", "securityContext"
)  # fmt: skip
NOT_OF_PODS = frozenset({"replicas", "service", "reload", "rollout", "disruptionBudget"})
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def parse_app(manifest: Mapping[str, Any]) -> App:
    """Return the App that `manifest`, a WsgiApp as read from YAML or the API server, declares.

    Raises Invalid where the CRD's schema does not hold.
    """
    metadata = manifest.get("metadata") or {}
    if not metadata.get("name"):
        raise Invalid("metadata.name", "is missing; name the app")
    spec = complete_spec(manifest.get("spec"))
    rollout, health_check = spec["rollout"], spec["healthCheck"]
    return App(
        name=metadata["name"],
        namespace=metadata.get("namespace", "default"),
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
        own_digest=digest_own_part(metadata["name"], spec),
        pods_digest=digest_pods_part(spec),
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
        env_from=tuple(
            parse_env_source(item, f"spec.envFrom[{i}]")
            for i, item in enumerate(spec.get("envFrom", ()))
        ),
        health_check=HealthCheck(
            path=health_check.get("path"),
            startup_timeout_s=health_check["startupTimeoutSeconds"],
        ),
        resources=spec.get("resources", {}),
        agent_resources=spec["agent"]["resources"],
        pod_template=parse_pod_template(spec.get("podTemplate", {})),
        service=parse_service(spec["service"]),
        ingress=parse_ingress(spec.get("ingress")),
        reload=Reload(
            max_concurrent=spec["reload"]["maxConcurrent"],
            timeout_s=spec["reload"]["timeoutSeconds"],
        ),
        rollout=Rollout(
            max_surge=rollout["maxSurge"],
            max_unavailable=rollout["maxUnavailable"],
            min_ready_s=rollout["minReadySeconds"],
            progress_deadline_s=rollout["progressDeadlineSeconds"],
            paused=rollout["paused"],
        ),
        termination=Termination(drain_delay_s=spec["termination"]["drainDelaySeconds"]),
        disruption_budget=parse_disruption_budget(spec["disruptionBudget"]),
        security=Security(
            run_as_user=spec["securityContext"].get("runAsUser"),
            run_as_group=spec["securityContext"].get("runAsGroup"),
            fs_group=spec["securityContext"].get("fsGroup"),
        ),
    )


def digest_own_part(name: str, spec: Manifest) -> str:
    """Return the digest of what code has to fit: image, server, environment and the like.

    Without defaults, so that a field which a later version of the API adds changes nothing.
    """
    written = without_defaults(spec, load_spec_schema())
    own = {field: written[field] for field in OWN_PART if field in written}
    return digest_json([name, own, spec["healthCheck"].get("path")])


def digest_pods_part(spec: Manifest) -> str:
    """Return the digest of all that may say something of the pods, as it is written."""
    written = without_defaults(spec, load_spec_schema())
    return digest_json({field: written[field] for field in written.keys() - NOT_OF_PODS})


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
    ref = parse_ref(item, path, {"configMap": "ConfigMap", "secret": "Secret"})
    if item["name"] == SOURCE:
        raise Invalid(f"{path}.name", f"is '{SOURCE}', which is the code's own; use another name")
    return Content(
        name=item["name"],
        ref=ref,
        mount_path=item["mountPath"],
        on_change=OnChange(item["onChange"]),
    )


def parse_env_source(item: Manifest, path: str) -> EnvSource:
    return EnvSource(
        ref=parse_ref(item, path, {"configMapRef": "ConfigMap", "secretRef": "Secret"}),
        on_change=OnChange(item["onChange"]),
        pod_field={name: value for name, value in item.items() if name != "onChange"},
    )


def parse_ref(item: Manifest, path: str, kinds: Mapping[str, str]) -> Ref:
    """Return the one object that `item` names in a field of `kinds`."""
    refs = [Ref(kind, item[field]["name"]) for field, kind in kinds.items() if field in item]
    if len(refs) != 1:
        raise Invalid(path, f"has {len(refs)} of {' and '.join(kinds)}; use exactly one")
    return refs[0]


def parse_server(server: Manifest) -> Server:
    workers = server["workers"]
    if workers != "auto" and not (isinstance(workers, int) and 1 <= workers <= 512):
        raise Invalid("spec.server.workers", f"is {workers}; use 1 to 512, or auto")
    return Server(
        workers=workers,
        worker_class=server["workerClass"],
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
        access_log="" if server["accessLog"] == "None" else server["accessLog"].lower(),
        access_log_fields=tuple(server.get("accessLogFields", ())),
        hides_query_strings=server["hideQueryStrings"],
        log_format=server["logFormat"].lower(),
        duration_buckets_s=tuple(server.get("durationBucketsSeconds", ())),
        keeps_exemplars=server["exemplars"],
        python=server["python"],
        config_file=server.get("configFile"),
        image=server.get("image"),
        extra_args=tuple(server.get("extraArgs", ())),
    )


def parse_pod_template(template: Manifest) -> Manifest:
    refuse(Invalid(*fault) for fault in find_faults(template))
    return template


def parse_disruption_budget(budget: Manifest) -> DisruptionBudget:
    return DisruptionBudget(
        enabled=budget["enabled"],
        max_unavailable=budget.get("maxUnavailable"),
        min_available=budget.get("minAvailable"),
    )


def parse_service(service: Manifest) -> Service:
    return Service(
        port=service["port"],
        type=service["type"],
        annotations=service.get("annotations", {}),
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
        raise Invalid(field, f"is {quantity}; use bytes or a quantity such as 512Ki, 16Mi or 1Gi")
    return int(match[1]) * UNITS[match[2] or ""]
