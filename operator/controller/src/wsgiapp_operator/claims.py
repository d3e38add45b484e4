"""Which namespaces an installation of the operator serves, claimed by Leases: all of them, or none.

Every installation keeps its Leases in the same namespace (kube-system, as a rule), so that two of them see each
other wherever they run. One that serves all namespaces holds the Lease `wsgiapp-operator`; one that serves some
holds `wsgiapp-operator.NAMESPACE` for each. Where the claims of two installations overlap, the one that was
first serves, and the other says so and waits (docs/decisions/0023).
"""

import asyncio
import logging
import random
from collections.abc import Callable, Sequence

import aiohttp
from wsgiapp.names import MANAGED_BY, MANAGED_BY_LABEL
from wsgiapp.types import Manifest

from wsgiapp_operator import leader_election
from wsgiapp_operator.client import ApiError, Cluster
from wsgiapp_operator.leader_election import LeaderElection, LeadershipLost, describe

logger = logging.getLogger(__name__)

ALL = "wsgiapp-operator"
TRANSIENT = (ApiError, aiohttp.ClientError, TimeoutError)


class Claims:
    """Leadership of one replica over all that its installation serves."""

    def __init__(
        self,
        cluster: Cluster,
        lease_namespace: str,
        identity: str,
        installation: str,
        namespaces: Sequence[str],
        wait_for: Callable[[str | None], None],
        lease_role: str = "",
    ) -> None:
        """`wait_for` is told what is waited for: None where another replica of this installation leads."""
        self._cluster = cluster
        self._lease_namespace = lease_namespace
        self._serves_all = not namespaces
        self._rivals: dict[str, str] = {}  # by Lease
        self._wait_for = wait_for
        self._installation = installation
        # In one order for everybody, or two replicas could wait for each other.
        names = sorted(f"{ALL}.{namespace}" for namespace in set(namespaces)) or [ALL]
        self._elections = [
            LeaderElection(
                cluster,
                lease_namespace,
                name,
                identity,
                installation,
                self._note_holder(name),
                lease_role,
            )
            for name in names
        ]

    async def acquire(self) -> None:
        """Wait until this replica leads, and no other installation serves any of the same namespaces."""
        while True:
            dead = await self._wait_for_overlaps()
            try:
                for election in self._elections:
                    await election.acquire()
                for election in self._elections:  # the first may have expired since
                    await election.renew()
                overlaps = await self._list_overlaps()
                if all(describe(lease) == dead.get(name) for name, lease in overlaps.items()):
                    return
            except LeadershipLost as lost:
                logger.info("not all leases acquired, will be repeated: reason=%s", lost)
            except TRANSIENT as error:
                if isinstance(error, ApiError) and error.status == 403:
                    raise
                logger.warning("API server does not answer, will be repeated: error=%r", error)
            await self.release()
            await asyncio.sleep(random.uniform(1, 3) * leader_election.TRY_S)

    async def keep(self) -> None:
        """Renew until cancelled. Raises LeadershipLost."""
        keeping = [asyncio.create_task(election.keep()) for election in self._elections]
        try:
            await asyncio.wait(keeping, return_when=asyncio.FIRST_COMPLETED)
            for task in keeping:
                if task.done():
                    await task
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)

    async def release(self) -> None:
        """Give all Leases up, so that another replica takes over at once."""
        await asyncio.gather(*(election.release() for election in self._elections))

    async def _wait_for_overlaps(self) -> dict[str, tuple[str, str]]:
        """Wait until no overlapping Lease is renewed any more, by our own clock; return those, as they are."""
        clock = asyncio.get_running_loop().time
        seen: dict[str, tuple[tuple[str, str], float]] = {}
        while True:
            try:
                overlaps = await self._list_overlaps()
            except TRANSIENT as error:
                if isinstance(error, ApiError) and error.status == 403:
                    raise
                logger.warning("API server does not answer, will be repeated: error=%r", error)
            else:
                for name in [name for name in self._rivals if name not in overlaps]:
                    self._note_holder(name)("")
                for name, lease in overlaps.items():
                    state = describe(lease)
                    if seen.get(name, (None, 0))[0] != state:
                        seen[name] = (state, clock())
                alive = {
                    name: lease
                    for name, lease in overlaps.items()
                    if clock() - seen[name][1] <= leader_election.DURATION_S
                }
                if not alive:
                    return {name: describe(lease) for name, lease in overlaps.items()}
                for name, lease in alive.items():
                    self._note_holder(name)(leader_election.installation_of(lease))
            await asyncio.sleep(leader_election.TRY_S)

    async def _list_overlaps(self) -> dict[str, Manifest]:
        """Return the held Leases of other kinds of installation that serve a namespace of ours."""
        if not self._serves_all:
            lease = await self._cluster.get("Lease", self._lease_namespace, ALL)
            return {ALL: lease} if lease is not None and describe(lease)[0] else {}
        selector = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
        leases = self._cluster.list("Lease", self._lease_namespace, selector)
        return {
            lease["metadata"]["name"]: lease
            async for lease in leases
            if lease["metadata"]["name"] != ALL and describe(lease)[0]
        }

    def _note_holder(self, name: str) -> Callable[[str], None]:
        """Return what takes note of the installation that holds a Lease, "" for nobody."""

        def note(installation: str) -> None:
            before = self._rivals.pop(name, "")
            if installation in ("", self._installation):
                if installation and not self._rivals:
                    self._wait_for(None)
                return
            self._rivals[name] = installation
            if installation != before:
                logger.error("waiting for %s", explain(installation))
            self._wait_for(explain(installation))

        return note


def explain(installation: str) -> str:
    """Return what a replica waits for that another installation has forestalled."""
    return (
        f"installation {installation} of the operator, which serves these namespaces, to go; "
        "uninstall one of the two, or give each its own watchNamespaces"
    )
