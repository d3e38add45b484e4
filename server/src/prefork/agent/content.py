"""Whether the content that a reload request names has arrived in the agent's own mounts."""

from collections.abc import Mapping
from pathlib import Path

from prefork.base.digest import digest_directory


def find_missing(wanted: Mapping[str, str], folders: Mapping[str, Path]) -> str:
    """Return why the mounted content is not yet the requested one; empty when it is."""
    for name, digest in wanted.items():
        folder = folders.get(name)
        if folder is None:
            return f"content {name} is not mounted in the agent"
        try:
            found = digest_directory(folder)
        except OSError as error:
            return f"content {name} cannot be read: {error.strerror}"
        if found != digest:
            return f"content {name} has not arrived: its digest is {found[:12]}, {digest[:12]} is requested"
    return ""
