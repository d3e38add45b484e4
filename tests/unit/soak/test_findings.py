"""What the soak counts as lost, and what it excuses."""

import time

from tests.soak.clients import Findings, WrongAnswerError
from tests.soak.leaks import Holding, grown


def lost(error: Exception, *, since: float, kills: list[tuple[float, float]]) -> int:
    findings = Findings(kills=kills)
    findings.bad("hello", error, since)
    return len(findings.lost())


NOW = time.monotonic()


def test_a_lost_request_counts_when_no_worker_was_killed() -> None:
    assert lost(ConnectionResetError(), since=NOW - 5, kills=[]) == 1


def test_a_request_lost_with_a_killed_worker_is_excused() -> None:
    assert lost(ConnectionResetError(), since=NOW - 5, kills=[(NOW - 1, NOW - 0.9)]) == 0


def test_a_kill_that_ended_before_the_last_good_answer_excuses_nothing() -> None:
    assert lost(ConnectionResetError(), since=NOW - 5, kills=[(NOW - 7, NOW - 6)]) == 1


def test_a_kill_that_ends_after_the_failure_excuses_it() -> None:
    assert lost(ConnectionResetError(), since=NOW - 5, kills=[(NOW - 6, NOW + 60)]) == 0


def test_a_wrong_answer_is_never_excused() -> None:
    assert lost(WrongAnswerError("200, 0 bytes"), since=NOW - 5, kills=[(NOW - 1, NOW)]) == 1


def test_growth_within_the_slack_is_no_leak_and_beyond_it_is() -> None:
    before = {"arbiter": Holding(descriptors=20, threads=1, rss_kib=20_000)}
    assert grown(before, {"arbiter": Holding(36, 1, 20_000)}) == []
    assert "descriptors grew from 20 to 37" in grown(before, {"arbiter": Holding(37, 1, 20_000)})[0]
