"""The whole story against an API server in memory: apply, settle, reload, fail, mend, restart, delete."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from wsgiapp.digest import digest_object
from wsgiapp.types import Manifest
from wsgiapp_operator import ingress_classes
from wsgiapp_operator.apply import Writer
from wsgiapp_operator.cache import AppKey, Cache
from wsgiapp_operator.client import ApiError
from wsgiapp_operator.ingress_classes import IngressClasses
from wsgiapp_operator.main import PARALLEL
from wsgiapp_operator.metrics import Metrics
from wsgiapp_operator.named_secrets import NamedSecrets
from wsgiapp_operator.reconcile import Reconciler
from wsgiapp_operator.requeue import JITTER, LONGEST_BLOCKED_WAIT_S, LONGEST_WAIT_S, RESYNC_S
from wsgiapp_operator.resync import list_everything
from wsgiapp_operator.slots import PARALLEL as PLACES
from wsgiapp_operator.state import AgentReload, AgentStatus, Pod
from wsgiapp_operator.status import show_time
from wsgiapp_operator.upgrade import Upgrades
from wsgiapp_operator.workqueue import FIRST, KeyedQueue

from tests.unit.operator.fake_cluster import FakeCluster, merge
from tests.unit.operator.samples import CODE, NOW, PLATFORM, make_manifest

KEY = AppKey("web", "shop")


class FakeAgents:
    """Agents of servers that load what their pod is asked for, unless it holds `broken`."""

    def __init__(self) -> None:
        self.serves: dict[str, str] = {}
        self.broken: str | None = None
        self.steady_s = 3600.0
        self.silent: set[str] = set()

    def pause_s(self, pods: Iterable[Pod]) -> float:
        return 0.0

    async def ask_all(self, pods: Iterable[Pod]) -> list[Pod]:
        return [replace(pod, agent=self._answer(pod)) for pod in pods]

    def _answer(self, pod: Pod) -> AgentStatus | None:
        if pod.name in self.silent:
            return None
        reload = None
        if pod.request is not None:
            is_bad = pod.request.content["source"] == self.broken
            if not is_bad:
                self.serves[pod.name] = pod.request.content["source"]
            message = "ImportError: no" if is_bad else ""
            reload = AgentReload(pod.request.id, "failed" if is_bad else "succeeded", message)
        return AgentStatus(
            state="serving", content={"source": self.serves[pod.name]},
            workers_desired=2, workers_ready=2, workers_busy=0, reload=reload,
            steady_s=self.steady_s,
        )  # fmt: skip


class World:
    """A cluster with the operator in it, and the little of Kubernetes that the story needs."""

    def __init__(self) -> None:
        self.cluster = FakeCluster()
        self.agents = FakeAgents()
        self.platform = PLATFORM
        self.woken: list[AppKey] = []
        self.start_operator()

    def start_operator(self) -> None:
        """Start a new operator that knows nothing."""
        self.cache, self.metrics = Cache(), Metrics()
        self.reconciler = Reconciler(
            cluster=self.cluster,  # type: ignore[arg-type]  # a fake
            cache=self.cache,
            agents=self.agents,  # type: ignore[arg-type]  # a fake
            writer=Writer(self.cluster, self.cache, self.metrics),  # type: ignore[arg-type]  # a fake
            secrets=NamedSecrets(self.cluster, self.cache),  # type: ignore[arg-type]  # a fake
            ingress_classes=IngressClasses(self.cluster),  # type: ignore[arg-type]  # a fake
            metrics=self.metrics,
            platform=self.platform,
            upgrades=Upgrades(1, self.woken.append, self.metrics),
            now=lambda: NOW,
        )

    def see(self, manifest: Manifest) -> Manifest:
        """Store an object and let the watch tell of it."""
        stored = self.cluster.put(manifest)
        self.cache.put(stored)
        self.cache.record_content(stored)
        return stored

    def write_code(self, text: str) -> str:
        """Create or change the ConfigMap with the code; return its digest."""
        metadata: Manifest = {"name": CODE.name, "namespace": "web"}
        stored = self.see({"kind": "ConfigMap", "metadata": metadata, "data": {"app.py": text}})
        return digest_object(stored)

    def run_pods(self, serves: str, count: int = 3) -> None:
        """Do what controllers and kubelet do: pods of the template, the Deployment's numbers."""
        deployment = self.resource("Deployment")
        template = deployment["spec"]["template"]["metadata"]
        for name in [f"shop-{i}" for i in range(count)]:
            self.agents.serves[name] = serves
            since = show_time(NOW - timedelta(hours=1))
            ready = [{"type": "Ready", "status": "True", "lastTransitionTime": since}]
            status = {"phase": "Running", "podIP": "10.0.0.1", "conditions": ready}
            labels = {**template["labels"], "pod-template-hash": "1"}
            owner = {"kind": "ReplicaSet", "name": "shop-1", "uid": "rs", "controller": True}
            metadata = {
                "name": name, "namespace": "web", **template, "labels": labels, "ownerReferences": [owner],
            }  # fmt: skip
            spec = deployment["spec"]["template"]["spec"]
            self.see({"kind": "Pod", "metadata": metadata, "spec": spec, "status": status})
        numbers = dict.fromkeys(
            ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), count
        )
        conditions = [
            {"type": "Available", "status": "True"},
            {"type": "Progressing", "status": "True"},
        ]
        generation = deployment["metadata"]["generation"]
        self.see(
            {
                **deployment,
                "status": {**numbers, "conditions": conditions, "observedGeneration": generation},
            }
        )

    def replace_pod(self, old: str, new: str, serves: str) -> None:
        """Let a pod go, and another one of the same template take its place."""
        pod = self.cluster.remove("Pod", "web", old)
        self.cache.forget({**pod, "metadata": {**pod["metadata"], "resourceVersion": "998"}})
        annotations = {
            name: text
            for name, text in pod["metadata"]["annotations"].items()
            if not name.startswith("wsgi.dev/reload")
        }
        labels = {**pod["metadata"]["labels"], "wsgi.dev/app": "shop"}
        own = {"name": new, "uid": f"uid-{new}", "annotations": annotations, "labels": labels}
        self.agents.serves[new] = serves
        self.see({**pod, "metadata": {**pod["metadata"], **own}})

    async def reconcile(self, times: int = 1) -> float | None:
        again_s = None
        for _ in range(times):
            again_s = await self.reconciler.reconcile(KEY)
        return again_s

    def resource(self, kind: str) -> Manifest:
        return self.cluster.objects[kind, "web", "shop"]

    def condition(self, kind: str) -> tuple[str, str]:
        conditions = self.resource("WsgiApp")["status"]["conditions"]
        found = next(c for c in conditions if c["type"] == kind)
        return found["status"], found["reason"]

    def events(self) -> list[str]:
        return [m["reason"] for (kind, _, _), m in self.cluster.objects.items() if kind == "Event"]


@pytest.fixture
async def world() -> World:
    """Three pods that serve version 1, settled."""
    world = World()
    first = world.write_code("VERSION = 1")
    world.see(make_manifest())
    await world.reconcile()
    world.run_pods(first)
    await world.reconcile()
    world.cluster.writes.clear()
    return world


async def test_applied_app_has_its_resources_and_gets_ready(world: World) -> None:
    assert {"Deployment", "Service", "ServiceAccount", "PodDisruptionBudget"} <= {
        k[0] for k in world.cluster.objects
    }
    assert world.condition("Ready") == ("True", "Serving")


@pytest.mark.parametrize("name", ["own-account", "shop"])
async def test_service_account_stays_until_no_pod_is_made_with_it(world: World, name: str) -> None:
    """A rollout to an account that does not exist is stuck, and pods of the old template that go are made anew."""
    world.see(make_manifest(podTemplate={"spec": {"serviceAccountName": name}}))
    await world.reconcile()
    world.see(world.resource("Deployment"))
    await world.reconcile()
    assert ("ServiceAccount", "web", "shop") in world.cluster.objects
    world.run_pods(world.agents.serves["shop-0"])
    await world.reconcile()
    is_there = ("ServiceAccount", "web", "shop") in world.cluster.objects
    assert is_there is (name == "shop")


async def test_settled_app_is_looked_at_without_a_write(world: World) -> None:
    again_s = await world.reconcile()
    assert again_s is not None
    assert again_s >= RESYNC_S * (1 - JITTER)
    assert world.cluster.writes == []


async def test_settled_apps_are_not_looked_at_all_at_once(world: World) -> None:
    assert len({await world.reconcile() for _ in range(20)}) == 20


async def test_app_whose_pods_are_not_ready_is_looked_at_less_and_less_often(world: World) -> None:
    for number in range(3):
        pod = world.cluster.objects["Pod", "web", f"shop-{number}"]
        conditions = [{"type": "Ready", "status": "False"}]
        world.see({**pod, "status": {**pod["status"], "conditions": conditions}})
    soon_s = await world.reconcile()
    world.reconciler.quiet_since[KEY] -= 40.0
    later_s = await world.reconcile()
    world.reconciler.quiet_since[KEY] -= 10_000.0
    last_s = await world.reconcile()
    assert soon_s is not None
    assert later_s is not None
    assert last_s is not None
    assert soon_s < 10 < 120 <= later_s < 210
    assert later_s < last_s <= LONGEST_WAIT_S * (1 + JITTER)


async def test_app_whose_newest_content_is_not_kept_yet_is_looked_at_again_soon() -> None:
    world = World()
    first = world.write_code("VERSION = 1")
    world.see(make_manifest())
    await world.reconcile()
    world.run_pods(first)
    world.agents.steady_s = 0.0
    again_s = await world.reconcile()
    assert again_s is not None
    assert again_s < 10


async def test_new_operator_writes_nothing_to_a_settled_cluster(world: World) -> None:
    world.start_operator()
    await list_everything(world.cluster, world.cache, ())  # type: ignore[arg-type]  # a fake
    await world.reconcile()
    assert world.cluster.writes == []


async def test_changed_code_reaches_all_pods_one_by_one(world: World) -> None:
    second = world.write_code("VERSION = 2")
    await world.reconcile()
    assert list(world.agents.serves.values()).count(second) == 0
    assert [w for w in world.cluster.writes if w[0] == "merge"] == [("merge", "Pod", "shop-0")]
    assert world.condition("Reloaded") == ("Unknown", "Reloading")
    await world.reconcile(4)
    assert set(world.agents.serves.values()) == {second}
    assert world.condition("Reloaded") == ("True", "ContentLoaded")
    assert [e for e in world.events() if e.startswith("Reload")] == [
        "ReloadStarted",
        "ReloadFinished",
    ]
    assert not any(kind == "Deployment" for _, kind, _ in world.cluster.writes)


async def test_broken_code_stops_at_the_first_pod_and_the_fix_goes_through(world: World) -> None:
    world.agents.broken = world.write_code("VERSION = ")
    await world.reconcile(4)
    assert [name for verb, _, name in world.cluster.writes if verb == "merge"] == ["shop-0"]
    assert world.condition("Reloaded") == ("False", "ReloadFailed")
    assert world.condition("Available")[0] == "True"
    assert world.resource("WsgiApp")["status"]["reload"]["message"] == "ImportError: no"
    third = world.write_code("VERSION = 3")
    await world.reconcile(6)
    assert set(world.agents.serves.values()) == {third}
    assert world.condition("Ready") == ("True", "Serving")


async def test_failed_content_is_tried_on_no_other_pod_when_the_failed_one_is_gone(
    world: World,
) -> None:
    first = world.agents.serves["shop-0"]
    world.agents.broken = world.write_code("VERSION = ")
    await world.reconcile(3)
    world.replace_pod("shop-0", "shop-3", serves=first)
    world.start_operator()
    await list_everything(world.cluster, world.cache, ())  # type: ignore[arg-type]  # a fake
    await world.reconcile(4)
    assert [name for verb, _, name in world.cluster.writes if verb == "merge"] == ["shop-0"]
    assert world.condition("Reloaded") == ("False", "ReloadFailed")
    assert world.resource("WsgiApp")["status"]["reload"]["failedPod"] == "shop-0"


async def test_next_pod_is_asked_when_the_one_before_has_stayed_ready(world: World) -> None:
    world.agents.steady_s = 0.0
    world.write_code("VERSION = 2")
    await world.reconcile(4)
    assert [name for verb, _, name in world.cluster.writes if verb == "merge"] == ["shop-0"]
    world.agents.steady_s = 5.0
    await world.reconcile(4)
    assert world.condition("Reloaded") == ("True", "ContentLoaded")


async def test_operator_killed_in_the_middle_of_a_reload_finishes_it(world: World) -> None:
    second = world.write_code("VERSION = 2")
    await world.reconcile(2)
    assert 0 < list(world.agents.serves.values()).count(second) < 3
    world.start_operator()
    await list_everything(world.cluster, world.cache, ())  # type: ignore[arg-type]  # a fake
    await world.reconcile(4)
    assert set(world.agents.serves.values()) == {second}
    assert world.condition("Reloaded") == ("True", "ContentLoaded")


async def test_missing_code_is_waited_for_without_pods() -> None:
    world = World()
    world.see(make_manifest())
    await world.reconcile()
    assert world.condition("Ready") == ("False", "ConfigMapMissing")
    assert ("Deployment", "web", "shop") not in world.cluster.objects
    assert ("Service", "web", "shop") in world.cluster.objects
    world.write_code("VERSION = 1")
    await world.reconcile()
    assert ("Deployment", "web", "shop") in world.cluster.objects


async def test_code_deleted_under_running_pods_changes_nothing_that_runs(world: World) -> None:
    gone = world.cluster.remove("ConfigMap", "web", CODE.name)
    gone["metadata"]["resourceVersion"] = "999"
    world.cache.record_content(gone, deleted=True)
    await world.reconcile()
    assert world.condition("Ready") == ("False", "ConfigMapMissing")
    assert {kind for _, kind, _ in world.cluster.writes} <= {"WsgiApp", "Event"}


CONFIG_DB = {"name": "db", "secret": {"name": "db"}, "mountPath": "/etc/db", "onChange": "Restart"}
ENV_DB = {"secretRef": {"name": "db"}, "onChange": "Restart"}


@pytest.mark.parametrize("spec", [{"config": [CONFIG_DB]}, {"envFrom": [ENV_DB]}])
async def test_what_restarts_replaces_the_pods_when_it_changes(spec: dict[str, Any]) -> None:
    world = World()
    world.write_code("VERSION = 1")
    secret: dict[str, Any] = {
        "kind": "Secret",
        "metadata": {"name": "db", "namespace": "web"},
        "data": {"k": "eA=="},
    }
    world.see(secret)
    world.see(make_manifest(**spec))
    await world.reconcile()
    before = world.resource("Deployment")["spec"]["template"]
    secret["data"] = {"k": "eQ=="}
    world.see(secret)
    await world.reconcile()
    changed = world.resource("Deployment")["spec"]["template"]
    assert changed != before
    gone = world.cluster.remove("Secret", "web", "db")
    gone["metadata"]["resourceVersion"] = "999"
    world.cache.record_content(gone, deleted=True)
    await world.reconcile()
    assert world.resource("Deployment")["spec"]["template"] == changed


async def test_environment_of_an_object_that_is_missing_does_not_keep_the_pods_away() -> None:
    """The kubelet says what is missing, or goes on where it is optional."""
    world = World()
    world.write_code("VERSION = 1")
    world.see(make_manifest(envFrom=[ENV_DB]))
    await world.reconcile()
    assert ("Deployment", "web", "shop") in world.cluster.objects


async def test_number_of_busy_workers_alone_is_not_written_each_time(world: World) -> None:
    asked = world.agents._answer

    def busier(pod: Pod) -> AgentStatus:
        return replace(asked(pod), workers_busy=1)

    world.agents._answer = busier  # type: ignore[method-assign]  # the app has got requests
    await world.reconcile(5)
    assert world.cluster.writes == []


async def test_traffic_of_an_app_that_is_not_ready_does_not_make_it_looked_at_more_often(
    world: World,
) -> None:
    pod = world.cluster.objects["Pod", "web", "shop-0"]
    unready = {"conditions": [{"type": "Ready", "status": "False"}]}
    world.see({**pod, "status": {**pod["status"], **unready}})
    await world.reconcile(2)
    asked, busy = world.agents._answer, itertools.count(1)
    world.agents._answer = lambda pod: replace(asked(pod), workers_busy=next(busy))  # type: ignore[method-assign]
    world.cluster.writes.clear()
    for _ in range(4):
        for since in (world.reconciler.last_status_write, world.reconciler.quiet_since):
            since[KEY] -= 100.0
        pause_s = await world.reconciler.reconcile(KEY)
    assert world.cluster.writes == [("status", "WsgiApp", "shop")] * 4
    assert pause_s is not None
    assert pause_s >= 300.0 * 0.75


async def test_scaling_changes_the_replicas_and_no_pod(world: World) -> None:
    template = world.resource("Deployment")["spec"]["template"]
    app = world.resource("WsgiApp")
    world.see({**app, "spec": {**app["spec"], "replicas": 5}})
    await world.reconcile()
    assert world.resource("Deployment")["spec"]["replicas"] == 5
    assert world.resource("Deployment")["spec"]["template"] == template


async def test_spec_that_cannot_be_read_leaves_what_runs(world: World) -> None:
    app = world.resource("WsgiApp")
    world.see({**app, "spec": {"image": "shop:1"}})
    await world.reconcile()
    assert world.condition("Ready") == ("False", "InvalidSpec")
    assert {kind for _, kind, _ in world.cluster.writes} == {"WsgiApp"}


async def test_annotation_that_the_installation_does_not_allow_leaves_what_runs() -> None:
    world = World()
    world.platform = replace(PLATFORM, ingress_annotations=("nginx.org/proxy-*",))
    world.start_operator()
    annotations = {"nginx.org/server-snippets": "return 418;"}
    world.see(make_manifest(ingress={"hosts": ["a.example"], "annotations": annotations}))
    await world.reconcile()
    assert world.condition("Ready") == ("False", "InvalidSpec")
    assert {kind for _, kind, _ in world.cluster.writes} == {"WsgiApp"}


async def test_foreign_service_of_the_same_name_is_left_alone_and_told() -> None:
    world = World()
    world.write_code("VERSION = 1")
    foreign = {
        "kind": "Service",
        "metadata": {"name": "shop", "namespace": "web"},
        "spec": {"a": 1},
    }
    world.cluster.put(foreign)
    world.see(make_manifest())
    await world.reconcile()
    assert world.condition("Ready") == ("False", "NameConflict")
    assert world.resource("Service")["spec"] == {"a": 1}
    world.reconciler.last_status_write[KEY] -= 10_000.0
    again_s = await world.reconcile()
    assert again_s is not None
    assert again_s <= LONGEST_BLOCKED_WAIT_S * (1 + JITTER), "that it goes is reported by nothing"


async def test_deleted_app_is_forgotten_without_a_write(world: World) -> None:
    gone = world.cluster.remove("WsgiApp", "web", "shop")
    gone["metadata"]["resourceVersion"] = "999"
    world.cache.forget(gone)
    assert await world.reconcile() is None
    assert world.cluster.writes == []


async def test_app_made_anew_while_the_old_one_is_reconciled_is_not_forgotten(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    old_uid = world.resource("WsgiApp")["metadata"]["uid"]

    async def replace_app(pods: Iterable[Pod]) -> list[Pod]:
        """Delete and create the app while the agents are asked, and let the watch tell of it."""
        world.agents.ask_all = asked  # type: ignore[method-assign]
        world.cache.forget(world.cluster.remove("WsgiApp", "web", "shop"))
        anew = make_manifest(image="shop:2")
        anew["metadata"]["uid"] = "made-anew"
        world.see(anew)
        return await asked(pods)

    asked = world.agents.ask_all
    world.agents.ask_all = replace_app  # type: ignore[method-assign]
    await world.reconcile(3)
    assert old_uid != "made-anew"
    assert world.cache.apps() == [KEY]
    assert world.resource("WsgiApp")["status"]["observedGeneration"] == 1


async def test_deleted_app_whose_namesake_the_watch_brings_late_is_reconciled_then() -> None:
    world = World()
    world.write_code("VERSION = 1")
    world.see(make_manifest())
    world.cluster.remove("WsgiApp", "web", "shop")
    anew = make_manifest()
    anew["metadata"]["uid"] = "made-anew"
    stored = world.cluster.put(anew)
    assert await world.reconcile() == 0.0
    assert "status" not in world.resource("WsgiApp")
    world.cache.put(stored)
    await world.reconcile()
    owners = world.resource("Deployment")["metadata"]["ownerReferences"]
    assert [owner["uid"] for owner in owners] == ["made-anew"]


async def test_relabelled_and_then_deleted_pod_leaves_the_app_working(world: World) -> None:
    pod = world.cluster.objects["Pod", "web", "shop-0"]
    labels = {**pod["metadata"]["labels"], "wsgi.dev/app": "quarantine"}
    moved = world.see({**pod, "metadata": {**pod["metadata"], "labels": labels}})
    await world.reconcile()
    moved["metadata"]["resourceVersion"] = "999"
    world.cache.forget(moved)
    world.replace_pod("shop-0", "shop-3", serves="old")
    second = world.write_code("VERSION = 2")
    await world.reconcile(5)
    assert {world.agents.serves[f"shop-{i}"] for i in (1, 2, 3)} == {second}


async def test_pod_that_only_wears_the_labels_is_not_asked(world: World) -> None:
    pod = world.cluster.objects["Pod", "web", "shop-0"]
    metadata = {**pod["metadata"], "name": "stranger", "uid": "x", "ownerReferences": []}
    world.see({**pod, "metadata": metadata})
    second = world.write_code("VERSION = 2")
    await world.reconcile(6)
    assert set(world.agents.serves.values()) == {second}
    assert "stranger" not in world.agents.serves


async def test_resource_that_waits_for_its_finalizer_keeps_no_reload_and_no_status_away(
    world: World,
) -> None:
    service = world.resource("Service")
    going = {"deletionTimestamp": "2026-11-22T12:00:00Z", "finalizers": ["example.com/slow"]}
    world.see({**service, "metadata": {**service["metadata"], **going}})
    second = world.write_code("VERSION = 2")
    await world.reconcile(6)
    assert set(world.agents.serves.values()) == {second}
    assert world.condition("Ready") == ("False", "ResourceTerminating")


async def test_ingress_that_lost_its_labels_goes_with_the_spec_s_ingress() -> None:
    world = World()
    world.write_code("VERSION = 1")
    app = world.see(make_manifest(ingress={"hosts": ["shop.example.com"]}))
    await world.reconcile()
    ingress = world.cluster.objects["Ingress", "web", "shop"]
    ingress["metadata"]["labels"] = {}
    ingress["metadata"]["resourceVersion"] = "998"
    world.cache.put(ingress)
    app = world.resource("WsgiApp")
    del app["spec"]["ingress"]
    app["metadata"]["generation"] += 1
    app["metadata"]["resourceVersion"] = "999"
    world.cache.put(app)
    await world.reconcile()
    assert ("Ingress", "web", "shop") not in world.cluster.objects


async def test_ingress_class_that_there_is_not_is_told_with_the_remedy_until_it_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ingress_classes, "MISSING_S", 0.0)
    world = World()
    first = world.write_code("VERSION = 1")
    world.see(make_manifest(ingress={"className": "ngnix", "hosts": ["shop.example.com"]}))
    await world.reconcile()
    world.run_pods(first)
    again_s = await world.reconcile(2)
    assert again_s is not None
    assert again_s <= LONGEST_BLOCKED_WAIT_S * (1 + JITTER), "nothing reports that it is made"
    assert world.condition("Routed") == ("Unknown", "IngressClassMissing")
    assert world.condition("Ready") == ("True", "Serving"), "a controller may be set not to look"
    conditions = world.resource("WsgiApp")["status"]["conditions"]
    (message,) = (c["message"] for c in conditions if c["type"] == "Routed")
    assert "IngressClass ngnix, named by spec.ingress.className, does not exist" in message
    assert "kubectl get ingressclasses" in message
    assert world.events().count("IngressClassMissing") == 1
    world.cluster.put({"kind": "IngressClass", "metadata": {"name": "ngnix", "namespace": ""}})
    await world.reconcile()
    assert world.condition("Routed") == ("True", "HostsRouted")


async def test_namespace_that_may_not_be_listed_leaves_the_others_working() -> None:
    world = World()
    world.write_code("VERSION = 1")
    world.cluster.put(make_manifest())
    world.cluster.forbidden.add("gone")
    changed = await list_everything(world.cluster, world.cache, ("gone", "web"))  # type: ignore[arg-type]  # a fake
    assert changed == {KEY}


async def test_namespace_that_may_not_be_listed_for_a_while_keeps_what_is_known_of_it() -> None:
    world = World()
    world.see(make_manifest())
    world.cluster.forbidden.add("web")
    await list_everything(world.cluster, world.cache, ("web", "other"))  # type: ignore[arg-type]  # a fake
    assert world.cache.apps() == [KEY]


async def test_deletion_that_the_watch_never_told_of_is_found_out() -> None:
    world = World()
    world.write_code("VERSION = 1")
    world.see(make_manifest())
    world.cluster.remove("WsgiApp", "web", "shop")
    assert await world.reconcile() == 0.0
    assert await world.reconcile() is None
    assert world.cluster.writes == []


async def test_apps_whose_agents_are_silent_hold_up_no_other(world: World) -> None:
    pod = world.cluster.objects["Pod", "web", "shop-0"]
    app = world.resource("WsgiApp")
    queue: KeyedQueue[AppKey] = KeyedQueue()
    for i in range(200):
        name = f"silent-{i}"
        world.see({**app, "metadata": {**app["metadata"], "name": name, "uid": name}})
        owner = {"kind": "ReplicaSet", "name": f"{name}-1", "uid": "rs", "controller": True}
        labels = {**pod["metadata"]["labels"], "wsgi.dev/app": name}
        own = {"name": f"{name}-pod", "uid": f"{name}-pod", "labels": labels}
        world.see({**pod, "metadata": {**pod["metadata"], **own, "ownerReferences": [owner]}})
        queue.add(AppKey("web", name))
    asked = world.agents.ask_all

    async def ask_all(pods: Iterable[Pod]) -> list[Pod]:
        listed = list(pods)
        if any(pod.name.startswith("silent") for pod in listed):
            await asyncio.Event().wait()
        return await asked(listed)

    world.agents.ask_all = ask_all  # type: ignore[method-assign]
    second = world.write_code("VERSION = 2")
    queue.add(KEY)
    running = asyncio.create_task(queue.run(world.reconciler.reconcile, parallel=PARALLEL))
    try:
        async with asyncio.timeout(60):
            while set(world.agents.serves.values()) != {second}:  # noqa: ASYNC110 -- a fake
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@contextlib.asynccontextmanager
async def full_slots(world: World) -> AsyncIterator[None]:
    """Let rollouts that are followed hold every place, as while the API server is slow."""
    async with contextlib.AsyncExitStack() as held:
        for number in range(PLACES):
            other = AppKey("web", f"other-{number}")
            await held.enter_async_context(world.reconciler.slots.hold(other, first=False))
        yield


async def test_what_a_user_declares_does_not_queue_behind_what_is_followed(world: World) -> None:
    app = world.resource("WsgiApp")
    generation = app["metadata"]["generation"] + 1
    spec = {**app["spec"], "replicas": 7}
    world.see({**app, "metadata": {**app["metadata"], "generation": generation}, "spec": spec})
    async with full_slots(world):
        async with asyncio.timeout(60):
            await world.reconcile()
        assert world.resource("Deployment")["spec"]["replicas"] == 7
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await world.reconcile()


async def test_reload_does_not_queue_behind_what_is_followed_from_its_first_step_to_its_last(
    world: World,
) -> None:
    """Also where the app waits already, as all do when an operator has just started."""
    queue: KeyedQueue[AppKey] = KeyedQueue(on_first=world.reconciler.slots.put_first)
    async with full_slots(world):
        queue.add(KEY)
        running = asyncio.create_task(queue.run(world.reconciler.reconcile, parallel=PARALLEL))
        try:
            async with asyncio.timeout(60):
                while KEY not in world.reconciler.slots._common.waiting:  # noqa: ASYNC110 -- a fake
                    await asyncio.sleep(0)
                second = world.write_code("VERSION = 2")
                queue.add(KEY, FIRST)
                while set(world.agents.serves.values()) != {second}:  # noqa: ASYNC110 -- a fake
                    await asyncio.sleep(0.05)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


# -- upgrades ---------------------------------------------------------------------------------


async def upgraded_world() -> World:
    """Return a world whose app serves, and whose operator has just got a new version of the server."""
    world = World()
    world.see(make_manifest())
    serves = world.write_code("1")
    await world.reconcile()
    world.run_pods(serves)
    await world.reconcile(2)
    world.platform = replace(PLATFORM, prefork_image="wsgiapp/prefork:9")
    world.start_operator()
    await list_everything(world.cluster, world.cache, ())  # type: ignore[arg-type]  # a fake
    return world


async def test_an_upgrade_waits_for_its_turn_and_then_rolls_the_pods() -> None:
    world = await upgraded_world()
    other = AppKey("web", "other")
    assert world.reconciler.upgrades.ask(other, world.resource("Deployment")) is None
    before = world.resource("Deployment")["spec"]["template"]
    await world.reconcile()
    assert world.resource("Deployment")["spec"]["template"] == before
    assert world.condition("UpToDate") == ("False", "WaitingForUpgrade")
    assert world.condition("Ready") == ("True", "Serving")

    world.reconciler.upgrades.see(other, None)
    assert world.woken == [KEY]
    await world.reconcile()
    assert "prefork:9" in str(world.resource("Deployment")["spec"]["template"])
    types = [c["type"] for c in world.resource("WsgiApp")["status"]["conditions"]]
    assert "UpToDate" not in types


async def test_app_whose_new_pods_could_not_start_does_not_stop_everybodys_upgrade() -> None:
    world = await upgraded_world()
    before = world.resource("Deployment")["spec"]["template"]
    code = world.cluster.remove("ConfigMap", "web", CODE.name)
    version = str(int(code["metadata"]["resourceVersion"]) + 1000)
    gone = {**code, "metadata": {**code["metadata"], "resourceVersion": version}}
    world.cache.record_content(gone, deleted=True)
    await world.reconcile()
    assert world.resource("Deployment")["spec"]["template"] == before
    assert world.condition("UpToDate") == ("False", "WaitingForUpgrade")
    assert world.condition("Ready") == ("False", "ConfigMapMissing")
    assert (
        world.reconciler.upgrades.ask(AppKey("web", "other"), world.resource("Deployment")) is None
    )


async def test_app_at_which_an_upgrade_stops_says_so_with_the_reason_and_the_remedy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world = await upgraded_world()
    healthy = world.resource("Deployment")
    await world.reconcile()
    live = world.resource("Deployment")
    no_room = "0/3 nodes are available: 3 Insufficient memory."
    pod = world.cluster.objects["Pod", "web", "shop-0"]
    unplaced = {"type": "PodScheduled", "status": "False", "message": no_room}
    own = {**pod["metadata"], "name": "shop-new", "uid": "shop-new"}
    world.agents.silent.add("shop-new")
    world.see({**pod, "metadata": own, "status": {"phase": "Pending", "conditions": [unplaced]}})
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    numbers = {"replicas": 4, "updatedReplicas": 1, "conditions": [late]}
    observed = {"observedGeneration": live["metadata"]["generation"]}
    world.see({**live, "status": {**live["status"], **numbers, **observed}})
    await world.reconcile(2)
    conditions = world.resource("WsgiApp")["status"]["conditions"]
    (behind,) = (c for c in conditions if c["type"] == "UpToDate")
    assert (behind["status"], behind["reason"]) == ("False", "UpgradeFailed")
    remedy = "lower what the containers request (spec.resources)"
    assert f"pod shop-new: {no_room.rstrip('.')}; {remedy}" in behind["message"]
    assert "spec.rollout.paused" in behind["message"]
    assert world.events().count("UpgradeFailed") == 1
    (line,) = (r.getMessage() for r in caplog.records if "upgrade stopped" in r.getMessage())
    assert "web/shop" in line
    assert "spec.rollout.paused" in line
    waits = world.reconciler.upgrades.ask(AppKey("web", "other"), healthy)
    assert waits is not None
    assert "web/shop" in waits.message


async def test_app_that_was_not_ready_before_stops_no_upgrade() -> None:
    world = await upgraded_world()
    live = world.resource("Deployment")
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}
    broken = {**live["status"], "availableReplicas": 1, "conditions": [late]}
    world.see({**live, "status": broken})
    await world.reconcile(2)
    assert world.resource("Deployment")["spec"]["template"] == live["spec"]["template"]
    assert world.condition("UpToDate") == ("False", "WaitingForUpgrade")
    healthy = {**live, "metadata": {**live["metadata"], "name": "other"}}
    assert world.reconciler.upgrades.ask(AppKey("web", "other"), healthy) is None


async def test_what_the_user_changes_does_not_wait() -> None:
    world = await upgraded_world()
    assert (
        world.reconciler.upgrades.ask(AppKey("web", "other"), world.resource("Deployment")) is None
    )
    before = world.resource("Deployment")["spec"]["template"]
    world.see(merge(world.resource("WsgiApp"), {"spec": {"replicas": 5}}))
    await world.reconcile()
    assert world.resource("Deployment")["spec"]["replicas"] == 5
    assert world.resource("Deployment")["spec"]["template"] == before, "a scale is no rollout"

    world.see(merge(world.resource("WsgiApp"), {"spec": {"image": "shop:2"}}))
    await world.reconcile()
    template = str(world.resource("Deployment")["spec"]["template"])
    assert "shop:2" in template
    assert "prefork:9" in template


async def test_a_waiting_app_is_written_no_more_than_once() -> None:
    world = await upgraded_world()
    world.reconciler.upgrades.ask(AppKey("web", "other"), world.resource("Deployment"))
    await world.reconcile()
    world.cluster.writes.clear()
    await world.reconcile(3)
    assert world.cluster.writes == []


async def test_more_memory_reaches_pods_that_are_not_ready_while_others_are_upgraded() -> None:
    world = await upgraded_world()
    live = world.resource("Deployment")
    world.reconciler.upgrades.ask(AppKey("web", "other"), live)
    world.see({**live, "status": {**live["status"], "availableReplicas": 0}})
    limits = {"limits": {"memory": "1Gi"}}
    world.see(merge(world.resource("WsgiApp"), {"spec": {"resources": limits}}))
    await world.reconcile()
    (container,) = world.resource("Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == limits


async def test_scale_that_is_refused_while_the_app_waits_is_told() -> None:
    world = await upgraded_world()
    world.reconciler.upgrades.ask(AppKey("web", "other"), world.resource("Deployment"))
    world.see(merge(world.resource("WsgiApp"), {"spec": {"replicas": 5}}))
    world.cluster.refusals["Deployment"] = ApiError(403, "at most 3 replicas here")
    await world.reconcile()
    assert world.condition("Ready") == ("False", "ApplyRefused")


async def test_app_whose_spec_gets_invalid_does_not_keep_its_turn() -> None:
    world = await upgraded_world()
    other, settled = AppKey("web", "other"), world.resource("Deployment")
    await world.reconcile()
    live = world.resource("Deployment")
    assert world.reconciler.upgrades.ask(other, settled) is not None
    status = {**live["status"], "observedGeneration": live["metadata"]["generation"]}
    world.see({**live, "status": status})
    world.see(merge(world.resource("WsgiApp"), {"spec": {"image": 5}}))
    await world.reconcile()
    assert world.condition("Ready") == ("False", "InvalidSpec")
    assert world.reconciler.upgrades.ask(other, settled) is None


REFUSALS = [
    ApiError(400, 'admission webhook "policy" denied the request: no'),
    ApiError(403, "is forbidden: ValidatingAdmissionPolicy 'no-annotations' denied request"),
    ApiError(413, "Request entity too large: limit is 3145728"),
    ApiError(422, 'admission webhook "policy" denied the request: no'),
    ApiError(500, 'Internal error occurred: failed calling webhook "policy": no endpoints'),
]


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: str(refusal.status))
async def test_reload_request_that_is_refused_is_told_and_the_rest_goes_on(
    world: World, refusal: ApiError
) -> None:
    second = world.write_code("VERSION = 2")
    world.see(merge(world.resource("WsgiApp"), {"spec": {"service": {"port": 81}}}))
    world.cluster.refusals["Pod"] = refusal
    again_s = await world.reconcile()
    reason = "WebhookFailed" if refusal.status == 500 else "ReloadRefused"
    assert world.condition("Reloaded") == ("False", reason)
    assert world.condition("Ready") == ("False", reason)
    assert world.condition("Stalled")[0] == ("False" if refusal.status == 500 else "True")
    message = world.resource("WsgiApp")["status"]["conditions"][0]["message"]
    assert "wsgi.dev/reload on Pod shop-0" in message
    assert refusal.message in message
    assert world.resource("Service")["spec"]["ports"][0]["port"] == 81
    assert world.events().count(reason) == 1
    assert again_s is not None
    assert again_s >= 1, "not asked again twice a second"
    del world.cluster.refusals["Pod"]
    await world.reconcile(8)
    assert world.condition("Reloaded") == ("True", "ContentLoaded")
    assert set(world.agents.serves.values()) == {second}


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: str(refusal.status))
async def test_status_that_is_refused_is_told_by_an_event_and_the_rest_goes_on(
    world: World, refusal: ApiError
) -> None:
    second = world.write_code("VERSION = 2")
    world.cluster.refusals["WsgiApp"] = refusal
    again_s = await world.reconcile(5)
    assert again_s is not None
    assert again_s <= LONGEST_BLOCKED_WAIT_S * (1 + JITTER)
    assert world.agents.serves["shop-0"] == second, "pods were asked all the same"
    events = [m for (kind, _, _), m in world.cluster.objects.items() if kind == "Event"]
    told = [event for event in events if event["type"] == "Warning"]
    assert len(told) == 1, "one that is counted up"
    assert "status of WsgiApp shop" in told[0]["message"]
    assert refusal.message in told[0]["message"]
    del world.cluster.refusals["WsgiApp"]
    await world.reconcile(8)
    assert world.condition("Ready") == ("True", "Serving")


async def test_refused_status_of_an_invalid_spec_is_told_by_an_event(world: World) -> None:
    world.see(merge(world.resource("WsgiApp"), {"spec": {"image": 5}}))
    world.cluster.refusals["WsgiApp"] = REFUSALS[1]
    await world.reconcile()
    assert "StatusRefused" in world.events()


# What has each kind written: a field that is changed, or None where the object is made anew.
WRITTEN: dict[str, dict[str, Any] | None] = {
    "ServiceAccount": None,
    "Service": {"service": {"port": 81}},
    "PodDisruptionBudget": {"disruptionBudget": {"maxUnavailable": 2}},
    "Deployment": {"rollout": {"maxSurge": 2}},
    "Ingress": {"ingress": {"hosts": ["shop.example.com"]}},
}


@pytest.mark.parametrize("kind", WRITTEN)
@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: str(refusal.status))
async def test_whatever_is_refused_the_status_says_so_and_the_rest_goes_on(
    world: World, kind: str, refusal: ApiError
) -> None:
    world.see(merge(world.resource("WsgiApp"), {"spec": WRITTEN[kind] or {}}))
    if WRITTEN[kind] is None:
        world.cache.forget(world.cluster.remove(kind, "web", "shop"))
    second = world.write_code("VERSION = 2")
    world.cluster.refusals[kind] = refusal
    await world.reconcile(5)
    ready = world.resource("WsgiApp")["status"]["conditions"][0]
    assert ready["reason"] == ("WebhookFailed" if refusal.status == 500 else "ApplyRefused")
    assert f"{kind} shop" in ready["message"]
    assert refusal.message in ready["message"]
    if kind != "Ingress":  # which changes the pods' arguments, so that they are replaced
        assert second in world.agents.serves.values()


async def test_upgrade_that_begins_is_in_the_status_before_it_is_in_the_deployment() -> None:
    world = await upgraded_world()
    world.cluster.writes.clear()
    await world.reconcile()
    written = [kind for verb, kind, _ in world.cluster.writes if kind in ("WsgiApp", "Deployment")]
    assert written[:2] == ["WsgiApp", "Deployment"]
    assert world.resource("WsgiApp")["status"]["podTemplate"]["upgrading"] is True
    assert world.condition("Ready")[0] == "False", "the status is whole again"

    world.run_pods(next(iter(world.agents.serves.values())))
    await world.reconcile()
    assert "upgrading" not in world.resource("WsgiApp")["status"]["podTemplate"]
    world.cluster.writes.clear()
    await world.reconcile(3)
    assert world.cluster.writes == []


async def test_operator_that_is_killed_while_an_app_is_upgraded_leaves_it_counted() -> None:
    world = await upgraded_world()
    settled = world.resource("Deployment")
    await world.reconcile()
    world.start_operator()
    await list_everything(world.cluster, world.cache, ())  # type: ignore[arg-type]  # a fake
    assert world.reconciler.upgrades.ask(AppKey("web", "other"), settled) is None
    world.start_operator()
    await list_everything(world.cluster, world.cache, ())  # type: ignore[arg-type]  # a fake
    world.reconciler.upgrades.see_all(world.cache)
    assert world.reconciler.upgrades.ask(AppKey("web", "other"), settled) is not None


async def test_upgrade_waits_where_the_status_that_counts_it_is_refused() -> None:
    world = await upgraded_world()
    before = world.resource("Deployment")["spec"]["template"]
    world.cluster.refusals["WsgiApp"] = REFUSALS[1]
    await world.reconcile()
    assert world.resource("Deployment")["spec"]["template"] == before
    assert (
        world.reconciler.upgrades.ask(AppKey("web", "other"), world.resource("Deployment")) is None
    )


async def test_annotations_of_one_app_stop_no_upgrade_of_another() -> None:
    world = await upgraded_world()
    await world.reconcile()
    world.run_pods(next(iter(world.agents.serves.values())))
    await world.reconcile()
    world.see(merge(world.resource("WsgiApp"), {"spec": {"image": "shop:broken"}}))
    await world.reconcile()
    live = world.resource("Deployment")
    stuck = [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}]
    name = live["spec"]["template"]["metadata"]["annotations"]["wsgi.dev/template"]
    marked = merge(live, {"metadata": {"annotations": {"wsgi.dev/upgrade": name}}})
    world.see({**marked, "status": {**live["status"], "conditions": stuck, "availableReplicas": 1}})
    await world.reconcile()
    world.start_operator()
    await list_everything(world.cluster, world.cache, ())  # type: ignore[arg-type]  # a fake
    await world.reconcile()
    other = world.resource("Deployment")
    whole = {**other["status"], "availableReplicas": other["spec"]["replicas"],
             "observedGeneration": other["metadata"]["generation"]}  # fmt: skip
    assert world.reconciler.upgrades.ask(AppKey("web", "other"), {**other, "status": whole}) is None
