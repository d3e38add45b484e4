"""(Ingresses, Services, EndpointSlices) → the sites nginx shall serve. Pure.

Only endpoints that are `ready` count, as with the F5 controller: a terminating pod leaves at the next reload.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
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
    "mergeable-ingress-type": re.compile("master|minion"),
    "redirect-to-https": _SWITCH,
    "ssl-redirect": _SWITCH,
    "hsts": _SWITCH,
    "lb-method": _WORDS,
    "server-snippets": _TEXT,
    "location-snippets": _TEXT,
}


TYPE = "mergeable-ingress-type"
# A minion's own are ignored, and it inherits none of the master's: they are about the whole host.
OF_THE_HOST = {TYPE, "redirect-to-https", "ssl-redirect", "hsts", "server-snippets"}


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
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Tls:
    """HTTPS with the certificate and key in `file`; None: every handshake is refused."""

    file: str | None


@dataclass(frozen=True)
class Site:
    """One host name and where its paths go."""

    host: str
    locations: tuple[Location, ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    tls: Tls | None = None


@dataclass(frozen=True)
class Rejected:
    """An Ingress, or a part of it, that is not served, and why."""

    ingress: str
    reason: str


def build_sites(
    ingresses: Iterable[Manifest],
    services: Iterable[Manifest],
    slices: Iterable[Manifest],
    certificates: Mapping[tuple[str, str], str] = MappingProxyType({}),
) -> tuple[list[Site], list[Rejected]]:
    """Of two Ingresses that claim a host the older one has it, as with the real controller.

    A host may be spread over several Ingresses only by annotation: one `master` without paths, and a
    `minion` for each further Ingress, of which the oldest has a path that two claim. `certificates` are
    files by (namespace, name) of valid Secrets.
    """
    backends = _Backends(services, slices)
    parsed, rejected = _parse(ingresses)
    holders: dict[str, _Ingress] = {}
    for ingress in parsed:
        for host in () if ingress.is_minion else ingress.hosts:
            if holders.setdefault(host, ingress) is not ingress:
                rejected.append(
                    Rejected(ingress.name, f"host {host!r} is taken by an older Ingress")
                )
    minions: dict[str, list[_Ingress]] = {}
    for ingress in parsed:
        if not ingress.is_minion:
            continue
        (host,) = ingress.hosts
        if host in holders and holders[host].is_master:
            minions.setdefault(host, []).append(ingress)
        else:
            rejected.append(Rejected(ingress.name, f"host {host!r} has no master Ingress"))
    sites = []
    for host, holder in sorted(holders.items()):
        locations: dict[str, Location] = {}
        for part in minions.get(host, ()) if holder.is_master else (holder,):
            for location in part.locations(host, holder, backends):
                if locations.setdefault(location.path, location) is not location:
                    reason = f"path {location.path!r} of {host!r} is taken by an older Ingress"
                    rejected.append(Rejected(part.name, reason))
        tls = holder.tls(host, certificates)
        sites.append(Site(host, tuple(locations.values()), holder.settings, tls))
    return sites, rejected


@dataclass(frozen=True, eq=False)
class _Ingress:
    """An Ingress that follows the controller's rules."""

    manifest: Manifest
    settings: Mapping[str, str]

    @property
    def name(self) -> str:
        return f"{self.namespace}/{self.manifest['metadata']['name']}"

    @property
    def namespace(self) -> str:
        return str(self.manifest["metadata"]["namespace"])

    @property
    def is_master(self) -> bool:
        return self.settings.get(TYPE) == "master"

    @property
    def is_minion(self) -> bool:
        return self.settings.get(TYPE) == "minion"

    @property
    def rules(self) -> list[Manifest]:
        return list(self.manifest["spec"].get("rules") or [])

    @property
    def hosts(self) -> list[str]:
        return list(dict.fromkeys(rule.get("host", "") for rule in self.rules))

    def check(self) -> None:
        """Raise ValueError for what the real controller does not accept either."""
        paths = [path for rule in self.rules for path in _paths(rule)]
        if "" in self.hosts:
            raise ValueError("a rule has no host; name one")
        if (self.is_master or self.is_minion) and len(self.rules) != 1:
            raise ValueError(f"a {self.settings[TYPE]} has {len(self.rules)} rules; use one")
        if self.is_master and paths:
            raise ValueError("a master has paths; put them into a minion")
        if self.is_minion and not paths:
            raise ValueError("a minion has no path")
        if self.is_minion and self.manifest["spec"].get("tls"):
            raise ValueError("a minion has tls; put it into the master")

    def locations(self, host: str, holder: _Ingress, backends: _Backends) -> Iterator[Location]:
        """Yield the paths below a host; a minion inherits its master's settings."""
        settings = self.settings
        if self.is_minion:
            own = {n: v for n, v in settings.items() if n not in OF_THE_HOST}
            settings = {n: v for n, v in holder.settings.items() if n not in OF_THE_HOST} | own
        for rule in self.rules:
            if rule["host"] == host:
                yield from _locations(self.manifest, rule, settings, backends)

    def tls(self, host: str, certificates: Mapping[tuple[str, str], str]) -> Tls | None:
        for entry in self.manifest["spec"].get("tls") or []:
            if host in (entry.get("hosts") or [host]):
                key = (self.namespace, entry.get("secretName", ""))
                return Tls(certificates.get(key))
        return None


def _parse(ingresses: Iterable[Manifest]) -> tuple[list[_Ingress], list[Rejected]]:
    """Return the controller's Ingresses, the oldest first, and those that it refuses as a whole."""
    parsed, rejected = [], []
    for manifest in sorted(filter(_is_ours, ingresses), key=_age):
        metadata = manifest["metadata"]
        try:
            ingress = _Ingress(manifest, _settings(manifest))
            ingress.check()
        except ValueError as error:
            rejected.append(Rejected(f"{metadata['namespace']}/{metadata['name']}", str(error)))
        else:
            parsed.append(ingress)
    return parsed, rejected


def _paths(rule: Manifest) -> list[Manifest]:
    return list((rule.get("http") or {}).get("paths") or [])


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
    for path in _paths(rule):
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
            settings=settings,
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
