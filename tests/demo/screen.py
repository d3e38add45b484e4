"""How the demo speaks: steps with their times, commands as typed, what they printed, checks.

Plain text that reads the same in a log; on a terminal with a little weight and colour (unless
NO_COLOR is set) and a line that shows that a long step is alive.
"""

from __future__ import annotations

import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

WIDTH = 100
_INDENT = "    "
_QUIET_EVERY_S = 30.0  # between signs of life where there is no terminal


class Screen:
    """Prints the story and remembers which of its promises were not met."""

    def __init__(self, out: TextIO = sys.stdout) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._colours = self._is_terminal and "NO_COLOR" not in os.environ
        self._began_s = time.monotonic()
        self._steps = 0
        self.broken: list[str] = []

    @property
    def elapsed_s(self) -> float:
        """Seconds since the demo began."""
        return time.monotonic() - self._began_s

    def title(self, text: str) -> None:
        """Print the headline."""
        self._write(f"\n{self._paint('1', text)}\n{'=' * len(text)}")

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """A numbered step; its time is printed at its end."""
        self._steps += 1
        began_s = time.monotonic()
        heading = f"{self._steps}. {text}"
        at = _clock(self.elapsed_s)
        self._write(f"\n{self._paint('1', heading)}{at:>{max(2, WIDTH - len(heading))}}")
        yield
        self._write(self._paint("2", f"{_INDENT}({time.monotonic() - began_s:.1f} s)"))

    def say(self, text: str) -> None:
        """Print a sentence."""
        for line in textwrap.wrap(text, WIDTH - len(_INDENT)):
            self._write(_INDENT + line)

    def command(self, text: str) -> None:
        """Print a command as a person would type it."""
        self._write(f"{_INDENT}{self._paint('36', '$ ' + text)}")

    def output(self, text: str, *, lines: int = 40) -> None:
        """Print what a command printed, its last lines when it is long."""
        shown = text.rstrip().splitlines()
        for line in shown[-lines:]:
            self._write(f"{_INDENT}  {line}")

    def check(self, holds: bool, text: str) -> None:
        """Print whether a promise was met; those that were not make the demo fail."""
        mark = self._paint("32", "ok    ") if holds else self._paint("31;1", "FAILED")
        self._write(f"{_INDENT}{mark} {text}")
        if not holds:
            self.broken.append(text)

    def wait(self, text: str, is_over: Callable[[], bool], *, news: Callable[[], str]) -> None:
        """Wait for something long; shows its elapsed time and `news`, its latest line."""
        began_s = said_s = time.monotonic()
        while not is_over():
            now_s = time.monotonic()
            line = f"{_INDENT}.. {text} {_clock(now_s - began_s)}  {news()}"
            if self._is_terminal:
                self._out.write("\r" + line[: WIDTH + 10].ljust(WIDTH + 10))
                self._out.flush()
            elif now_s - said_s >= _QUIET_EVERY_S:
                said_s = now_s
                self._write(line)
            time.sleep(0.25)
        if self._is_terminal:
            self._out.write("\r" + " " * (WIDTH + 10) + "\r")
        self._write(f"{_INDENT}{text}: {time.monotonic() - began_s:.1f} s")

    def text(self, block: str) -> None:
        """Print lines as they are."""
        self._write(textwrap.indent(block, _INDENT))

    def _paint(self, code: str, text: str) -> str:
        return f"\033[{code}m{text}\033[0m" if self._colours else text

    def _write(self, line: str) -> None:
        print(line, file=self._out, flush=True)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
