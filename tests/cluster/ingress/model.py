"""(Ingresses, Services, EndpointSlices) → the sites nginx shall serve. Pure.

Only endpoints that are `ready` count, as with the F5 controller: a terminating pod leaves at the next reload.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

Manifest = Mapping[str, Any]

CLASS = "nginx"
CLASS_ANNOTATION = "kubernetes.io/ingress.class"
PREFIX = "nginx.org/"

_NUMBER = re.compile(r"\d{1,6}")
_TIME = re.compile(r"\d{1,6}(ms|s|m|h)?")
_SIZE = re.compile(r"\d{1,9}[kKmMgG]?")
_SWITCH = re.compile(r"on|off|true|false|True|False")
_WORDS = re.compile(r"[a-z0-9_]+( [a-z0-9_]+)*")
_TEXT = re.compile(r"[^\0]*", re.DOTALL)
# annotation → what its value must look like
ANNOTATIONS = {
    "keepalive": _NUMBER,
    "proxy-connect-timeout": _TIME,
    "proxy-read-timeout": _TIME,
    "proxy-send-timeout": _TIME,
    "proxy-next-upstream": _WORDS,
    "proxy-next-upstream-timeout": _TIME,
    "proxy-next-upstream-tries": _NUMBER,
    "max-fails": _NUMBER,
    "fail-timeout": _TIME,
    "client-max-body-size": _SIZE,
    "proxy-buffering": _SWITCH,
    "proxy-buffer-size": _SIZE,
    "redirect-to-https": _SWITCH,
    "hsts": _SWITCH,
    "lb-method": _WORDS,
    "server-snippets": _TEXT,
    "location-snippets": _TEXT,
}


@dataclass(frozen=True)
class Upstream:
    """A backend's ready addresses, `ip:port`, sorted; `settings` are the Ingress's annotations."""

    name: str
    addresses: tuple[str, ...]
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Location:
    path: str
    is_exact: bool
    upstream: Upstream


@dataclass(frozen=True)
class Site:
    """One host name and where its paths go."""

    host: str
    locations: tuple[Location, ...]
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rejected:
    """An Ingress that is not served, and why."""

    ingress: str
    reason: str


def build_sites(
    ingresses: Iterable[Manifest], services: Iterable[Manifest], slices: Iterable[Manifest]
) -> tuple[list[Site], list[Rejected]]:
    """Of two Ingresses that claim a host the older one has it, as with the real controller."""
    backends = _Backends(services, slices)
    sites: dict[str, Site] = {}
    rejected: list[Rejected] = []
    for ingress in sorted(filter(_is_ours, ingresses), key=_age):
        name = f"{ingress['metadata']['namespace']}/{ingress['metadata']['name']}"
        try:
            settings = _settings(ingress)
        except ValueError as error:
            rejected.append(Rejected(name, str(error)))
            continue
        for rule in ingress["spec"].get("rules") or []:
            host = rule.get("host", "")
            if not host:
                rejected.append(Rejected(name, "a rule has no host; name one"))
            elif host in sites:
                rejected.append(Rejected(name, f"host {host!r} is taken by an older Ingress"))
            else:
                locations = tuple(_locations(ingress, rule, settings, backends))
                sites[host] = Site(host, locations, settings)
    return [sites[host] for host in sorted(sites)], rejected


def _is_ours(ingress: Manifest) -> bool:
    annotations = ingress["metadata"].get("annotations") or {}
    named = ingress["spec"].get("ingressClassName") or annotations.get(CLASS_ANNOTATION)
    return bool(named == CLASS)


def _age(ingress: Manifest) -> tuple[str, str]:
    metadata = ingress["metadata"]
    return metadata.get("creationTimestamp", ""), metadata.get("uid", "")


def _settings(ingress: Manifest) -> dict[str, str]:
    """The `nginx.org/*` annotations without their prefix; raises ValueError naming the bad one."""
    settings = {}
    for key, value in (ingress["metadata"].get("annotations") or {}).items():
        name = key.removeprefix(PREFIX)
        if name == key:
            continue
        if name not in ANNOTATIONS:
            raise ValueError(f"annotation {key} is not known here; known: {', '.join(ANNOTATIONS)}")
        if not ANNOTATIONS[name].fullmatch(value):
            raise ValueError(
                f"annotation {key} has the value {value!r}, not {ANNOTATIONS[name].pattern}"
            )
        settings[name] = value
    return settings


def _locations(
    ingress: Manifest, rule: Manifest, settings: Mapping[str, str], backends: _Backends
) -> Iterator[Location]:
    namespace = ingress["metadata"]["namespace"]
    for path in (rule.get("http") or {}).get("paths", []):
        service = path["backend"].get("service")
        if service is None:  # a resource backend; nothing here can serve it
            continue
        port = service["port"].get("name") or service["port"]["number"]
        name = f"{namespace}-{ingress['metadata']['name']}-{rule['host']}-{service['name']}-{port}"
        addresses = backends.addresses(namespace, service["name"], port)
        yield Location(
            path=path.get("path") or "/",
            is_exact=path.get("pathType") == "Exact",
            upstream=Upstream(re.sub(r"[^\w.-]", "_", name), addresses, settings),
        )


class _Backends:
    """Looks up the ready addresses behind a Service's port."""

    def __init__(self, services: Iterable[Manifest], slices: Iterable[Manifest]) -> None:
        self._ports = {
            (service["metadata"]["namespace"], service["metadata"]["name"]): service["spec"].get(
                "ports", []
            )
            for service in services
        }
        self._slices: dict[tuple[str, str], list[Manifest]] = {}
        for endpoint_slice in slices:
            metadata = endpoint_slice["metadata"]
            owner = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
            self._slices.setdefault((metadata["namespace"], owner), []).append(endpoint_slice)

    def addresses(self, namespace: str, service: str, port: str | int) -> tuple[str, ...]:
        """`port` is a port's name or number in the Service; unknown ones have no addresses."""
        names = {
            entry.get("name") or ""
            for entry in self._ports.get((namespace, service), [])
            if port in (entry.get("name"), entry["port"])
        }
        found = {
            f"{address}:{entry['port']}"
            for endpoint_slice in self._slices.get((namespace, service), [])
            for entry in endpoint_slice.get("ports") or []
            if (entry.get("name") or "") in names
            for endpoint in endpoint_slice.get("endpoints") or []
            if (endpoint.get("conditions") or {}).get("ready", True)
            for address in endpoint["addresses"]
        }
        return tuple(sorted(found))
