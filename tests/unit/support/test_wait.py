"""Waiting ends with the value, or tells what was seen last."""

from __future__ import annotations

import pytest

from tests.support.wait import NotYetError, wait_until


def test_returns_first_true_value() -> None:
    values = iter([0, None, "", "there", "later"])
    assert wait_until(lambda: next(values), within_s=5, what="it", every_s=0) == "there"


def test_not_yet_counts_as_false_and_its_text_is_shown_when_time_is_up() -> None:
    def condition() -> bool:
        raise NotYetError("2 of 3 pods")

    with pytest.raises(TimeoutError, match="three pods: not within 0 s; last seen: 2 of 3 pods"):
        wait_until(condition, within_s=0, what="three pods")


def test_condition_is_asked_once_even_without_time() -> None:
    assert wait_until(lambda: True, within_s=0, what="it")


def test_other_exceptions_end_the_wait() -> None:
    def condition() -> bool:
        raise KeyError("status")

    with pytest.raises(KeyError):
        wait_until(condition, within_s=60, what="it")
