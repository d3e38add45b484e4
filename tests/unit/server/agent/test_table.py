"""The agent follows the table of the server that runs."""

import os
from pathlib import Path

from prefork.agent.table import TableFile
from prefork.base.log import Log
from prefork.base.stats import Table, create_table


def test_new_table_of_a_restarted_server_is_found(path: Path, writer: Table):
    file = TableFile(path, Log())
    first = file.boot_id()
    assert first == writer.header("boot_id")
    other, descriptor = create_table(path, worker_slots=4)
    assert file.boot_id() == other.header("boot_id") != first
    path.unlink()
    assert file.get() is None
    other.close()
    os.close(descriptor)
