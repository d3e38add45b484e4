"""A worker holds as many connections as the limit of open files allows; seen in processes with limits of their own."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, sys
from prefork.base import fd_limits
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
fd_limits.allow_open_files(wanted)
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0], fd_limits.most_connections(wanted))
"""


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "limit", "connections"),
    [
        (1024, 8192, 2000, 4256, 2000),  # raised as far as is needed: a file for each connection
        (1024, 2048, 10_000, 2048, 1792),  # the hard limit is the end; the app keeps some files
        (4300, 8192, 2000, 4300, 2000),  # high enough already
        (256, 256, 10_000, 256, 128),  # never all for connections
    ],
)
def test_connections_fit_the_limit_of_open_files(
    soft: int, hard: int, wanted: int, limit: int, connections: int
) -> None:
    argv = [sys.executable, "-c", SCRIPT, str(soft), str(hard), str(wanted)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(limit), str(connections)]
