"""The stats table as it is now: opened again when a server has made a new one."""

import os
from pathlib import Path

from prefork.base.log import Log
from prefork.base.stats import Table, UnknownTable


class TableFile:
    """Follows the file by its identity; a restarted server puts a new one in its place."""

    def __init__(self, path: Path, log: Log) -> None:
        self.path = path
        self.log = log
        self.identity: tuple[int, int] | None = None
        self.table: Table | None = None
        self.refused: tuple[int, int] | None = None

    def get(self) -> Table | None:
        """Return the table, None when there is none (no server yet, or it has ended)."""
        try:
            found = os.stat(self.path)
        except OSError:
            self._forget()
            return None
        # The mapping keeps the old file's inode number from being used again.
        identity = found.st_dev, found.st_ino
        if self.table is not None and identity == self.identity:
            return self.table
        self._forget()
        try:
            self.table = Table.open(self.path)
        except OSError:
            return None
        except UnknownTable as error:
            if identity != self.refused:  # once: it is asked for several times a second
                self.log.error("stats table is of another version", why=error)
            self.refused = identity
            return None
        self.identity = identity
        return self.table

    def boot_id(self) -> int:
        """Return the id of the current run of the server, 0 when none runs."""
        table = self.get()
        return table.header("boot_id") if table is not None else 0

    def _forget(self) -> None:
        if self.table is not None:
            self.table.close()
        self.table, self.identity = None, None
