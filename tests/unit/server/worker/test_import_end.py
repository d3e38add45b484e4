"""What ends with an import is its own children, whatever their pids have become."""

import os
import signal
import subprocess

from prefork.worker.import_end import end_children

from tests.process.harness import is_gone


def test_a_pid_that_is_another_process_by_now_is_left_alone():
    own = subprocess.Popen(["sleep", "60"])
    shell = subprocess.run(
        ["sh", "-c", "sleep 60 >/dev/null & echo $!"], stdout=subprocess.PIPE, check=True
    )
    foreign = int(shell.stdout)
    try:
        end_children((own.pid, foreign))
        assert own.wait() == -signal.SIGTERM
        assert not is_gone(foreign)
    finally:
        os.kill(foreign, signal.SIGKILL)
