"""Whether the IngressClass that an app names exists; asked by name, and remembered for a while.

Ingress controllers find out by it whether an Ingress is theirs: with a class that does not exist none does, and
nothing else tells. An address in the Ingress's status does not: several controllers write none.
"""

import re
import time
from collections.abc import Callable

from wsgiapp_operator.client import ApiError, Cluster

FORBIDDEN = 403
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")
THERE_S = 1800.0  # as settled apps are looked at
MISSING_S = 5.0  # somebody may be making it; all apps that name it share one question
REMEMBERED = 1024  # what apps name is anybody's choice


class IngressClasses:
    """Reads from one cluster."""

    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster = cluster
        self._clock = clock
        self._seen: dict[
            str, tuple[float, bool]
        ] = {}  # until when it counts; whether it is missing

    async def is_missing(self, name: str | None) -> bool:
        """Return whether there is no class of that name. What may not be asked is not judged, nor is no name."""
        if name is None:
            return False
        if not NAME.fullmatch(name):
            return True  # as no object can have it, the API server is not asked for it
        until, is_missing = self._seen.get(name, (0.0, False))
        if self._clock() < until:
            return is_missing
        is_missing = not await self._exists(name)
        if len(self._seen) >= REMEMBERED:
            self._seen.clear()
        lasts_s = MISSING_S if is_missing else THERE_S
        self._seen[name] = (self._clock() + lasts_s, is_missing)
        return is_missing

    async def _exists(self, name: str) -> bool:
        try:
            return await self._cluster.get("IngressClass", None, name) is not None
        except ApiError as error:
            if error.status != FORBIDDEN:
                raise
            return True  # an operator for some namespaces may not read what belongs to none
