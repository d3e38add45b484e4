"""Whether a second generation fits into the memory limit next to the first, and how it is to take over if not.

`plan_surge` decides and is pure; what it needs is measured from the generation that serves: the
next one will be about as large.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from prefork.arbiter.proc import read_private
from prefork.config.capacity import MemoryUse
from prefork.errors import Exit, StartupError


class NoRoomError(StartupError):
    """Not even one new worker fits, if the new generation is as large as the old one.

    `import_size`: bytes that its import may take for one to fit all the same; none where that is 0 or less.
    """

    def __init__(self, message: str, import_size: int) -> None:
        super().__init__(message, Exit.ENVIRONMENT)
        self.import_size = import_size


# Of the limit, kept free: what is measured is a little behind what is used.
MARGIN = 0.03
MIB = 1 << 20


@dataclass(frozen=True)
class Footprint:
    """Bytes that a generation uses and shares with none other."""

    mold: int  # by its import, before a worker was forked
    workers: tuple[int, ...]  # by each worker for itself

    @property
    def whole(self) -> int:
        return self.mold + sum(self.workers)

    @property
    def one(self) -> int:
        """What it uses with a single worker, and be that the largest."""
        return self.mold + max(self.workers, default=0)


def measure_footprint(mold: int, workers: Iterable[int]) -> Footprint:
    """Return the footprint of the generation that serves: bytes of its mold, and pids."""
    return Footprint(mold, tuple(read_private(pid) for pid in workers if pid))


def plan_surge(memory: MemoryUse | None, need: Footprint, *, workers: int) -> int | None:
    """Return the `surge` of a new generation (see `Generation`).

    Raises NoRoomError when not even one new worker would fit: better no reload than one that the
    kernel ends by killing what serves. A smaller one is still tried, within the size that the error names.
    """
    if memory is None:
        return None
    free = int(memory.limit * (1 - MARGIN)) - memory.used
    if need.whole <= free:
        return None
    if need.one <= free:
        return 1
    # The import comes first; the worker after it takes the place of an old one.
    if workers > 1 and need.mold <= free:
        return 0
    # A single old worker leaves only once the new one is there.
    first = need.one - need.mold if workers == 1 else 0
    wanted = need.mold + first
    raise NoRoomError(
        f"memory does not suffice for a reload: a new generation needs {wanted // MIB} MiB at least while the old one "
        f"serves, and {max(0, free) // MIB} MiB of the limit of {memory.limit // MIB} MiB are free; raise the limit",
        free - first,
    )
