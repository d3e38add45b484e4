"""One holder at a time; a holder that goes says so, one that dies is replaced by the clock."""

import asyncio
from collections.abc import Callable

import pytest
from wsgiapp.types import Manifest
from wsgiapp_operator import leader_election as election_module
from wsgiapp_operator.client import ApiError
from wsgiapp_operator.leader_election import LeaderElection, LeadershipLost

from tests.unit.operator.fake_cluster import FakeCluster

NAME = "wsgiapp-operator"
IN_VIRTUAL_TIME = True


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "DURATION_S": 0.8,
        "RENEW_S": 0.03,
        "DEADLINE_S": 0.6,
        "TRY_S": 0.03,
    }.items():
        monkeypatch.setattr(election_module, name, value)


def make(
    cluster: FakeCluster, identity: str, report_holder: Callable[[str], None] = lambda holder: None
) -> LeaderElection:
    return LeaderElection(cluster, "system", NAME, identity, "ns/release", report_holder)  # type: ignore[arg-type]  # a fake


def holder(cluster: FakeCluster) -> str:
    return str(cluster.objects["Lease", "system", NAME]["spec"]["holderIdentity"])


async def test_second_replica_waits_and_takes_over_after_a_release() -> None:
    cluster = FakeCluster()
    standby: list[str] = []
    first, second = make(cluster, "first"), make(cluster, "second", standby.append)
    await first.acquire()
    keeping = asyncio.create_task(first.keep())
    waiting = asyncio.create_task(second.acquire())
    done, _ = await asyncio.wait([waiting], timeout=1.5)
    assert not done, "taken from a holder that renews"
    assert set(standby) == {"ns/release"}
    keeping.cancel()
    await first.release()
    async with asyncio.timeout(10):
        await waiting
    assert holder(cluster) == "second"
    assert cluster.objects["Lease", "system", NAME]["spec"]["leaseTransitions"] == 2


async def test_holder_that_died_is_replaced() -> None:
    cluster = FakeCluster()
    await make(cluster, "dead").acquire()
    async with asyncio.timeout(10):
        await make(cluster, "next").acquire()
    assert holder(cluster) == "next"


async def test_restarted_holder_has_its_lease_back_at_once() -> None:
    cluster = FakeCluster()
    await make(cluster, "pod-a").acquire()
    async with asyncio.timeout(0.5):
        await make(cluster, "pod-a").acquire()


async def test_holder_stops_when_another_has_taken_over() -> None:
    cluster = FakeCluster()
    first = make(cluster, "first")
    await first.acquire()
    stolen = dict(cluster.objects["Lease", "system", NAME])
    stolen["spec"] = {**stolen["spec"], "holderIdentity": "thief"}
    cluster.put(stolen)
    with pytest.raises(LeadershipLost, match="taken by thief"):
        await first.keep()
    await first.release()
    assert holder(cluster) == "thief", "released what was another's"


async def test_holder_stops_when_it_cannot_renew_in_time() -> None:
    cluster = FakeCluster()
    lease = make(cluster, "first")
    await lease.acquire()
    cluster.refusals["Lease"] = ApiError(503, "away")
    with pytest.raises(LeadershipLost, match="could not be renewed"):
        await lease.keep()


async def test_time_between_acquiring_and_keeping_counts() -> None:
    """Another replica may have taken the Lease by then: its holder must not begin to work."""
    cluster = FakeCluster()
    lease = make(cluster, "first")
    await lease.acquire()
    await asyncio.sleep(election_module.DEADLINE_S)
    async with asyncio.timeout(10):
        with pytest.raises(LeadershipLost, match="could not be renewed"):
            await lease.keep()


async def test_lease_that_somebody_deleted_is_made_anew() -> None:
    cluster = FakeCluster()
    lease = make(cluster, "first")
    await lease.acquire()
    cluster.remove("Lease", "system", NAME)
    keeping = asyncio.create_task(lease.keep())
    async with asyncio.timeout(10):
        while ("Lease", "system", NAME) not in cluster.objects:  # noqa: ASYNC110 -- the fake has no event
            await asyncio.sleep(0.005)
    keeping.cancel()
    assert holder(cluster) == "first"


async def test_missing_permission_is_told_instead_of_waited_for() -> None:
    cluster = FakeCluster()
    cluster.refusals["Lease"] = ApiError(403, "leases is forbidden")
    with pytest.raises(ApiError, match="forbidden"):
        await make(cluster, "first").acquire()


async def test_holder_stops_at_its_deadline_while_the_api_server_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(election_module, "RENEW_S", 0.01)
    monkeypatch.setattr(election_module, "DEADLINE_S", 0.2)
    cluster = FakeCluster()
    election = make(cluster, "a")
    await election.acquire()

    async def hang(manifest: Manifest) -> Manifest:
        await asyncio.Event().wait()
        return manifest

    monkeypatch.setattr(cluster, "replace", hang)
    with pytest.raises(LeadershipLost, match="could not be renewed"):
        async with asyncio.timeout(10):
            await election.keep()


async def test_renewing_ends_in_silence_after_a_release() -> None:
    """A stop gives the Lease back while watching takes seconds to end."""
    cluster = FakeCluster()
    election = make(cluster, "first")
    await election.acquire()
    keeping = asyncio.create_task(election.keep())
    await election.release()
    async with asyncio.timeout(5):
        await keeping
    assert holder(cluster) == ""


async def test_release_waits_for_the_answer_to_a_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = FakeCluster()
    election = make(cluster, "first")
    await election.acquire()
    asked, answered, replace = asyncio.Event(), asyncio.Event(), cluster.replace

    async def slow(manifest: Manifest) -> Manifest:
        stored = await replace(manifest)
        asked.set()
        await answered.wait()
        return stored

    monkeypatch.setattr(cluster, "replace", slow)
    keeping = asyncio.create_task(election.keep())
    await asked.wait()
    releasing = asyncio.create_task(election.release())
    await asyncio.sleep(0)
    answered.set()
    async with asyncio.timeout(5):
        await asyncio.gather(releasing, keeping)
    assert holder(cluster) == "", "the Lease was left to expire"


async def test_holder_stops_at_its_deadline_though_it_would_renew_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(election_module, "RENEW_S", 60.0)
    cluster = FakeCluster()
    election = make(cluster, "first")
    await election.acquire()
    cluster.refusals["Lease"] = ApiError(503, "away")
    with pytest.raises(LeadershipLost):
        async with asyncio.timeout(10):
            await election.keep()


@pytest.mark.parametrize("role", ["", NAME])
async def test_lease_is_owned_by_the_role_with_which_it_goes(role: str) -> None:
    cluster = FakeCluster()
    found = cluster.put({"kind": "Role", "metadata": {"name": NAME, "namespace": "system"}})
    election = LeaderElection(cluster, "system", NAME, "pod", "ns/release", role=role)  # type: ignore[arg-type]  # a fake
    await election.acquire()
    owners = cluster.objects["Lease", "system", NAME]["metadata"]["ownerReferences"]
    assert [owner["uid"] for owner in owners] == ([found["metadata"]["uid"]] if role else [])


async def test_lease_that_has_gone_with_a_role_that_was_made_anew_is_taken_again() -> None:
    cluster = FakeCluster()
    election = make(cluster, "first")
    await election.acquire()
    cluster.remove("Lease", "system", NAME)
    await election.renew()
    assert holder(cluster) == "first"


async def test_role_that_may_not_be_read_owns_nothing() -> None:
    class Refusing(FakeCluster):
        async def get(self, kind: str, namespace: str, name: str) -> Manifest | None:
            if kind == "Role":
                raise ApiError(403, "roles is forbidden")
            return await super().get(kind, namespace, name)

    cluster = Refusing()
    await LeaderElection(cluster, "system", NAME, "pod", "ns/release", role=NAME).acquire()  # type: ignore[arg-type]  # a fake
    assert holder(cluster) == "pod"
