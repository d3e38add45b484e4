"""The run directory: where the stats table and the control socket are, and who may use them."""

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
    """An existing directory; `is_private` when it was made for this run and goes with it."""

    path: Path
    is_private: bool

    @property
    def stats(self) -> Path:
        return self.path / STATS

    @property
    def stats_of_last_run(self) -> Path:
        return self.path / STATS_OF_LAST_RUN

    @property
    def control(self) -> Path:
        return self.path / CONTROL

    def remove(self) -> None:
        """Remove what this server put there; of a named directory, the next one gets the counters."""
        if self.is_private:
            import shutil  # with its archive formats a tenth of the time to start

            shutil.rmtree(self.path, ignore_errors=True)
            return
        with suppress(OSError):
            self.stats.replace(self.stats_of_last_run)
        with suppress(OSError):
            self.control.unlink()


def open_run_dir(named: str, environment: Mapping[str, str]) -> RunDir:
    """Return the run directory, made if need be.

    Raises StartupError when it cannot be written or another running server uses it.
    """
    if not named:
        base = environment.get("XDG_RUNTIME_DIR", "")
        if base and os.access(base, os.W_OK):
            path = Path(base) / f"prefork-{os.getpid()}"
            path.mkdir(mode=0o700, exist_ok=True)
            return RunDir(path, is_private=True)
        import tempfile  # brings shutil in

        return RunDir(Path(tempfile.mkdtemp(prefix="prefork-")), is_private=True)
    path = Path(named).absolute()
    try:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise StartupError(f"run_dir is {named}; {error.strerror}", Exit.ENVIRONMENT) from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise StartupError(f"run_dir is {named}; it cannot be written", Exit.ENVIRONMENT)
    if has_server(path / CONTROL):
        raise StartupError(f"run_dir is {named}; another prefork uses it", Exit.ENVIRONMENT)
    return RunDir(path, is_private=False)


def has_server(control: Path) -> bool:
    """Whether a process listens on this control socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(control))
        except OSError:
            return False
    return True
