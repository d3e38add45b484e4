"""The bound on an import's memory is the import's alone."""

import resource
import subprocess

from prefork.worker.import_limit import ImportLimit


def test_a_process_that_the_import_starts_is_not_bound_for_life():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with ImportLimit(1 << 30, "too large").held():
        child = subprocess.Popen(["sleep", "60"])
        assert resource.prlimit(child.pid, resource.RLIMIT_DATA) != before
    try:
        assert resource.prlimit(child.pid, resource.RLIMIT_DATA) == before
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
    finally:
        child.kill()
        child.wait()
