"""Log files that can be rotated: opened by name once, opened again under the same descriptor.

Arbiter, mold and workers share the descriptor's number, not the open file, after a reopening; so
each of them reopens for itself.
"""

import os

from prefork.errors import Exit, StartupError


class LogFiles:
    """Descriptors of the server's log and of the access log."""

    def __init__(self, *, errorlog: str, accesslog: str) -> None:
        self.paths: dict[int, str] = {}
        self.errors_fd = self._open("errorlog", errorlog) if errorlog not in ("", "-") else 2
        self.access_fd = -1
        if accesslog == "-":
            self.access_fd = 1
        elif accesslog:
            self.access_fd = self._open("accesslog", accesslog)

    def _open(self, setting: str, path: str) -> int:
        try:
            descriptor = open_append(path)
        except OSError as error:
            message = f"{setting} is {path}; it cannot be written: {error.strerror}"
            raise StartupError(message, Exit.ENVIRONMENT) from None
        self.paths[descriptor] = os.path.abspath(path)
        return descriptor

    def reopen(self) -> None:
        """Open each file again under its name; one that cannot be opened is kept as it is."""
        for descriptor, path in self.paths.items():
            try:
                fresh = open_append(path)
            except OSError:
                continue
            os.dup2(fresh, descriptor, inheritable=False)
            os.close(fresh)


def open_append(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
