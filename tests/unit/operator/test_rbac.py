"""The operator's roles allow exactly what it asks of the API server: each verb is used, and none is missing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from wsgiapp.names import KIND, OWNED_KINDS
from wsgiapp_operator.apply import Writer
from wsgiapp_operator.claims import Claims
from wsgiapp_operator.client import Cluster
from wsgiapp_operator.ingress_classes import IngressClasses
from wsgiapp_operator.named_secrets import NamedSecrets
from wsgiapp_operator.reconcile import Reconciler
from wsgiapp_operator.resync import list_everything
from wsgiapp_operator.upgrade import Upgrades
from wsgiapp_operator.watch import watch
from wsgiapp_operator.workqueue import KeyedQueue

from tests.unit.operator.recorded_api import RecordedApi, Right, write_kubeconfig
from tests.unit.operator.samples import NOW, make_manifest
from tests.unit.operator.test_reconcile import World

ROLES = Path(__file__).parents[3] / "operator" / "controller" / "rbac.yaml"
DB = {"secretRef": {"name": "db"}, "onChange": "Restart"}


def read_rights() -> set[Right]:
    """Return what the roles allow."""
    return {
        Right(verb, group, resource)
        for role in yaml.safe_load_all(ROLES.read_text("utf-8"))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


class RecordedWorld(World):
    """The operator of the story, its client connected to the recorded API server by HTTP."""

    client: Cluster

    def start_operator(self) -> None:
        super().start_operator()
        self.connect_operator()

    def connect_operator(self) -> None:
        if not hasattr(self, "client"):
            return
        self.reconciler = Reconciler(
            cluster=self.client,
            cache=self.cache,
            agents=self.agents,  # type: ignore[arg-type]  # a fake
            writer=Writer(self.client, self.cache, self.metrics),
            secrets=NamedSecrets(self.client, self.cache),
            ingress_classes=IngressClasses(self.client),
            metrics=self.metrics,
            platform=self.platform,
            upgrades=Upgrades(1, self.woken.append, self.metrics),
            now=lambda: NOW,
        )

    def declare(self, **spec: Any) -> None:
        live = self.cluster.objects.get(("WsgiApp", "web", "shop"))
        manifest = make_manifest(**spec)
        self.see({**manifest, "metadata": live["metadata"]} if live else manifest)


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RecordedApi]:
    world = World()
    async with RecordedApi(world.cluster).serve() as api:
        write_kubeconfig(tmp_path / "kubeconfig", api.url)
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
        yield api


async def reconcile_through_the_life_of_an_app(world: RecordedWorld) -> None:
    """Make, serve, keep, reload, fail, change and settle one app."""
    world.see(
        {"kind": "Secret", "metadata": {"name": "db", "namespace": "web"}, "data": {"k": "eA=="}}
    )
    first = world.write_code("VERSION = 1")
    everything = {
        "envFrom": [DB],
        "ingress": {"className": "nginx", "hosts": ["shop.example.com"]},
    }
    world.declare(**everything)
    await world.reconcile()
    world.run_pods(first)
    await world.reconcile(2)  # ready; the last good copy is kept
    world.write_code("VERSION = 2")
    await world.reconcile(5)  # reload
    world.agents.broken = world.write_code("VERSION = 3")
    await world.reconcile(4)  # fails: an Event, and it happens again
    world.write_code("VERSION = 4")
    await world.reconcile(4)
    world.agents.broken = world.write_code("VERSION = 3")
    await world.reconcile(4)
    # What is no longer asked for is deleted.
    world.declare(
        disruptionBudget={"enabled": False},
        podTemplate={"spec": {"serviceAccountName": "own"}},
    )
    await world.reconcile(2)
    world.run_pods(world.agents.serves["shop-0"])
    await world.reconcile()
    # So is the copy of a content once no pod mounts it.
    world.declare(source=None)
    await world.reconcile()
    world.run_pods("")
    await world.reconcile()


async def watch_until_all_is_watched(world: RecordedWorld, api: RecordedApi) -> None:
    stop = asyncio.Event()
    watching = asyncio.create_task(
        watch(
            (),
            world.cache,
            KeyedQueue(()),
            stop,
            on_spawned=lambda: None,
            on_listed=lambda: None,
            ssl_context=world.client.ssl_context,
        )
    )
    kinds = len((KIND, "Pod", "ConfigMap", *OWNED_KINDS))
    await api.wait_until(
        lambda used: sum(right.verb == "watch" for right in used) == kinds, within_s=60
    )
    stop.set()
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_roles_allow_exactly_what_is_asked(api: RecordedApi) -> None:
    client = await Cluster.connect()
    try:
        claims = Claims(client, "kube-system", "a", "default/op", (), lambda whom: None, "op")
        await claims.acquire()
        await claims.release()
        await client.read_version()
        await client.list_kubelet_versions()
        world = RecordedWorld()
        world.cluster, world.client = api.fake, client
        world.start_operator()
        await list_everything(client, world.cache, ())
        await reconcile_through_the_life_of_an_app(world)
        await watch_until_all_is_watched(world, api)
    finally:
        await client.close()
    granted = read_rights()
    assert sorted(api.used - granted) == [], "asked for and not allowed"
    assert sorted(granted - api.used) == [], "allowed and never asked for"


def test_rights_of_a_role_are_compared_one_by_one() -> None:
    rights = read_rights()
    assert Right("patch", "wsgi.dev", "wsgiapps/status") in rights
    assert Right("get", "", "secrets") in rights
    assert Right("list", "", "secrets") not in rights
