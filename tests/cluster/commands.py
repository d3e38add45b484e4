"""Runs other programs, waits for conditions, locks out a second cluster command; shows that it lives.

Every failure becomes a `ClusterError` whose text a person can act on.
"""

from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path


class ClusterError(Exception):
    """The cluster cannot do what was asked; the text says what happened and what to do."""


def run(
    argv: Sequence[str | Path],
    *,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout_s: float | None = None,
) -> str:
    """Run a program to its end and return its standard output.

    Raises `ClusterError` with the program's last lines when it is missing, fails or takes too long.
    """
    shown = " ".join(str(word) for word in argv)
    try:
        done = subprocess.run(
            [str(word) for word in argv],
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            env=env,
            cwd=cwd,
            timeout=timeout_s,
            check=False,
        )
    except FileNotFoundError as error:
        raise ClusterError(f"{argv[0]} is not installed (wanted for: {shown})") from error
    except subprocess.TimeoutExpired as error:
        raise ClusterError(f"no end after {timeout_s:g} s: {shown}") from error
    if done.returncode != 0:
        output = (done.stdout + done.stderr).decode(errors="replace")
        raise ClusterError(f"failed ({done.returncode}): {shown}\n{last_lines(output)}")
    return done.stdout.decode(errors="replace")


def try_run(argv: Sequence[str | Path]) -> str | None:
    """Run a program whose failure is an answer; returns its standard output, None when it failed."""
    try:
        return run(argv)
    except ClusterError:
        return None


def run_logged(
    argv: Sequence[str | Path],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a program whose output goes to `log`; its last lines are in the error when it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        done = subprocess.run(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            cwd=cwd,
            check=False,
        )
    if done.returncode != 0:
        shown = " ".join(str(word) for word in argv)
        tail = last_lines(log.read_text(errors="replace"))
        raise ClusterError(f"failed ({done.returncode}): {shown}\n{tail}\nall of it: {log}")


def last_lines(text: str, count: int = 15) -> str:
    return "\n".join(text.strip().splitlines()[-count:])


def wait_until(
    condition: Callable[[], bool],
    *,
    within_s: float,
    what: str,
    details: Callable[[], str] = lambda: "",
    every_s: float = 0.2,
) -> None:
    """Ask `condition` until it holds; after `within_s` raise with `what` and the details."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not after {within_s:g} s\n{details()}".rstrip())
        time.sleep(every_s)


@contextlib.contextmanager
def step(label: str, *, expect: str = "") -> Iterator[None]:
    """Show a long step with its elapsed time: at once, while it lasts, and its outcome."""
    started = time.monotonic()
    ended = threading.Event()
    terminal = sys.stdout.isatty()
    hint = f" ({expect})" if expect else ""

    def show(mark: str, *, end: str) -> None:
        elapsed = time.monotonic() - started
        print(f"  {mark:<2} {label + hint:<60} {elapsed:6.1f} s", end=end, flush=True)

    def tick() -> None:
        every_s = 1.0 if terminal else 30.0
        while not ended.wait(every_s):
            show("..", end="\r" if terminal else "\n")

    ticker = threading.Thread(target=tick, name="progress", daemon=True)
    ticker.start()
    outcome = "!!"
    try:
        yield
        outcome = "ok"
    finally:
        ended.set()
        ticker.join()
        show(outcome, end="\n")


@contextlib.contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold `lock` for the duration; the kernel frees it when the holder dies."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("  .. another cluster command is running; waiting for it", flush=True)
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
