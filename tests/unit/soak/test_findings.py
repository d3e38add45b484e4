"""What the soak counts as lost, and what it excuses."""

from tests.soak.clients import Findings, WrongAnswerError
from tests.soak.leaks import Holding, grown


def test_a_lost_request_counts_when_no_worker_was_killed() -> None:
    findings = Findings()
    findings.bad("hello", ConnectionResetError(), since=10.0)
    assert (findings.failed, findings.excused) == (1, 0)
    assert "hello: ConnectionResetError" in findings.failures[0]


def test_a_request_lost_with_a_killed_worker_is_excused() -> None:
    findings = Findings(kills=[11.0])
    findings.bad("hello", ConnectionResetError(), since=10.0)
    assert (findings.failed, findings.excused) == (0, 1)


def test_a_kill_before_the_last_good_answer_excuses_nothing() -> None:
    findings = Findings(kills=[9.0])
    findings.bad("hello", ConnectionResetError(), since=10.0)
    assert findings.failed == 1


def test_a_wrong_answer_is_never_excused() -> None:
    findings = Findings(kills=[11.0])
    findings.bad("hello", WrongAnswerError("200, 0 bytes"), since=10.0)
    assert findings.failed == 1


def test_growth_within_the_slack_is_no_leak_and_beyond_it_is() -> None:
    before = {"arbiter": Holding(descriptors=20, threads=1, rss_kib=20_000)}
    assert grown(before, {"arbiter": Holding(36, 1, 20_000)}) == []
    assert "descriptors grew from 20 to 37" in grown(before, {"arbiter": Holding(37, 1, 20_000)})[0]
