"""Which code is the app's own, as opposed to the standard library, installed packages and this server."""

import sysconfig
from pathlib import PurePath

import prefork

_PACKAGES = {"site-packages", "dist-packages"}
_NOT_OWN = tuple(
    f"{path}/"
    for path in (
        sysconfig.get_path("stdlib"),
        sysconfig.get_path("platstdlib"),
        *prefork.__path__,
    )
)


def is_own(filename: str) -> bool:
    """Whether a code object's file is the app's own; pure but for where this Python is installed."""
    if filename.startswith(("<", *_NOT_OWN)):
        return False
    return not _PACKAGES.intersection(PurePath(filename).parts)
