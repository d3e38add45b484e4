"""`python -m tests.support.tested_again ARGUMENTS…`: pytest, and a few failures are tried again, three times, alone.

A test that passes each of these times is flaky: a bug to be found, in it or in what it tests. It is named here and in
the file `FLAKY_TESTS`, and the other thousands still count. A test that fails once more fails the run (docs/decisions/0030).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

MOST = 3  # more failures than this have a reason in common
TIMES = 3
TESTS_FAILED = 1  # pytest's exit code; all others are no test's


def main(arguments: Sequence[str]) -> int:
    code, failed = run_pytest(arguments)
    if code != TESTS_FAILED or not 0 < len(failed) <= MOST:
        return code
    for time in range(1, TIMES + 1):
        print(f"== failed, tried again, {time} of {TIMES}: {' '.join(failed)}", flush=True)
        again, _ = run_pytest(["-q", *failed])
        if again != 0:
            return code
    for test in failed:
        print(f"== flaky, a bug to be found: {test}", flush=True)
    if listing := os.environ.get("FLAKY_TESTS"):
        with Path(listing).open("a") as file:
            file.writelines(f"{test}\n" for test in failed)
    return 0


def run_pytest(arguments: Sequence[str]) -> tuple[int, list[str]]:
    """Return pytest's exit code, and the tests that have failed."""
    with tempfile.TemporaryDirectory() as cache:
        command = [sys.executable, "-m", "pytest", "-o", f"cache_dir={cache}", *arguments]
        code = subprocess.run(command, check=False).returncode
        last_failed = Path(cache, "v/cache/lastfailed")
        return code, list(json.loads(last_failed.read_text())) if last_failed.exists() else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
