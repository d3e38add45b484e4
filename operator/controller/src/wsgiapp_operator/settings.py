"""The operator's settings: flags and environment, read once."""

import argparse
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

DEFAULT_IMAGE = "wsgiapp/prefork:0.1.0"
LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")


@dataclass(frozen=True, kw_only=True)
class Settings:
    namespaces: tuple[str, ...]  # none: all
    prefork_image: str
    prefork_pull_policy: str
    prefork_pull_secrets: tuple[str, ...]
    delivery: str
    upgrades_at_a_time: int
    reads_secrets: bool
    pod_id: int | None  # None: the cluster assigns user and group
    ingress_annotations: tuple[str, ...]  # patterns; none: all
    listen: str
    any_address: str  # in the apps' pods
    lease_namespace: str
    lease_role: str  # "": nothing takes the Leases away
    identity: str
    installation: str
    log_level: str
    log_format: str


def read_settings(
    arguments: Sequence[str] | None, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Return the settings; a flag wins over its variable. Exits with a message on a wrong one."""
    parser = argparse.ArgumentParser(
        prog="wsgiapp-operator", description="Keeps WsgiApps as they are declared."
    )

    def add(
        flag: str, variable: str, default: str, text: str, choices: Sequence[str] | None = None
    ) -> None:
        # An empty variable is one that a template left empty.
        empty = "all" if flag in ("--namespaces", "--ingress-annotations") else "none"
        value = environ.get(variable) or default
        parser.add_argument(
            flag, default=value, choices=choices, help=f"{text} ({variable}; {value or empty})"
        )

    add("--namespaces", "WSGIAPP_OPERATOR_NAMESPACES", "", "namespaces to watch, comma separated")
    add("--prefork-image", "WSGIAPP_OPERATOR_PREFORK_IMAGE", DEFAULT_IMAGE, "image with the server")
    add(
        "--prefork-pull-policy", "WSGIAPP_OPERATOR_PREFORK_PULL_POLICY", "IfNotPresent",
        "when nodes pull it", ("Always", "IfNotPresent", "Never"),
    )  # fmt: skip
    add(
        "--prefork-pull-secrets", "WSGIAPP_OPERATOR_PREFORK_PULL_SECRETS", "",
        "Secrets in the apps' namespaces to pull it with, comma separated",
    )  # fmt: skip
    add(
        "--prefork-delivery", "WSGIAPP_OPERATOR_PREFORK_DELIVERY", "auto",
        "how pods get the server: image volume, copy by an init container, or what every node can do",
        ("auto", "image", "copy"),
    )  # fmt: skip
    add(
        "--upgrades-at-a-time", "WSGIAPP_OPERATOR_UPGRADES_AT_A_TIME", "5",
        "apps whose pods a new version of operator or cluster changes at the same time",
    )  # fmt: skip
    add(
        "--secrets", "WSGIAPP_OPERATOR_SECRETS", "read",
        "whether the Secrets that WsgiApps name are read; none: the operator has no permission to",
        ("read", "none"),
    )  # fmt: skip
    add(
        "--pod-id", "WSGIAPP_OPERATOR_POD_ID", "10001",
        "user and group of apps' pods that name none; cluster: the cluster assigns them (OpenShift)",
    )  # fmt: skip
    add(
        "--ingress-annotations", "WSGIAPP_OPERATOR_INGRESS_ANNOTATIONS", "",
        "what spec.ingress.annotations may have, comma separated, * for any characters",
    )  # fmt: skip
    add(
        "--listen", "WSGIAPP_OPERATOR_LISTEN", f"{any_address(environ)}:8080",
        "HOST:PORT of /metrics, /healthz, /readyz",
    )  # fmt: skip
    add(
        "--lease-namespace", "WSGIAPP_OPERATOR_LEASE_NAMESPACE", "kube-system",
        "where the Leases are, the same for all installations in the cluster",
    )  # fmt: skip
    add(
        "--lease-role", "WSGIAPP_OPERATOR_LEASE_ROLE", "",
        "Role in that namespace with which the Leases go when it is deleted",
    )  # fmt: skip
    # Two that run on one machine are not one holder.
    identity = f"{socket.gethostname()}-{secrets.token_hex(4)}"
    add("--identity", "POD_NAME", identity, "holder's name in the Lease")
    add(
        "--installation", "WSGIAPP_OPERATOR_INSTALLATION", "default/wsgiapp-operator",
        "NAMESPACE/RELEASE of this installation, by which another one is told from another replica",
    )  # fmt: skip
    add("--log-level", "WSGIAPP_OPERATOR_LOG_LEVEL", "info", "least level that is logged", LEVELS)
    add("--log-format", "WSGIAPP_OPERATOR_LOG_FORMAT", "text", "what a log line is", FORMATS)
    values = parser.parse_args(arguments)
    host, _, port = values.listen.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        parser.error(f"--listen is {values.listen!r}; use HOST:PORT, such as 0.0.0.0:8080")
    if values.pod_id != "cluster" and not (values.pod_id.isdigit() and int(values.pod_id) > 0):
        parser.error(f"--pod-id is {values.pod_id!r}; use a number from 1, or cluster")
    at_a_time = values.upgrades_at_a_time
    if not (at_a_time.isdigit() and int(at_a_time) > 0):
        parser.error(f"--upgrades-at-a-time is {at_a_time!r}; use a number from 1")
    return Settings(
        namespaces=split(values.namespaces),
        prefork_image=values.prefork_image,
        prefork_pull_policy=values.prefork_pull_policy,
        prefork_pull_secrets=split(values.prefork_pull_secrets),
        delivery=values.prefork_delivery,
        upgrades_at_a_time=int(at_a_time),
        reads_secrets=values.secrets == "read",
        pod_id=None if values.pod_id == "cluster" else int(values.pod_id),
        ingress_annotations=split(values.ingress_annotations),
        listen=values.listen,
        any_address=any_address(environ),
        lease_namespace=values.lease_namespace,
        lease_role=values.lease_role,
        identity=values.identity,
        installation=values.installation,
        log_level=values.log_level,
        log_format=values.log_format,
    )


def any_address(environ: Mapping[str, str]) -> str:
    """Return what stands for all addresses of a pod, of the family that the cluster's pods and Services have first.

    Its API server has a Service address of that family. IPv4 is listened on in either case.
    """
    return "[::]" if ":" in environ.get("KUBERNETES_SERVICE_HOST", "") else "0.0.0.0"


def split(text: str) -> tuple[str, ...]:
    """Return the names of a comma separated list."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
