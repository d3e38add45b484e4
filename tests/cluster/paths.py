"""Where the cluster keeps its files; nothing else decides a path outside the tree.

`cache` survives everything (binaries, images, kubeconfig); `state` and `run` belong to one running
cluster: `down` empties them but for the images that containerd holds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TREE = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Paths:
    """Folders of one user's cluster. `run` is short: a unix socket's path ends at 107 bytes."""

    cache: Path
    state: Path = Path("/var/lib/wsgiapp-cluster")
    run: Path = Path("/run/wsgiapp-cluster")

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Paths:
        """`$WSGIAPP_CACHE`, else `$XDG_CACHE_HOME/wsgiapp`, else `~/.cache/wsgiapp`."""
        if chosen := environ.get("WSGIAPP_CACHE"):
            return cls(Path(chosen).expanduser().absolute())
        home = environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
        return cls(Path(home).absolute() / "wsgiapp")

    @property
    def bin(self) -> Path:
        return self.cache / "bin"

    @property
    def images(self) -> Path:
        return self.cache / "images"

    @property
    def logs(self) -> Path:
        """Logs of builds and of the cluster's own processes; the newest start is kept."""
        return self.cache / "logs"

    @property
    def audit_log(self) -> Path:
        """What the operator has asked the API server for, an event a line."""
        return self.logs / "audit.log"

    @property
    def kubeconfig(self) -> Path:
        return self.cache / "kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd" / "containerd.sock"
