"""Two apps that ask for one host: who has it, what the other one is told, and what happens when the first goes."""

import random
import time
from typing import Any

import pytest
from wsgiapp.parse import parse_app
from wsgiapp.types import Manifest
from wsgiapp_operator.cache import AppKey
from wsgiapp_operator.resync import list_everything
from wsgiapp_operator.routes import (
    MOST_PATHS,
    Claim,
    Fulfilled,
    Holder,
    Owner,
    RouteTable,
    clashes,
    read_entry,
)

from tests.unit.operator.samples import make_manifest
from tests.unit.operator.test_reconcile import World

HOST = "shop.example.com"


class Town(World):
    """Several apps in one cluster; each is reconciled when there is news for it."""

    def __init__(self) -> None:
        super().__init__()
        self.due: set[AppKey] = set()
        self.seconds = 0
        for name in ("nginx", "internal", "other", "unused"):
            self.cluster.put({"kind": "IngressClass", "metadata": {"name": name, "namespace": ""}})

    def see(self, manifest: Manifest) -> Manifest:
        self.seconds += 1
        created = f"2026-11-22T11:00:{self.seconds:02d}Z"
        manifest["metadata"].setdefault("creationTimestamp", created)
        stored = self.cluster.put(manifest)
        self.due |= self.cache.put(stored)
        self.due |= self.cache.record_content(stored)
        return stored

    def declare(self, name: str, namespace: str = "web", **ingress: Any) -> None:
        spec = {
            "image": "shop:1",
            "app": "shop:app",
            "ingress": {"className": "nginx", "hosts": [HOST], **ingress},
        }
        metadata: Manifest = {"name": name, "namespace": namespace}
        before = self.cluster.objects.get(("WsgiApp", namespace, name))
        if before is not None:
            metadata = before["metadata"]
        self.see(
            {
                "apiVersion": "wsgi.dev/v1alpha1",
                "kind": "WsgiApp",
                "metadata": metadata,
                "spec": spec,
            }
        )

    def delete(self, name: str, namespace: str = "web") -> None:
        """Delete an app; the garbage collector takes what it owned, some time later."""
        gone = self.cluster.remove("WsgiApp", namespace, name)
        owned = [
            key
            for key, each in self.cluster.objects.items()
            if any(
                o["uid"] == gone["metadata"]["uid"]
                for o in each["metadata"].get("ownerReferences", ())
            )
        ]
        for each in [gone, *(self.cluster.remove(*key) for key in owned)]:
            self.seconds += 1
            each["metadata"]["resourceVersion"] = str(9000 + self.seconds)
            self.due |= self.cache.forget(each)

    async def settle(self) -> None:
        for _ in range(12):
            due, self.due = self.due, set()
            if not due:
                return
            for key in sorted(due):
                await self.reconciler.reconcile(key)
            # What was written comes back by the watch.
            for stored in list(self.cluster.objects.values()):
                if stored["kind"] != "Event":
                    self.due |= self.cache.put(stored)
        raise AssertionError(f"does not settle: {self.due}")

    def ingresses(self) -> dict[str, list[str]]:
        """Return host and paths by namespace and name of the Ingress."""
        return {
            f"{namespace}/{name}": [
                rule["host"] + path["path"]
                for rule in each["spec"]["rules"]
                for path in rule.get("http", {"paths": [{"path": ""}]})["paths"]
            ]
            for (kind, namespace, name), each in sorted(self.cluster.objects.items())
            if kind == "Ingress"
        }

    def routed(self, name: str, namespace: str = "web") -> tuple[str, str, str]:
        status = self.status(name, namespace)
        found = next(c for c in status["conditions"] if c["type"] == "Routed")
        return found["status"], found["reason"], found["message"]

    def status(self, name: str, namespace: str = "web") -> Manifest:
        status: Manifest = self.cluster.objects["WsgiApp", namespace, name]["status"]
        return status


@pytest.fixture
def town() -> Town:
    return Town()


async def test_app_alone_on_its_host_has_one_plain_ingress(town: Town) -> None:
    town.declare("one")
    await town.settle()
    assert town.ingresses() == {"web/one": [f"{HOST}/"]}
    assert town.routed("one")[:2] == ("True", "HostsRouted")
    assert town.status("one")["url"] == f"http://{HOST}/"


async def test_two_paths_of_one_host_are_masters_and_minions(town: Town) -> None:
    town.declare("one")
    await town.settle()
    town.declare("two", path="/two")
    await town.settle()
    kinds = {
        name: town.cluster.objects["Ingress", "web", name.partition("/")[2]]["metadata"][
            "annotations"
        ]["nginx.org/mergeable-ingress-type"]
        for name in town.ingresses()
    }
    assert sorted(kinds.values()) == ["master", "master", "minion", "minion"]
    assert sorted(town.ingresses().values()) == [
        [HOST],
        [HOST],
        [f"{HOST}/"],
        [f"{HOST}/two", f"{HOST}/two/"],
    ]
    assert town.routed("one")[0] == town.routed("two")[0] == "True"
    assert town.status("two")["url"] == f"http://{HOST}/two"


async def test_minion_keeps_the_settings_of_its_app(town: Town) -> None:
    issuer = {"cert-manager.io/cluster-issuer": "letsencrypt"}
    own = {"nginx.org/hsts": "true", "nginx.org/keepalive": "7"}
    town.declare("one", annotations={**own, **issuer})
    town.declare("two", path="/two")
    await town.settle()
    found = {
        each["metadata"]["annotations"]["nginx.org/mergeable-ingress-type"]: each["metadata"][
            "annotations"
        ]
        for (kind, _, name), each in town.cluster.objects.items()
        if kind == "Ingress" and name.startswith("one.")
    }
    assert found["master"]["nginx.org/hsts"] == "true"
    assert "nginx.org/keepalive" not in found["master"]
    assert found["minion"]["nginx.org/keepalive"] == "7"
    assert found["minion"]["nginx.org/client-max-body-size"] == "16777216"
    assert "nginx.org/hsts" not in found["minion"]
    # Where the Secret of TLS is named: else the certificate would go when the host becomes a shared one.
    assert issuer.items() <= found["master"].items()


@pytest.mark.parametrize("other", ["web", "blog"])
async def test_second_app_with_the_same_host_and_path_says_so_and_shows_no_url_of_the_first(
    town: Town, other: str
) -> None:
    town.declare("one")
    await town.settle()
    town.declare("two", other)
    await town.settle()
    assert town.ingresses() == {"web/one": [f"{HOST}/"]}
    state, reason, message = town.routed("two", other)
    assert (state, reason) == ("False", "RouteTaken")
    assert "WsgiApp web/one" in message
    assert "use another host or path" in message
    assert town.status("two", other)["url"] == f"http://two.{other}.svc"
    assert town.routed("one")[0] == "True"


@pytest.mark.parametrize("other", ["web", "blog"])
async def test_second_app_gets_the_route_when_the_first_one_goes(town: Town, other: str) -> None:
    town.declare("one")
    await town.settle()
    town.declare("two", other)
    await town.settle()
    town.delete("one")
    await town.settle()
    assert town.ingresses() == {f"{other}/two": [f"{HOST}/"]}
    assert town.routed("two", other)[0] == "True"
    assert town.status("two", other)["url"] == f"http://{HOST}/"


async def test_another_namespace_cannot_take_a_path_of_a_host(town: Town) -> None:
    town.declare("one")
    await town.settle()
    town.declare("two", "blog", path="/login")
    await town.settle()
    assert town.ingresses() == {"web/one": [f"{HOST}/"]}
    assert town.routed("two", "blog")[1] == "RouteTaken"


async def test_app_that_changes_its_path_keeps_its_host_from_an_older_app_elsewhere(
    town: Town,
) -> None:
    town.declare("two", "blog", hosts=["other.example.com"])
    town.declare("one", path="/shop")
    await town.settle()
    town.declare("two", "blog")
    await town.settle()
    assert town.routed("two", "blog")[1] == "RouteTaken"
    town.declare("one", path="/store")
    await town.settle()
    assert town.routed("one")[0] == "True"
    assert town.routed("two", "blog")[1] == "RouteTaken"


async def test_app_that_changes_its_path_does_not_take_the_one_of_its_neighbour(town: Town) -> None:
    town.declare("one", path="/one")
    await town.settle()
    town.declare("two", path="/two")
    await town.settle()
    town.declare("one", path="/two")
    await town.settle()
    assert town.routed("one")[1] == "RouteTaken"
    assert town.routed("two")[0] == "True"


async def test_host_with_one_controller_is_no_right_to_it_with_another(town: Town) -> None:
    town.declare("one", className="unused")
    await town.settle()
    town.declare("two", "blog")
    await town.settle()
    assert town.routed("two", "blog")[0] == "True"
    town.declare("one")
    await town.settle()
    assert town.routed("one")[1] == "RouteTaken"
    assert town.routed("two", "blog")[0] == "True"


async def test_ingress_that_went_unseen_gives_its_host_up_at_the_next_listing(town: Town) -> None:
    town.declare("one")
    await town.settle()
    rule = {"host": "late.example.com", "http": {"paths": [{"path": "/"}]}}
    metadata = {"name": "late", "namespace": "blog"}
    town.see({"kind": "Ingress", "metadata": metadata, "spec": {"rules": [rule]}})
    town.cluster.remove("Ingress", "blog", "late")
    await list_everything(town.cluster, town.cache, ())  # type: ignore[arg-type]  # a fake
    town.declare("one", hosts=["late.example.com"])
    await town.settle()
    assert town.routed("one")[0] == "True"


async def test_older_app_that_changes_its_host_does_not_take_it_from_who_has_it(town: Town) -> None:
    town.declare("one", hosts=["other.example.com"])
    town.declare("two")
    await town.settle()
    town.declare("one")
    await town.settle()
    assert town.routed("one")[1] == "RouteTaken"
    assert town.ingresses() == {"web/two": [f"{HOST}/"]}
    assert town.status("one")["url"] == "http://one.web.svc"


async def test_of_two_new_apps_the_older_one_has_the_host_whoever_is_seen_first(town: Town) -> None:
    town.declare("zoo")
    town.declare("ant")
    await town.settle()
    assert town.routed("zoo")[0] == "True"
    assert town.routed("ant")[1] == "RouteTaken"


async def test_one_host_of_two_that_is_taken_leaves_the_other_one(town: Town) -> None:
    town.declare("one")
    await town.settle()
    town.declare("two", hosts=[HOST, "two.example.com"])
    await town.settle()
    assert town.ingresses()["web/two"] == ["two.example.com/"]
    assert town.routed("two")[1] == "RouteTaken"
    assert town.status("two")["url"] == "http://two.example.com/"


async def test_host_of_an_ingress_that_no_wsgiapp_made_is_taken(town: Town) -> None:
    backend = {"service": {"name": "old", "port": {"number": 80}}}
    rule = {
        "host": HOST,
        "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]},
    }
    old = town.see(
        {
            "kind": "Ingress",
            "metadata": {"name": "old", "namespace": "legacy"},
            "spec": {"ingressClassName": "nginx", "rules": [rule]},
        }
    )
    town.declare("one")
    await town.settle()
    assert "Ingress legacy/old" in town.routed("one")[2]
    assert town.status("one")["url"] == "http://one.web.svc"
    town.cluster.remove("Ingress", "legacy", "old")
    old["metadata"]["resourceVersion"] = "900"
    town.due |= town.cache.forget(old)
    await town.settle()
    assert town.routed("one")[0] == "True"


def foreign_ingress(
    name: str, namespace: str, *hosts: str, owner: str | None = None, version: int | None = None
) -> Manifest:
    """Return an Ingress of another's making; with `owner` it says that the WsgiApp of this uid made it."""
    rules = [
        {"host": host, "http": {"paths": [{"path": "/", "pathType": "Prefix"}]}} for host in hosts
    ]
    metadata: Manifest = {"name": name, "namespace": namespace}
    if owner is not None:
        reference = {
            "apiVersion": "wsgi.dev/v1alpha1",
            "kind": "WsgiApp",
            "name": "x",
            "uid": owner,
        }
        labels = {"app.kubernetes.io/managed-by": "wsgiapp-operator"}
        metadata |= {"labels": labels, "ownerReferences": [reference]}
    if version is not None:
        metadata |= {"uid": f"uid-{name}", "resourceVersion": str(version)}
    spec = {"ingressClassName": "nginx", "rules": rules}
    return {"kind": "Ingress", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize(
    "own_app", [False, True], ids=["unknown owner", "an app without this host"]
)
async def test_forged_ingress_is_seen_as_the_one_that_has_the_host(
    town: Town, own_app: bool
) -> None:
    uid = "no-such-app"
    if own_app:
        town.declare("mine", "blog", hosts=["mine.example.com"])
        await town.settle()
        uid = town.cluster.objects["WsgiApp", "blog", "mine"]["metadata"]["uid"]
    town.see(foreign_ingress("forged", "blog", HOST, owner=uid))
    town.declare("one")
    await town.settle()
    assert town.routed("one")[:2] == ("False", "RouteTaken")
    assert "Ingress blog/forged" in town.routed("one")[2]
    assert town.status("one")["url"] == "http://one.web.svc"


async def test_forged_ingress_of_another_class_than_its_app_s_is_seen_as_well(town: Town) -> None:
    town.declare("mine", "blog", className="other")
    await town.settle()
    uid = town.cluster.objects["WsgiApp", "blog", "mine"]["metadata"]["uid"]
    town.see(foreign_ingress("forged", "blog", HOST, owner=uid))
    town.declare("one")
    await town.settle()
    assert town.routed("one")[:2] == ("False", "RouteTaken")


async def test_what_a_deleted_app_leaves_takes_no_host_from_those_that_have_it(town: Town) -> None:
    town.declare("one", path="/one")
    town.declare("two", path="/two")
    await town.settle()
    before = town.ingresses()
    gone = town.cluster.remove("WsgiApp", "web", "one")
    gone["metadata"]["resourceVersion"] = "9000"
    town.due |= town.cache.forget(gone)
    await town.settle()
    assert town.routed("two")[0] == "True"
    kept = {name: paths for name, paths in before.items() if "two" in name}
    assert kept.items() <= town.ingresses().items()


async def test_older_listing_does_not_bring_back_hosts_of_another_ingress(town: Town) -> None:
    newest = foreign_ingress("old", "legacy", version=905)
    stale = foreign_ingress("old", "legacy", HOST, version=904)
    town.cache.put(newest)
    town.cache.put(stale)
    town.declare("one")
    await town.settle()
    assert town.routed("one")[0] == "True"
    # A restored backup has older versions: a listing that began later counts.
    town.due |= town.cache.put(stale, listed_after=905)
    town.declare("two", hosts=[HOST], path="/two")
    await town.settle()
    assert town.routed("two")[1] == "RouteTaken"


async def test_other_ingress_class_is_another_way_in(town: Town) -> None:
    town.declare("one")
    town.declare("two", className="internal")
    await town.settle()
    assert town.routed("one")[0] == town.routed("two")[0] == "True"
    assert town.ingresses() == {"web/one": [f"{HOST}/"], "web/two": [f"{HOST}/"]}


async def test_shared_host_stays_shared_when_the_other_app_goes(town: Town) -> None:
    """Going back, requests could fall between two Ingresses."""
    town.declare("one")
    town.declare("two", path="/two")
    await town.settle()
    town.delete("one")
    await town.settle()
    assert sorted(town.ingresses().values()) == [[HOST], [f"{HOST}/two", f"{HOST}/two/"]]
    assert town.routed("two")[0] == "True"


async def test_ingresses_of_a_shared_host_go_with_it(town: Town) -> None:
    town.declare("one")
    town.declare("two", path="/two")
    await town.settle()
    town.declare("two", path="/two", hosts=["two.example.com"])
    await town.settle()
    assert [name for name in town.ingresses() if name.startswith("web/two")] == ["web/two"]


async def test_tls_of_a_shared_host_is_that_of_the_first_app(town: Town) -> None:
    town.declare("one")
    await town.settle()
    town.declare("two", path="/two", tls={"secretName": "two-tls"})
    await town.settle()
    state, reason, message = town.routed("two")
    assert (state, reason) == ("False", "TLSDiffers")
    assert "WsgiApp web/one" in message
    assert town.status("two")["url"] == f"http://{HOST}/two"


async def test_new_operator_leaves_routes_as_they_are(town: Town) -> None:
    town.declare("one", hosts=["other.example.com"])
    town.declare("two")
    await town.settle()
    town.declare("one")
    await town.settle()
    town.start_operator()
    town.due = await list_everything(town.cluster, town.cache, ())  # type: ignore[arg-type]  # a fake
    town.cluster.writes.clear()
    await town.settle()
    assert town.cluster.writes == []


def draw_holder(number: int) -> Holder:
    draw = random.Random(number)
    kind = draw.choice(("WsgiApp", "WsgiApp", "WsgiApp", "Ingress"))
    owner = Owner(kind, draw.choice(("web", "blog")), f"app-{draw.randrange(8)}")
    class_name = draw.choice((None, "nginx", "nginx", "other"))
    claim = Claim(HOST, draw.choice(("/", "/a", "/b", "/c")), class_name, None)
    return Holder(owner, f"uid-{owner}", claim)


def test_clash_that_the_index_finds_is_the_first_one_of_all() -> None:
    for start in range(0, 40_000, 20):
        fulfilled = Fulfilled()
        for holder in map(draw_holder, range(start, start + 20)):
            first = next((one for one in fulfilled.holders if clashes(one, holder)), None)
            assert fulfilled.find_clash(holder) == first
            if first is None:
                fulfilled.add(holder)


def test_app_on_a_host_that_two_thousand_share_takes_milliseconds_to_route() -> None:
    """The time is compared with that of a tenth of the apps: a hundred times as long if all are compared with all."""

    def route_s(count: int) -> float:
        table, manifest = RouteTable(), None
        for number in range(count):
            manifest = make_manifest(ingress={"hosts": [HOST], "path": f"/app-{number}"})
            manifest["metadata"] |= {"name": f"app-{number}", "uid": f"uid-{number}"}
            manifest["metadata"]["resourceVersion"] = str(number + 1)
            table.put(manifest)
        app = parse_app(manifest)
        started = time.process_time()
        (route,) = table.route(app)
        assert route.is_shared
        return time.process_time() - started

    few_s = min(route_s(200) for _ in range(3))
    assert min(route_s(2000) for _ in range(3)) < 40 * few_s


@pytest.mark.parametrize("made_by_an_app", [False, True])
def test_ingress_with_thousands_of_paths_costs_an_app_of_that_host_no_more_than_one(
    made_by_an_app: bool,
) -> None:
    """Also one that only says so: anybody may write labels and owners on an Ingress of their own."""

    def claims(paths: int) -> int:
        rule = {"host": HOST, "http": {"paths": [{"path": f"/p{i}"} for i in range(paths)]}}
        metadata: Manifest = {
            "name": "x", "namespace": "blog", "uid": "x", "resourceVersion": "9", "creationTimestamp": "2020",
        }  # fmt: skip
        if made_by_an_app:
            metadata["labels"] = {"app.kubernetes.io/managed-by": "wsgiapp-operator"}
            metadata["ownerReferences"] = [{"kind": "WsgiApp", "name": "shop", "uid": "app-uid"}]
        ingress = {"kind": "Ingress", "metadata": metadata, "spec": {"rules": [rule]}}
        table = RouteTable()
        table.put(ingress)
        app = parse_app(make_manifest(ingress={"hosts": [HOST]}))
        (route,) = table.route(app)
        assert route.host == HOST
        return len(read_entry(ingress).claims)

    most = MOST_PATHS if made_by_an_app else 1
    assert [claims(paths) for paths in (1, MOST_PATHS, MOST_PATHS + 1, 5000)] == [
        1,
        most,
        most,
        most,
    ]


def test_path_that_is_added_to_a_foreign_ingress_is_no_news_to_the_apps_of_its_host() -> None:
    table = RouteTable()
    app = make_manifest(ingress={"hosts": [HOST]})
    app["metadata"]["resourceVersion"] = "1"
    table.put(app)

    def foreign(version: int, *paths: str) -> Manifest:
        rule = {"host": HOST, "http": {"paths": [{"path": path} for path in paths]}}
        metadata = {
            "name": "x",
            "namespace": "blog",
            "uid": "x",
            "resourceVersion": str(version),
        }
        return {"kind": "Ingress", "metadata": metadata, "spec": {"rules": [rule]}}

    assert table.put(foreign(2, "/a")) == {("web", "shop")}
    assert table.put(foreign(3, "/a", "/b")) == set()
    assert table.put(foreign(4)) == {("web", "shop")}
