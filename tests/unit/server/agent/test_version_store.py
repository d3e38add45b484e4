"""Versions of contents while the agent that writes them is killed."""

import random
import subprocess
import sys
import time
from pathlib import Path

from prefork.agent.version_store import VersionStore

FILES = {f"f{number}": bytes(2000) for number in range(100)}
# Writes one version after the other.
WRITER = """
import itertools, sys
from pathlib import Path
from prefork.agent.version_store import VersionStore
store = VersionStore(Path(sys.argv[1]))
files = {f"f{number}": bytes(2000) for number in range(100)}
print("begun", flush=True)
for number in itertools.count():
    files["app.py"] = b"%d %s" % (number, sys.argv[2].encode())
    digest = store.keep("source", files)
    store.link_boot("source", digest)
    store.link_serving("source", digest)
    store.write_state({"source": digest})
    store.remove_others("source", [digest])
"""


def test_kill_in_the_middle_of_a_copy_leaves_whole_versions_and_nothing_that_stays(tmp_path: Path):
    store = VersionStore(tmp_path)
    live = tmp_path / "source" / "live"
    interrupted = 0
    for run in range(60):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(run)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"begun\n"
            time.sleep(random.uniform(0.02, 0.1))
            writer.kill()
        interrupted += any(name.endswith(".new") for name in store.versions("source"))
        # What a start of the server would load now, and what the app reads.
        for link in (live / "..boot", live / "..data"):
            assert not link.is_symlink() or len(list(link.iterdir())) == len(FILES) + 1
        digest = store.keep("source", {**FILES, "app.py": b"next %d" % run})
        store.link_boot("source", digest)
        store.link_serving("source", digest)
        store.remove_others("source", [digest])
        assert store.has("source", digest)
        assert store.versions("source") == {digest[:16]}
        assert (live / "app.py").read_bytes() == b"next %d" % run
        if interrupted and run >= 11:
            break
    assert interrupted, "no copy was interrupted"
