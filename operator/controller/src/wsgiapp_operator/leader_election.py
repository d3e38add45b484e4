"""Leadership: one Lease, one holder. Knows nothing of apps.

The holder renews; another takes over when it has not seen a renewal for `DURATION_S` by its own clock,
or at once after a release. Semantics as in
https://kubernetes.io/docs/concepts/architecture/leases/; clocks of different machines are never compared.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime

import aiohttp
from wsgiapp.names import INSTALLATION_ANNOTATION, MANAGED_BY, MANAGED_BY_LABEL
from wsgiapp.types import Manifest

from wsgiapp_operator.client import ApiError, Cluster

logger = logging.getLogger(__name__)

# A pod that is killed is replaced within DURATION_S and one TRY_S.
DURATION_S = 4
RENEW_S = 1.0
DEADLINE_S = 3.0  # without a renewal for so long the holder stops: before anybody may take over
TRY_S = 0.4


class LeadershipLost(Exception):  # noqa: N818 -- an event in a Lease's life
    """Another holds the Lease, or it could not be renewed in time."""


class LeaderElection:
    """One Lease of one holder; `installation` names the Helm release or the like that the holder is of.

    The Lease is owned by the Role `role`, of the same namespace, where there is one. When an installation goes, its
    permissions go before its pods have ended: then nobody could take the Lease away but the garbage collector.
    """

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        identity: str,
        installation: str,
        report_holder: Callable[[str], None] = lambda installation: None,
        role: str = "",
    ) -> None:
        self._cluster = cluster
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._installation = installation
        self._report_holder = report_holder
        self._role = role
        self._held: Manifest | None = None
        self._renewed_at = 0.0  # when the last write that succeeded was asked for, by our own clock
        self._writing = asyncio.Lock()  # a release waits for the answer to a renewal

    async def acquire(self) -> None:
        """Wait until the Lease is ours; `report_holder` is told whose it is meanwhile."""
        seen: tuple[str, str] | None = None
        seen_at = 0.0
        while True:
            try:
                lease = await self._cluster.get("Lease", self._namespace, self._name)
                state = describe(lease)
                now = asyncio.get_running_loop().time()
                if state != seen:
                    seen, seen_at = state, now
                    self._report_holder(self._name_holder(lease))
                    if lease is not None and state[0] not in ("", self._identity):
                        logger.info("waiting for the lease: holder=%s", state[0])
                is_free = lease is None or state[0] in ("", self._identity)
                if is_free or now - seen_at > DURATION_S:
                    self._held = await self._take(lease)
                    self._renewed_at = now
                    self._report_holder("")
                    logger.info("lease acquired: name=%s identity=%s", self._name, self._identity)
                    return
            except ApiError as error:
                if error.status == 403:
                    raise
                logger.info("lease not acquired yet: error=%s", error)  # 409: another was faster
            except (aiohttp.ClientError, TimeoutError) as error:
                logger.warning("API server does not answer, will be repeated: error=%r", error)
            await asyncio.sleep(TRY_S)

    async def keep(self) -> None:
        """Renew until cancelled or released. Raises LeadershipLost when that is no longer possible.

        The deadline also ends a request that is not answered: an API server that hangs must not make two
        leaders when it goes on. What was done between acquiring and keeping counts: it may have taken long.
        """
        loop = asyncio.get_running_loop()
        while (left_s := self._renewed_at + DEADLINE_S - loop.time()) > 0:
            await asyncio.sleep(min(RENEW_S, left_s))
            try:
                async with asyncio.timeout_at(self._renewed_at + DEADLINE_S), self._writing:
                    if self._held is None:
                        return
                    await self.renew()
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                logger.warning("lease not renewed: error=%r", error)
        raise LeadershipLost(f"the Lease {self._name} could not be renewed for {DEADLINE_S:.0f} s")

    async def release(self) -> None:
        """Give the Lease up, so that another replica takes over at once."""
        async with self._writing:
            await self._release()

    async def _release(self) -> None:
        held, self._held = self._held, None
        if held is None:
            return
        held["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": timestamp()}
        try:
            await self._cluster.replace(held)
            logger.info("lease released: name=%s", self._name)
        except (ApiError, aiohttp.ClientError, TimeoutError) as error:
            logger.warning("lease not released, it will expire: error=%r", error)

    def _name_holder(self, lease: Manifest | None) -> str:
        """Return the installation whose other replica holds the Lease, or ""."""
        if lease is None or describe(lease)[0] in ("", self._identity):
            return ""
        return installation_of(lease)

    async def renew(self) -> None:
        """Renew once. Raises LeadershipLost where another holds the Lease.

        The renewal counts from when it was asked for.
        """
        assert self._held is not None
        started = asyncio.get_running_loop().time()
        self._held["spec"]["renewTime"] = timestamp()
        try:
            self._held = await self._cluster.replace(self._held)
        except ApiError as error:
            if error.status not in (404, 409):
                raise
            lease = await self._cluster.get("Lease", self._namespace, self._name)
            if lease is not None and lease["spec"].get("holderIdentity") != self._identity:
                raise LeadershipLost(
                    f"the Lease {self._name} was taken by {lease['spec'].get('holderIdentity')}"
                ) from error
            self._held = await self._take(lease)
        self._renewed_at = started

    async def _find_owner(self) -> list[Manifest]:
        """Return the reference to the Role with which the Lease goes; none where it may not be read."""
        try:
            role = (
                await self._cluster.get("Role", self._namespace, self._role) if self._role else None
            )
        except ApiError as error:
            logger.info("the lease stays after the operator: role=%s error=%s", self._role, error)
            return []
        if role is None:
            return []
        named = {key: role["metadata"][key] for key in ("name", "uid")}
        return [{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", **named}]

    async def _take(self, lease: Manifest | None) -> Manifest:
        """Write the Lease as ours; 409 when another was faster."""
        spec = {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": DURATION_S,
            "acquireTime": timestamp(),
            "renewTime": timestamp(),
            "leaseTransitions": (lease or {}).get("spec", {}).get("leaseTransitions", 0) + 1,
        }
        metadata = {
            **(lease or {}).get("metadata", {"name": self._name, "namespace": self._namespace}),
            "labels": {MANAGED_BY_LABEL: MANAGED_BY},
            "annotations": {INSTALLATION_ANNOTATION: self._installation},
            "ownerReferences": await self._find_owner(),
        }
        if lease is not None:
            return await self._cluster.replace({**lease, "metadata": metadata, "spec": spec})
        return await self._cluster.create(
            {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": metadata,
                "spec": spec,
            }
        )


def describe(lease: Manifest | None) -> tuple[str, str]:
    """Return holder and last renewal; any change of these is a sign of life."""
    spec = (lease or {}).get("spec", {})
    return spec.get("holderIdentity") or "", spec.get("renewTime") or ""


def installation_of(lease: Manifest) -> str:
    """Return which installation the holder is of."""
    annotations = lease["metadata"].get("annotations") or {}
    return str(annotations.get(INSTALLATION_ANNOTATION, "an older version of the operator"))


def timestamp() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
