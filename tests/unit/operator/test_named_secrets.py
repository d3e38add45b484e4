"""Only Secrets that a WsgiApp names are read, what they hold leaves the operator by keyed digests alone, and
without any permission on Secrets apps run and say what that costs."""

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from wsgiapp.digest import digest_object, with_key
from wsgiapp.types import Manifest, Ref
from wsgiapp_operator.cache import AppKey
from wsgiapp_operator.client import ApiError
from wsgiapp_operator.named_secrets import MOST_PER_S, POLL_S, NamedSecrets, pause_between
from wsgiapp_operator.reload import plan_reload
from wsgiapp_operator.resync import list_everything

from tests.unit.operator.samples import NOW, digests, make_app, make_manifest, make_pod
from tests.unit.operator.test_reconcile import KEY, World

RELOAD_DB = {"name": "db", "secret": {"name": "db"}, "mountPath": "/etc/db"}
RESTART_DB = {**RELOAD_DB, "onChange": "Restart"}
ENV_DB = {"secretRef": {"name": "db"}, "onChange": "Restart"}


def secret(text: str, name: str = "db") -> Manifest:
    data = {"password": base64.b64encode(text.encode()).decode()}
    return {"kind": "Secret", "metadata": {"name": name, "namespace": "web"}, "data": data}


class SecretWorld(World):
    """Notes which Secrets are read, and may be forbidden to."""

    def __init__(self, *, is_permitted: bool = True, **spec: Any) -> None:
        super().__init__()
        self.read: list[str] = []
        self.refused: set[str] = set()
        get = self.cluster.get

        async def note(kind: str, namespace: str, name: str) -> Manifest | None:
            if kind == "Secret":
                self.read.append(name)
                if name in self.refused:
                    raise ApiError(403, f'secrets "{name}" is forbidden')
            return await get(kind, namespace, name)

        self.cluster.get = note  # type: ignore[method-assign]  # noted
        self.secrets = NamedSecrets(self.cluster, self.cache, is_permitted=is_permitted)  # type: ignore[arg-type]
        self.reconciler = replace(self.reconciler, secrets=self.secrets)
        self.write_code("VERSION = 1")
        self.cluster.put(secret("hunter2"))
        self.cluster.put(secret("other", "not-named"))
        self.see(make_manifest(**spec))

    @property
    def app_key(self) -> bytes:
        return base64.b64decode(
            self.cluster.objects["Secret", "web", "shop-digest-key"]["data"]["key"]
        )

    def conditions(self) -> dict[str, Manifest]:
        return {c["type"]: c for c in self.resource("WsgiApp")["status"]["conditions"]}

    async def poll(self) -> set[AppKey]:
        """Look at every named Secret once; return the apps that are woken."""
        woken: set[AppKey] = set()
        rounds = iter([False] * len(self.cache.referred("Secret")))

        async def sleep(_: float) -> None:
            if next(rounds, True):
                raise StopAsyncIteration

        with pytest.raises((StopAsyncIteration, RuntimeError)):
            await self.secrets.poll_forever(woken.add, sleep)
        return woken


@pytest.mark.parametrize(
    "spec", [{"config": [RELOAD_DB]}, {"config": [RESTART_DB]}, {"envFrom": [ENV_DB]}]
)
async def test_nothing_written_tells_what_a_secret_holds(spec: dict[str, Any]) -> None:
    world = SecretWorld(**spec)
    await world.reconcile()
    world.run_pods("another")
    await world.reconcile(2)
    plain = digest_object(secret("hunter2"))
    shown = {key: each for key, each in world.cluster.objects.items() if key[0] != "Secret"}
    assert plain[:12] not in json.dumps(list(shown.values()))
    keyed = with_key(plain, world.app_key)
    assert keyed in json.dumps(list(shown.values())), "agents and pods are told by the app's key"


async def test_only_named_secrets_are_read_and_none_are_listed() -> None:
    world = SecretWorld(config=[RELOAD_DB])
    listed: list[str] = []
    list_kind = world.cluster.list

    def note(kind: str, *arguments: Any, **options: Any) -> Any:
        listed.append(kind)
        return list_kind(kind, *arguments, **options)

    world.cluster.list = note  # type: ignore[method-assign]  # noted
    await list_everything(world.cluster, world.cache, ())  # type: ignore[arg-type]  # a fake
    await world.reconcile(3)
    assert set(world.read) == {"db", "shop-digest-key"}
    assert "Secret" not in listed


async def test_secret_is_read_once_and_then_polled() -> None:
    world = SecretWorld(config=[RESTART_DB])
    await world.reconcile(3)
    assert world.read.count("db") == 1
    before = world.resource("Deployment")["spec"]["template"]
    assert await world.poll() == set()
    world.cluster.put(secret("hunter3"))
    assert await world.poll() == {KEY}
    await world.reconcile()
    assert world.resource("Deployment")["spec"]["template"] != before


async def test_touched_secret_with_the_same_content_changes_no_pod() -> None:
    world = SecretWorld(config=[RESTART_DB])
    await world.reconcile()
    before = world.resource("Deployment")["spec"]["template"]
    world.cluster.put(secret("hunter2"))
    await world.poll()
    await world.reconcile()
    assert world.resource("Deployment")["spec"]["template"] == before


async def test_secret_that_goes_and_comes_is_missing_meanwhile() -> None:
    world = SecretWorld(config=[RELOAD_DB])
    await world.reconcile()
    world.cluster.remove("Secret", "web", "db")
    assert await world.poll() == {KEY}
    await world.reconcile()
    assert world.condition("Ready") == ("False", "SecretMissing")
    world.cluster.put(secret("hunter2"))
    assert await world.poll() == {KEY}


async def test_secret_that_no_app_names_any_more_is_not_looked_at() -> None:
    """Rounds are long where there are many: an app, or its namespace, may go in the middle of one."""
    world = SecretWorld(config=[RELOAD_DB])
    await world.reconcile()
    world.read.clear()

    async def drop_app(_: float) -> None:
        if not world.cache.referred("Secret"):
            raise StopAsyncIteration
        world.cache.refer(KEY, ())

    with pytest.raises(StopAsyncIteration):
        await world.secrets.poll_forever(lambda app: None, drop_app)
    assert world.read == []


async def test_secret_of_a_restored_backup_counts_though_it_is_older() -> None:
    world = SecretWorld(config=[RESTART_DB])
    older = world.cluster.objects["Secret", "web", "db"]
    world.cluster.put(secret("hunter3"))
    await world.reconcile()
    newer = world.resource("Deployment")["spec"]["template"]
    world.cluster.objects["Secret", "web", "db"] = older
    assert await world.poll() == {KEY}
    await world.reconcile()
    assert world.resource("Deployment")["spec"]["template"] != newer
    assert await world.poll() == set()


async def test_secret_that_is_gone_when_it_may_be_read_again_is_missing() -> None:
    world = SecretWorld(config=[RELOAD_DB])
    await world.reconcile()
    world.refused = {"db"}
    assert await world.poll() == {KEY}
    await world.reconcile()
    assert world.conditions()["SecretsRead"]["reason"] == "Forbidden"
    world.cluster.remove("Secret", "web", "db")
    world.refused = set()
    assert await world.poll() == {KEY}
    await world.reconcile()
    assert world.condition("Ready") == ("False", "SecretMissing")


@pytest.mark.parametrize("status", [400, 403, 422])
async def test_key_that_an_admission_policy_refuses_keeps_the_app_from_nothing_else(
    status: int,
) -> None:
    world = SecretWorld(config=[RELOAD_DB])
    world.cluster.refusals["Secret"] = ApiError(status, "policy: Secrets come from the vault")
    await world.reconcile()
    told = world.conditions()["SecretsRead"]
    assert (told["status"], told["reason"]) == ("False", "Forbidden")
    assert "Secrets come from the vault" in told["message"]
    assert "admission policies" in told["message"]
    assert world.resource("Deployment")


async def test_new_operator_names_things_as_the_one_before() -> None:
    world = SecretWorld(config=[RESTART_DB])
    await world.reconcile()
    key = world.app_key
    world.cluster.writes.clear()
    world.secrets = NamedSecrets(world.cluster, world.cache)  # type: ignore[arg-type]  # a fake
    world.reconciler = replace(world.reconciler, secrets=world.secrets)
    await world.reconcile()
    assert (world.app_key, world.cluster.writes) == (key, [])


async def test_deleted_key_is_made_anew_as_it_was() -> None:
    world = SecretWorld(config=[RESTART_DB])
    await world.reconcile()
    key = world.app_key
    world.cluster.remove("Secret", "web", "shop-digest-key")
    assert await world.poll() == {KEY}
    await world.reconcile()
    assert world.app_key == key


@pytest.mark.parametrize("restarted", [True, False])
async def test_key_stays_while_an_app_moves_to_a_configmap_and_is_the_same_when_it_comes_back(
    restarted: bool,
) -> None:
    """Deleting it would need `delete` on all Secrets, and the pods of before still name their contents by it."""
    world = SecretWorld(config=[RESTART_DB])
    await world.reconcile()
    before, key = world.resource("Deployment")["spec"]["template"], world.app_key
    moved = {"name": "db", "configMap": {"name": "shop-code"}, "mountPath": "/etc/db"}
    for config in ([moved], []):
        world.see({**world.resource("WsgiApp"), "spec": make_manifest(config=config)["spec"]})
        world.read.clear()
        await world.reconcile(2)
        assert world.read == [], "nothing is asked of Secrets any more"
        assert "digest-key" not in json.dumps(world.resource("Deployment")["spec"]["template"])
        assert world.app_key == key
    if restarted:
        world.secrets.forget(KEY)
    world.see({**world.resource("WsgiApp"), "spec": make_manifest(config=[RESTART_DB])["spec"]})
    await world.reconcile(2)
    assert world.app_key == key
    assert world.resource("Deployment")["spec"]["template"] == before


async def test_keys_of_two_apps_differ() -> None:
    one, other = SecretWorld(config=[RESTART_DB]), SecretWorld(config=[RESTART_DB])
    await one.reconcile()
    await other.reconcile()
    assert one.app_key != other.app_key


async def test_key_of_another_owner_is_not_used() -> None:
    world = SecretWorld(config=[RELOAD_DB])
    world.cluster.put({**secret("x", "shop-digest-key"), "data": {"key": "eA=="}})
    await world.reconcile()
    told = world.conditions()["SecretsRead"]
    assert (told["status"], told["reason"]) == ("False", "NameConflict")
    assert "shop-digest-key already exists" in told["message"]


async def test_key_that_an_orphaning_deletion_left_is_used_as_it_is() -> None:
    world = SecretWorld(config=[RESTART_DB])
    await world.reconcile()
    key, template = world.app_key, world.resource("Deployment")["spec"]["template"]
    for identity in (("Secret", "web", "shop-digest-key"), ("Deployment", "web", "shop")):
        # What `kubectl delete --cascade=orphan` leaves: the labels, and no owner.
        left = world.cluster.objects[identity]
        metadata = {k: v for k, v in left["metadata"].items() if k != "ownerReferences"}
        world.cluster.objects[identity] = {**left, "metadata": metadata}
    again = make_manifest(config=[RESTART_DB])
    again["metadata"]["uid"] = "another-uid"
    world.cluster.remove("WsgiApp", "web", "shop")
    world.start_operator()
    world.secrets = NamedSecrets(world.cluster, world.cache)  # type: ignore[arg-type]  # a fake
    world.reconciler = replace(world.reconciler, secrets=world.secrets)
    world.see(again)
    await world.reconcile()
    assert "SecretsRead" not in world.conditions()
    assert world.app_key == key
    assert world.resource("Deployment")["spec"]["template"] == template, "no pod is replaced"


@pytest.mark.parametrize(
    "foreign",
    [
        {"labels": {"app.kubernetes.io/managed-by": "wsgiapp-operator", "wsgi.dev/app": "other"}},
        {"labels": {"wsgi.dev/app": "shop"}},
        {
            "labels": {"app.kubernetes.io/managed-by": "wsgiapp-operator", "wsgi.dev/app": "shop"},
            "ownerReferences": [{"kind": "Vault", "name": "v", "uid": "v", "controller": True}],
        },
    ],
)
async def test_secret_that_only_looks_like_a_key_is_not_used(foreign: dict[str, Any]) -> None:
    world = SecretWorld(config=[RELOAD_DB])
    manifest = {**secret("x", "shop-digest-key"), "data": {"key": "eA=="}}
    world.cluster.put({**manifest, "metadata": {**manifest["metadata"], **foreign}})
    await world.reconcile()
    assert world.conditions()["SecretsRead"]["reason"] == "NameConflict"


@pytest.mark.parametrize(
    "spec", [{"config": [RELOAD_DB]}, {"config": [RESTART_DB]}, {"envFrom": [ENV_DB]}]
)
async def test_without_permission_the_app_runs_and_says_what_to_do(spec: dict[str, Any]) -> None:
    world = SecretWorld(is_permitted=False, **spec)
    await world.reconcile()
    world.run_pods(digest_object(world.cluster.objects["ConfigMap", "web", "shop-code"]))
    await world.reconcile(2)
    assert world.read == []
    assert [w for w in world.cluster.writes if w[1] == "Secret"] == []
    told = world.conditions()["SecretsRead"]
    assert (told["status"], told["reason"]) == ("False", "NotPermitted")
    assert "chart value secrets.read is false" in told["message"]
    assert "kubectl rollout restart deployment shop --namespace=web" in told["message"]
    assert world.condition("Ready") == ("True", "Serving")
    assert world.condition("Reloaded") == ("True", "ContentLoaded")


async def test_taking_the_permission_away_replaces_no_pod() -> None:
    world = SecretWorld(config=[RESTART_DB])
    await world.reconcile()
    before = world.resource("Deployment")["spec"]["template"]
    world.secrets = NamedSecrets(world.cluster, world.cache, is_permitted=False)  # type: ignore[arg-type]
    world.reconciler = replace(world.reconciler, secrets=world.secrets)
    await world.reconcile()
    assert world.resource("Deployment")["spec"]["template"] == before


async def test_without_permission_tls_is_not_judged_and_says_so() -> None:
    world = SecretWorld(
        is_permitted=False, ingress={"hosts": ["shop.example.com"], "tls": {"secretName": "site"}}
    )
    await world.reconcile()
    assert world.read == []
    assert "when site changes" in world.conditions()["SecretsRead"]["message"]
    assert world.condition("Routed") == ("True", "HostsRouted")


async def test_environment_that_only_the_kubelet_reads_needs_no_permission() -> None:
    world = SecretWorld(is_permitted=False, envFrom=[{"secretRef": {"name": "db"}}])
    await world.reconcile()
    assert "SecretsRead" not in world.conditions()


async def test_secret_that_rbac_refuses_is_named_and_the_others_are_read() -> None:
    also = {"name": "also", "secret": {"name": "also"}, "mountPath": "/etc/also"}
    world = SecretWorld(config=[RELOAD_DB, also])
    world.cluster.put(secret("y", "also"))
    world.refused = {"db"}
    await world.reconcile()
    told = world.conditions()["SecretsRead"]
    assert told["reason"] == "Forbidden"
    assert "Secret db" in told["message"]
    assert "get and create on Secrets" in told["message"]
    world.refused = set()
    await world.reconcile()
    assert "SecretsRead" not in world.conditions()


def test_pods_without_the_key_are_asked_by_the_digest_that_they_know() -> None:
    app = make_app(config=[RELOAD_DB], replicas=1)
    ref = Ref("Secret", "db")
    seen = {**digests("code"), ref: digests("keyed")[next(iter(digests("")))]}
    contents = {"source": next(iter(digests(""))), "db": ref}
    old, new = (make_pod(name, contents=contents, has_key=name == "b") for name in "ab")
    assert new.agent is not None
    # Its WsgiApp pins an image whose agent does not know of keys.
    pinned = replace(new, agent=replace(new.agent, is_keyed=False))
    for pod, digest in ((old, "plain"), (new, "keyed"), (pinned, "plain")):
        plan = plan_reload(app, "t1", (pod,), seen, NOW, plain={ref: "plain"})
        assert plan.ask[0][1].content == {"source": "code", "db": digest}


def test_polling_is_bounded_however_many_secrets_there_are() -> None:
    assert POLL_S * 0.5 <= pause_between(1) <= POLL_S * 1.5
    rounds = [pause_between(5000) for _ in range(1000)]
    assert min(rounds) >= 0.5 / MOST_PER_S
    assert 0.8 / MOST_PER_S < sum(rounds) / 1000 < 1.2 / MOST_PER_S
