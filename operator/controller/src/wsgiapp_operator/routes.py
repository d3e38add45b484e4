"""Who has which host and path: claims of WsgiApps, and what Ingresses route, of the whole cluster.

An ingress controller gives a host to the oldest Ingress, whoever made it; several apps share one only by
a master and minions. So it is decided here, before anything is applied, and an app that comes second
learns it from its status, not from another app's answers. Does no I/O.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from wsgiapp.names import KIND, MANAGED_BY, MANAGED_BY_LABEL
from wsgiapp.resources.ingress import prefix_paths
from wsgiapp.types import App

INGRESS = "Ingress"
# Claims on one host that are read of an Ingress that says that a WsgiApp made it: such a one has two paths a host.
MOST_PATHS = 16
CLASS_ANNOTATION = "kubernetes.io/ingress.class"


class Owner(NamedTuple):
    """The object that a claim is from: a WsgiApp, or an Ingress that no WsgiApp made."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


class Claim(NamedTuple):
    """One host that a WsgiApp asks for, or that an Ingress routes."""

    host: str
    path: str  # of an Ingress that no WsgiApp made: "/", as a host cannot be shared with it by path
    class_name: str | None  # None: the cluster's default, so perhaps any
    tls_secret: str | None


class Entry(NamedTuple):
    kind: str
    version: int
    uid: str
    created: str
    maker: str | None  # uid of the WsgiApp that an Ingress was made for
    claims: tuple[Claim, ...]


class Holder(NamedTuple):
    """A claim that is fulfilled, in the order in which they are."""

    owner: Owner
    uid: str
    claim: Claim


class HostRoute(NamedTuple):
    """What becomes of one host of an app."""

    host: str
    taken_by: Owner | None  # who has the host or the path
    is_shared: bool  # with other apps of the namespace, by path
    tls_holder: Holder | None  # who decides about TLS, where that is another app


class RouteTable:
    def __init__(self) -> None:
        self._entries: dict[Owner, Entry] = {}
        self._of_host: dict[str, set[Owner]] = defaultdict(set)

    def put(self, manifest: Mapping[str, Any], *, listed_after: int = -1) -> set[tuple[str, str]]:
        """Take in a WsgiApp or an Ingress; return namespace and name of the apps for which it is news.

        One that is older than what is known is left out, with the exception that `Cache.put` explains.
        """
        owner, entry = owner_of(manifest), read_entry(manifest)
        known = self._entries.get(owner)
        if known is not None and listed_after < known.version > entry.version:
            return set()
        if known is not None and known._replace(version=entry.version) == entry:
            self._entries[owner] = entry
            return set()
        hosts = self._drop(owner) | {claim.host for claim in entry.claims}
        # Also an Ingress without a host: an older listing must not bring back those that it had.
        if entry.claims or entry.kind == INGRESS:
            self._entries[owner] = entry
            for claim in entry.claims:
                self._of_host[claim.host].add(owner)
        return self._apps_of(hosts)

    def forget(self, manifest: Mapping[str, Any]) -> set[tuple[str, str]]:
        """Drop an object that is gone, unless a namesake is known; return the apps concerned."""
        owner = owner_of(manifest)
        known = self._entries.get(owner)
        if known is None or known.uid != manifest["metadata"]["uid"]:
            return set()
        return self._apps_of(self._drop(owner))

    def keep_only(
        self, kind: str, seen: Iterable[tuple[str, str, str]], before: int, listed: set[str]
    ) -> set[tuple[str, str]]:
        """Drop what a complete listing did not show, as `Cache.keep_only` does."""
        alive = set(seen)
        gone = [
            owner
            for owner, entry in self._entries.items()
            if owner.kind == kind
            and tuple(owner) not in alive
            and entry.version <= before
            and (not listed or owner.namespace in listed)
        ]
        return {app for owner in gone for app in self._apps_of(self._drop(owner))}

    def newest_version(self) -> int:
        return max((entry.version for entry in self._entries.values()), default=0)

    def route(self, app: App) -> tuple[HostRoute, ...]:
        """Return what becomes of each host of `app`."""
        if app.ingress is None:
            return ()
        return tuple(self._route_host(app, host) for host in app.ingress.hosts)

    def _route_host(self, app: App, host: str) -> HostRoute:
        """Go through the claims in their order; each is fulfilled that clashes with none before it."""
        fulfilled = Fulfilled()
        rival: Owner | None = None
        for holder in self._in_order(host):
            clash = fulfilled.find_clash(holder)
            if clash is None:
                fulfilled.add(holder)
            elif holder.uid == app.uid:
                rival = clash.owner
        own = app_claim(app, host)
        apps = [
            one for one in fulfilled.holders if one.owner.kind == KIND and overlaps(one.claim, own)
        ]
        is_shared = len(apps) > 1 and any(one.uid == app.uid for one in apps)
        tls_holder = apps[0] if is_shared and apps[0].uid != app.uid else None
        return HostRoute(host, rival, is_shared, tls_holder)

    def _in_order(self, host: str) -> list[Holder]:
        """Return the claims on a host, each group by age: what is routed already; other paths of those that
        have the host already, which may clash with a neighbour's but do not lose the host; what deleted
        WsgiApps have left; other WsgiApps."""
        entries = {owner: self._entries[owner] for owner in self._of_host.get(host, ())}
        # By namespace and uid of a WsgiApp.
        asked: dict[tuple[str, str], list[Claim]] = defaultdict(list)
        for owner, entry in entries.items():
            if owner.kind == KIND:
                asked[owner.namespace, entry.uid] += claims_on(entry, host)
        routed: dict[str, list[tuple[Claim, str]]] = defaultdict(list)  # by uid of a WsgiApp
        for entry in entries.values():
            if entry.maker is not None:
                routed[entry.maker] += [(claim, entry.created) for claim in claims_on(entry, host)]
        ranked = [
            (*rank(entry, claim, routed[entry.uid]), entry.uid, Holder(owner, entry.uid, claim))
            for owner, entry in entries.items()
            if entry.maker is None
            or not stands_for_app(entry, host, asked.get((owner.namespace, entry.maker), ()))
            for claim in claims_on(entry, host)
        ]
        return [holder for *_, holder in sorted(ranked, key=lambda item: item[:3])]

    def _apps_of(self, hosts: Iterable[str]) -> set[tuple[str, str]]:
        return {
            (owner.namespace, owner.name)
            for host in hosts
            for owner in self._of_host.get(host, ())
            if owner.kind == KIND
        }

    def _drop(self, owner: Owner) -> set[str]:
        """Take an object out; return its hosts."""
        entry = self._entries.pop(owner, None)
        if entry is None:
            return set()
        hosts = {claim.host for claim in entry.claims}
        for host in hosts:
            self._of_host[host].discard(owner)
            if not self._of_host[host]:
                del self._of_host[host]
        return hosts


class Fulfilled:
    """The claims on one host that are fulfilled, indexed so that a clash is found without looking at all of them.

    Those of apps that may be served by one ingress controller are of one namespace, so what has to be looked at
    are the first of each class and kind, and those with the same path.
    """

    def __init__(self) -> None:
        self.holders: list[Holder] = []
        self._first: dict[tuple[str, str, str | None], int] = {}  # kind, namespace, class: place
        self._of_path: dict[tuple[str, str, str | None], int] = {}  # namespace, path, class: place
        self._classes: set[str | None] = set()

    def add(self, holder: Holder) -> None:
        owner, claim, place = holder.owner, holder.claim, len(self.holders)
        self.holders.append(holder)
        self._classes.add(claim.class_name)
        if owner.kind == KIND:
            self._first.setdefault((KIND, owner.namespace, claim.class_name), place)
            self._of_path.setdefault((owner.namespace, claim.path, claim.class_name), place)
        else:  # Ingresses do not clash with each other, so they are of any namespace
            self._first.setdefault((INGRESS, "", claim.class_name), place)

    def find_clash(self, holder: Holder) -> Holder | None:
        """Return the first claim that does not go together with `holder`."""
        namespace, path = holder.owner.namespace, holder.claim.path
        near = (self._of_path.get((namespace, path, each)) for each in self._classes)
        places = {*self._first.values(), *(place for place in near if place is not None)}
        found = (self.holders[place] for place in sorted(places))
        return next((one for one in found if clashes(one, holder)), None)


def rank(entry: Entry, claim: Claim, routed: Iterable[tuple[Claim, str]]) -> tuple[int, str]:
    """Return the group and the age of a claim; `routed` is what its own Ingresses route, and since when.

    What another ingress controller routes gives no right to the host with this one. An Ingress that says that a
    WsgiApp made it, of which nothing is known, takes no host from who has it: mostly it is what a deleted WsgiApp
    leaves to the garbage collector.
    """
    if entry.kind == INGRESS:
        return (0 if entry.maker is None else 2), entry.created
    same = [(each.path, since) for each, since in routed if overlaps(each, claim)]
    exact = [since for path, since in same if path == prefix_paths(claim.path)[-1]]
    if exact:
        return 0, min(exact)
    if same:
        return 1, min(since for _, since in same)
    return 3, entry.created


def stands_for_app(entry: Entry, host: str, asked: Sequence[Claim]) -> bool:
    """Return whether an Ingress was made for a WsgiApp that asks for this host, and so is not a claim itself.

    Its label and owner alone do not tell, as anybody may write them on an Ingress of their own; `asked` is what
    the app that it names asks for.
    """
    return any(overlaps(a, b) for a in asked for b in claims_on(entry, host))


def claims_on(entry: Entry, host: str) -> list[Claim]:
    return [claim for claim in entry.claims if claim.host == host]


def clashes(one: Holder, other: Holder) -> bool:
    """Return whether two claims on one host cannot both be fulfilled.

    Apps of one namespace share a host by path. Those of different ones do not: a path of somebody
    else's host would be theirs for the asking. With any other Ingress a host cannot be shared.
    """
    if not overlaps(one.claim, other.claim) or one.owner == other.owner:
        return False
    is_between_apps = one.owner.kind == other.owner.kind == KIND
    is_neighbour = one.owner.namespace == other.owner.namespace
    if one.owner.kind == other.owner.kind == INGRESS:
        return False  # the controller's affair
    return not (is_between_apps and is_neighbour) or one.claim.path == other.claim.path


def overlaps(one: Claim, other: Claim) -> bool:
    """Return whether one ingress controller may serve both."""
    return None in (one.class_name, other.class_name) or one.class_name == other.class_name


def app_claim(app: App, host: str) -> Claim:
    assert app.ingress is not None
    return Claim(host, app.ingress.path, app.ingress.class_name, app.ingress.tls_secret)


def owner_of(manifest: Mapping[str, Any]) -> Owner:
    metadata = manifest["metadata"]
    return Owner(manifest["kind"], metadata["namespace"], metadata["name"])


def read_entry(manifest: Mapping[str, Any]) -> Entry:
    """Return the claims of a WsgiApp or an Ingress, as far as they can be read."""
    metadata = manifest["metadata"]
    is_app = manifest["kind"] == KIND
    maker = None if is_app else find_maker(manifest)
    claims = read_app_claims(manifest) if is_app else read_ingress_claims(manifest, maker)
    return Entry(
        kind=manifest["kind"],
        version=int(metadata["resourceVersion"]),
        uid=metadata["uid"],
        created=metadata.get("creationTimestamp", ""),
        maker=maker,
        claims=tuple(claims),
    )


def find_maker(ingress: Mapping[str, Any]) -> str | None:
    """Return the uid of the WsgiApp that an Ingress of ours belongs to."""
    metadata = ingress["metadata"]
    if (metadata.get("labels") or {}).get(MANAGED_BY_LABEL) != MANAGED_BY:
        return None
    owners = metadata.get("ownerReferences") or ()
    return next((str(each["uid"]) for each in owners if each["kind"] == KIND), None)


def read_app_claims(manifest: Mapping[str, Any]) -> Iterable[Claim]:
    ingress = (manifest.get("spec") or {}).get("ingress") or {}
    secret = (ingress.get("tls") or {}).get("secretName")
    for host in ingress.get("hosts") or ():
        yield Claim(host, ingress.get("path") or "/", ingress.get("className"), secret)


def read_ingress_claims(manifest: Mapping[str, Any], maker: str | None) -> Iterable[Claim]:
    """Return the claims of an Ingress, a few on each host: anybody's may have thousands of paths, and all claims on a
    host are gone through for each look at an app that asks for it."""
    spec = manifest.get("spec") or {}
    annotations = manifest["metadata"].get("annotations") or {}
    class_name = spec.get("ingressClassName") or annotations.get(CLASS_ANNOTATION)
    paths: dict[str, dict[str, None]] = defaultdict(dict)  # by host, in their order
    for rule in spec.get("rules") or ():
        for path in (rule.get("http") or {}).get("paths") or ():
            known = paths[rule.get("host", "")]
            if len(known) < MOST_PATHS:
                known["/" if maker is None else path.get("path") or "/"] = None
    for host, known in paths.items():
        for path in known:
            yield Claim(host, path, class_name, None)
