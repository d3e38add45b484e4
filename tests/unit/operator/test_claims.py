"""Two installations never serve the same namespace; the second says whose it is, and serves when that goes."""

import asyncio
from collections.abc import Sequence

import pytest
from wsgiapp.types import Manifest
from wsgiapp_operator import leader_election
from wsgiapp_operator.claims import ALL, Claims
from wsgiapp_operator.client import ApiError
from wsgiapp_operator.leader_election import LeadershipLost

from tests.unit.operator.fake_cluster import FakeCluster

IN_VIRTUAL_TIME = True


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same proportions."""
    for name, value in {
        "DURATION_S": 0.8,
        "RENEW_S": 0.05,
        "DEADLINE_S": 0.6,
        "TRY_S": 0.02,
    }.items():
        monkeypatch.setattr(leader_election, name, value)


class Installation:
    """One replica of an installation, and what it says of others."""

    def __init__(self, cluster: FakeCluster, name: str, namespaces: Sequence[str] = ()) -> None:
        self.waits_for: str | None = "the Lease"
        self.claims = Claims(
            cluster, "kube-system", f"{name}-pod", name, namespaces, self._hear  # type: ignore[arg-type]  # a fake
        )  # fmt: skip
        self.task: asyncio.Task[None] | None = None

    def _hear(self, what: str | None) -> None:
        self.waits_for = what

    async def serve(self) -> None:
        """Acquire and renew from then on."""
        async with asyncio.timeout(20):
            await self.claims.acquire()
        self.task = asyncio.create_task(self.claims.keep())

    async def die(self) -> None:
        """Stop renewing, as a killed process does."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def stop(self) -> None:
        await self.die()
        await self.claims.release()


OVERLAPS = [
    ((), ()),
    ((), ("shop",)),
    (("shop",), ()),
    (("shop", "blog"), ("wiki", "shop")),
]


@pytest.mark.parametrize(("first", "second"), OVERLAPS)
async def test_the_second_of_two_that_overlap_waits_and_says_for_whom(
    first: Sequence[str], second: Sequence[str]
) -> None:
    cluster = FakeCluster()
    one, two = Installation(cluster, "a/one", first), Installation(cluster, "b/two", second)
    await one.serve()
    waiting = asyncio.create_task(two.serve())
    done, _ = await asyncio.wait([waiting], timeout=1.5)
    assert not done
    assert two.waits_for is not None
    assert "installation a/one of the operator" in two.waits_for
    assert "uninstall one of the two" in two.waits_for
    await one.stop()
    await waiting
    await two.stop()


@pytest.mark.parametrize(("first", "second"), OVERLAPS)
async def test_the_second_serves_when_the_first_was_killed(
    first: Sequence[str], second: Sequence[str]
) -> None:
    cluster = FakeCluster()
    one, two = Installation(cluster, "a/one", first), Installation(cluster, "b/two", second)
    await one.serve()
    await one.die()
    await two.serve()
    await two.stop()


async def test_installations_for_other_namespaces_serve_side_by_side() -> None:
    cluster = FakeCluster()
    installations = [
        Installation(cluster, "a/one", ["shop", "blog"]),
        Installation(cluster, "b/two", ["wiki"]),
    ]
    for each in installations:
        await each.serve()
    await asyncio.sleep(1.0)
    for each in installations:
        assert each.task is not None
        assert not each.task.done()
        assert each.waits_for == "the Lease", "nobody was told to wait for another"
        await each.stop()


async def test_two_that_start_at_once_do_not_both_serve_nor_both_wait() -> None:
    cluster = FakeCluster()
    installations = [Installation(cluster, "a/one"), Installation(cluster, "b/two", ["shop"])]
    tasks = [asyncio.create_task(each.claims.acquire()) for each in installations]
    async with asyncio.timeout(10):
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    assert [task.done() for task in tasks].count(True) == 1
    for task in tasks:
        task.cancel()


async def test_another_replica_is_no_other_installation() -> None:
    cluster = FakeCluster()
    first, second = Installation(cluster, "a/one"), Installation(cluster, "a/one")
    second.claims = Claims(cluster, "kube-system", "other-pod", "a/one", (), second._hear)  # type: ignore[arg-type]  # a fake
    await first.serve()
    waiting = asyncio.create_task(second.serve())
    await asyncio.wait([waiting], timeout=1.2)
    assert not waiting.done()
    assert second.waits_for is None, "it stands by, and is ready"
    await first.stop()
    await waiting
    await second.stop()


async def test_one_lost_lease_of_several_is_a_loss_of_all() -> None:
    cluster = FakeCluster()
    one = Installation(cluster, "a/one", ["shop", "blog"])
    await one.serve()
    lease = dict(cluster.objects["Lease", "kube-system", f"{ALL}.shop"])
    cluster.put({**lease, "spec": {**lease["spec"], "holderIdentity": "thief"}})
    assert one.task is not None
    with pytest.raises(LeadershipLost, match="taken by thief"):
        async with asyncio.timeout(5):
            await one.task


async def test_missing_permission_is_told_instead_of_waited_for() -> None:
    cluster = FakeCluster()
    cluster.forbidden.add("kube-system")
    with pytest.raises(ApiError, match="cannot list"):
        await Installation(cluster, "a/one").claims.acquire()


@pytest.mark.parametrize("namespaces", [(), ("shop",)])
async def test_api_server_that_fails_right_after_the_lease_was_acquired_is_asked_again(
    namespaces: Sequence[str],
) -> None:
    cluster = FakeCluster()
    one = Installation(cluster, "a/one", namespaces)
    list_overlaps, answers = one.claims._list_overlaps, iter([None, ApiError(500, "etcd"), None])

    async def flaky() -> dict[str, Manifest]:
        if (error := next(answers, None)) is not None:
            raise error
        return await list_overlaps()

    one.claims._list_overlaps = flaky  # type: ignore[method-assign]  # fails once
    await one.serve()
    await one.stop()
