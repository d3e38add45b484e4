"""Failures tell what ran, what it said and what to do."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.commands import (
    ClusterError,
    exclusive,
    run,
    run_logged,
    step,
    try_run,
    wait_until,
)
from tests.cluster.golang import PROGRAMS, is_new_enough
from tests.cluster.paths import HERE, Paths


def test_failed_program_is_shown_with_its_last_words() -> None:
    with pytest.raises(ClusterError, match=r"failed \(3\).*\n.*no such disk"):
        run([sys.executable, "-c", "import sys; print('no such disk'); sys.exit(3)"])


def test_missing_program_is_named() -> None:
    with pytest.raises(ClusterError, match="no-such-program is not installed"):
        run(["no-such-program", "--version"])


def test_program_without_end_is_given_up() -> None:
    with pytest.raises(ClusterError, match=r"no end after 0\.1 s"):
        run([sys.executable, "-c", "import time; time.sleep(600)"], timeout_s=0.1)


def test_failure_as_an_answer_is_none() -> None:
    assert try_run([sys.executable, "-c", "raise SystemExit(1)"]) is None
    assert try_run([sys.executable, "-c", "print('yes')"]) == "yes\n"


def test_logged_program_leaves_its_output_and_names_the_log(tmp_path: Path) -> None:
    log = tmp_path / "deep" / "build.log"
    with pytest.raises(ClusterError, match=str(log)):
        run_logged([sys.executable, "-c", "print('half way'); raise SystemExit(1)"], log)
    assert log.read_text() == "half way\n"


def test_waiting_gives_up_with_the_reason() -> None:
    with pytest.raises(ClusterError, match=r"not blue: not after 0\.05 s\nit is grey"):
        wait_until(
            lambda: False,
            within_s=0.05,
            what="the moon is not blue",
            details=lambda: "it is grey",
            every_s=0.01,
        )


def test_step_shows_label_and_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    with step("knead", expect="a minute"):
        pass
    with pytest.raises(ZeroDivisionError), step("bake"):
        raise ZeroDivisionError
    kneaded, baked = capsys.readouterr().out.splitlines()
    assert kneaded.split()[:2] == ["ok", "knead"]
    assert baked.split()[:2] == ["!!", "bake"]


def test_second_command_waits_for_the_first(tmp_path: Path) -> None:
    lock, order = tmp_path / "lock", []

    def second() -> None:
        with exclusive(lock):
            order.append("second")

    waiting = threading.Thread(target=second)
    with exclusive(lock):
        waiting.start()
        waiting.join(0.2)
        order.append("first")
    waiting.join(60)
    assert order == ["first", "second"]


def test_lock_of_a_killed_command_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = (
        "from tests.cluster.commands import exclusive; from pathlib import Path; import sys, time\n"
    )
    holder += "with exclusive(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(lock)], cwd=HERE.parents[1], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        process.kill()
    with exclusive(lock):
        assert lock.exists()


def test_unknown_cluster_is_refused_with_the_choices() -> None:
    with pytest.raises(ClusterError, match="CLUSTER is 'minikub'; use local, kind, existing"):
        Cluster.from_env({"CLUSTER": "minikub", "WSGIAPP_CACHE": "/c"})


@pytest.mark.parametrize(
    ("environ", "cache"),
    [
        ({"WSGIAPP_CACHE": "/c"}, "/c"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/wsgiapp"),
        ({"WSGIAPP_CACHE": "/c", "XDG_CACHE_HOME": "/x"}, "/c"),
    ],
)
def test_cache_is_where_the_environment_says(environ: dict[str, str], cache: str) -> None:
    assert Paths.from_environ(environ).cache == Path(cache)


@pytest.mark.parametrize(
    ("line", "enough"),
    [
        ("go version go1.26.8 linux/amd64", True),
        ("go version go1.27.3 linux/amd64", True),
        ("go version go1.25.5 linux/amd64", False),
        ("go version devel", False),
        ("", False),
    ],
)
def test_go_is_taken_only_when_new_enough(line: str, enough: bool) -> None:
    assert is_new_enough(line) is enough


def test_every_program_has_a_locked_module() -> None:
    for program in PROGRAMS:
        module = HERE / "go" / program.name
        assert (module / "go.mod").exists()
        # pause needs nothing beyond Go's own library.
        assert (module / "go.sum").exists() or "require" not in (module / "go.mod").read_text()
