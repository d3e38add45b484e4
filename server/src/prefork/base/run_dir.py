"""The run directory: where the stats table and the control socket are, and who may use them."""

import fcntl
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from prefork.errors import Exit, StartupError

STATS = "stats"
# What the last server that ended here had counted, for the next one.
STATS_OF_LAST_RUN = "stats.ended"
CONTROL = "control.sock"


@dataclass(frozen=True)
class RunDir:
    """An existing directory; `is_private` when it was made for this run and goes with it.

    `lock_fd` holds the lock of its only server, for as long as that lives; -1 where there is none.
    """

    path: Path
    is_private: bool
    lock_fd: int = -1

    @property
    def stats(self) -> Path:
        return self.path / STATS

    @property
    def stats_of_last_run(self) -> Path:
        return self.path / STATS_OF_LAST_RUN

    @property
    def control(self) -> Path:
        return self.path / CONTROL

    def close_in_child(self) -> None:
        """In a forked child: the lock is its parent's, and ends with it."""
        if self.lock_fd >= 0:
            os.close(self.lock_fd)

    def remove(self, *, keeps_counters: bool = False) -> None:
        """Remove what this server put there; in a named directory the counters may stay, for the next server."""
        if self.is_private:
            import shutil  # with its archive formats a tenth of the time to start

            shutil.rmtree(self.path, ignore_errors=True)
            return
        if keeps_counters:
            with suppress(OSError):
                self.stats.replace(self.stats_of_last_run)
        for path in (self.stats, self.control):
            with suppress(OSError):
                path.unlink()


def open_run_dir(named: str, environment: Mapping[str, str]) -> RunDir:
    """Return the run directory, made if need be.

    Raises StartupError when it cannot be written or another running server uses it.
    """
    if not named:
        return RunDir(make_private(environment), is_private=True)
    path = Path(named).absolute()
    try:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise StartupError(f"run_dir is {named}; {error.strerror}", Exit.ENVIRONMENT) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise StartupError(f"run_dir is {named}; it cannot be written", Exit.ENVIRONMENT)
    try:
        lock_fd = lock(path)
    except BlockingIOError:
        lock_fd = None
    if lock_fd is None or has_server(path / CONTROL):
        raise StartupError(
            f"run_dir is {named}; another prefork uses it: stop that one first, or name another directory",
            Exit.ENVIRONMENT,
        )
    return RunDir(path, is_private=False, lock_fd=lock_fd)


def make_private(environment: Mapping[str, str]) -> Path:
    """Make a directory that no other server has; containers that share $XDG_RUNTIME_DIR have the same pids."""
    import tempfile  # brings shutil in

    base = environment.get("XDG_RUNTIME_DIR", "")
    base = base if base and os.access(base, os.W_OK) else temporary_folder()
    try:
        return Path(tempfile.mkdtemp(prefix=f"prefork-{os.getpid()}-", dir=base))
    except OSError as error:
        raise StartupError(
            f"no run directory can be made in {base}: {error.strerror}; name one by --run-dir",
            Exit.ENVIRONMENT,
        ) from None


def temporary_folder() -> str:
    """Return $TMPDIR or what stands for it. Raises StartupError where nothing can be written there."""
    import tempfile

    try:
        return tempfile.gettempdir()
    except OSError as error:
        raise StartupError(
            f"{error.strerror}; name a directory by --run-dir", Exit.ENVIRONMENT
        ) from None


def lock(path: Path) -> int:
    """Take the lock of a directory, so that of two servers that start at once only one uses it.

    The directory itself is locked: a file for it would have to stay when the server has ended. Returns -1 where
    the file system cannot lock it (NFS). Raises BlockingIOError when another process has it.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise
    except OSError:
        os.close(fd)
        return -1
    return fd


def has_server(control: Path) -> bool:
    """Whether a process listens on this control socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(control))
        except BlockingIOError:  # so many wait for its answer that its queue is full
            return True
        except OSError:
            return False
    return True
