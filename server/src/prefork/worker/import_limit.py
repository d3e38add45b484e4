"""A bound on the memory of an import, for a new generation that fits only if it is smaller than the old one."""

import contextlib
import errno
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from prefork.errors import Exit, StartupError
from prefork.worker.holdings import own_children


@dataclass(frozen=True)
class ImportLimit:
    """How many bytes an import may add to its process, and what is reported when they do not suffice."""

    size: int
    refusal: str

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the import to it: what would exceed the limit of the container fails here, and nobody is killed.

        Memory counts when it is asked for (RLIMIT_DATA in getrlimit(2)), which is never later than it is used.
        Raises StartupError with the refusal.
        """
        before, most = resource.getrlimit(resource.RLIMIT_DATA)
        limit = read_data_size() + self.size
        if before != resource.RLIM_INFINITY:
            limit = min(limit, before)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, most))
        try:
            yield
        except (MemoryError, OSError) as error:
            if isinstance(error, OSError) and error.errno != errno.ENOMEM:
                raise
            raise StartupError(self.refusal, Exit.ENVIRONMENT) from None
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (before, most))
            for child in own_children():
                lift(child, limit, (before, most))


def lift(pid: int, limit: int, bounds: tuple[int, int]) -> None:
    """Let a process that was started meanwhile, and has inherited the limit, have what it would have had without."""
    with contextlib.suppress(OSError):  # just gone, or another user's
        if resource.prlimit(pid, resource.RLIMIT_DATA)[0] == limit:
            resource.prlimit(pid, resource.RLIMIT_DATA, bounds)


def read_data_size() -> int:
    """Return the bytes of this process that RLIMIT_DATA counts (proc(5), VmData)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "VmData":
            return int(rest.split()[0]) * 1024
    return 0
