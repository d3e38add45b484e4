"""A failure is tried again, three times; what fails once more fails the run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).resolve().parents[3]


def run_again(folder: Path, outcomes: str) -> subprocess.CompletedProcess[str]:
    """Run a test that ends in turn as the letters say: f(ailed) or p(assed)."""
    runs = folder / "runs"
    (folder / "test_it.py").write_text(
        "from pathlib import Path\n"
        f"RUNS = Path({str(runs)!r})\n"
        "def test_it():\n"
        "    number = len(RUNS.read_text()) if RUNS.exists() else 0\n"
        "    RUNS.write_text('x' * (number + 1))\n"
        f"    assert {outcomes!r}[number] == 'p'\n"
    )
    return run(folder)


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.support.tested_again", "-q"]
    environment = {"PYTHONPATH": str(TREE), "FLAKY_TESTS": str(folder / "flaky.txt")}
    return subprocess.run(
        command,
        check=False,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("outcomes", "runs"), [("p", 1), ("ff", 2), ("fpf", 3), ("fppp", 4)])
def test_only_what_passes_each_time_it_is_tried_again_passes(
    tmp_path: Path, outcomes: str, runs: int
):
    ended = run_again(tmp_path, outcomes)
    assert len((tmp_path / "runs").read_text()) == runs
    assert (ended.returncode == 0) == outcomes.endswith("p")
    is_flaky = outcomes == "fppp"
    assert ("flaky, a bug to be found" in ended.stdout) == is_flaky
    assert (tmp_path / "flaky.txt").exists() == is_flaky


def test_many_failures_are_not_tried_again(tmp_path: Path):
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('one', range(4))\n"
        "def test_it(one):\n"
        "    assert False\n"
    )
    ended = run(tmp_path)
    assert ended.returncode == 1
    assert "tried again" not in ended.stdout
