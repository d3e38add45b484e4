"""Waiting for a condition instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class NotYetError(Exception):
    """Raised by a condition that does not hold yet; its text is shown when time runs out."""


def wait_until(
    condition: Callable[[], T], *, within_s: float, what: str, every_s: float = 0.1
) -> T:
    """Return the first true value of `condition`, asked every `every_s` seconds.

    A condition is not met while it returns a false value or raises NotYetError; any other
    exception ends the wait. Raises TimeoutError, which tells `what` and the last state seen.
    """
    deadline = time.monotonic() + within_s
    while True:
        try:
            value = condition()
            last = f"last seen: {value!r}"
            if value:
                return value
        except NotYetError as error:
            last = f"last seen: {error}"
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what}: not within {within_s:g} s; {last}")
        time.sleep(every_s)
