"""A stats table with its writer and a reader."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefork.base.stats import Table, create_table


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stats"


@pytest.fixture
def writer(path: Path) -> Iterator[Table]:
    table, descriptor = create_table(path, worker_slots=4)
    yield table
    table.close()
    os.close(descriptor)


@pytest.fixture
def reader(path: Path, writer: Table) -> Iterator[Table]:
    table = Table.open(path)
    yield table
    table.close()
