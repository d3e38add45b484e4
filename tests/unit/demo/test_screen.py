"""The demo's words are plain in a log, and a promise that was not met is remembered."""

from __future__ import annotations

import io

from tests.demo.__main__ import to_table
from tests.demo.screen import Screen
from tests.support.load_report import Tally


def test_log_is_plain_text_with_numbered_steps() -> None:
    out = io.StringIO()
    screen = Screen(out)
    with screen.step("First"):
        screen.command("kubectl get wsgi")
        screen.output("NAME   READY\nflask  True\n")
    with screen.step("Second"):
        screen.check(True, "it holds")
    text = out.getvalue()
    assert "\033" not in text
    assert "1. First" in text
    assert "2. Second" in text
    assert "    $ kubectl get wsgi\n      NAME   READY\n      flask  True\n" in text


def test_broken_promises_are_remembered() -> None:
    out = io.StringIO()
    screen = Screen(out)
    screen.check(True, "this holds")
    screen.check(False, "that does not")
    assert screen.broken == ["that does not"]
    assert "FAILED that does not" in out.getvalue()


def test_long_output_shows_its_end() -> None:
    out = io.StringIO()
    Screen(out).output("\n".join(map(str, range(100))), lines=2)
    assert out.getvalue().split() == ["98", "99"]


def test_waiting_ends_with_its_time() -> None:
    out = io.StringIO()
    answers = iter([False, True])
    Screen(out).wait("building", lambda: next(answers), news=lambda: "kubelet")
    assert "building: 0." in out.getvalue()


def test_table_shows_failures() -> None:
    tally = Tally()
    tally.sent = 2
    tally.add_ok(0.0, 0.005)
    tally.add_failed(0.0, 0.25, reason="reset", detail="GET /")
    report = tally.report(started_at=0.0, elapsed_s=1.0)
    head, row = to_table([("change", report)]).splitlines()
    assert head.split()[:4] == ["step", "requests", "failed", "wrong"]
    assert row.split()[:5] == ["change", "2", "1", "0", "0"]
    assert row.endswith("250.0 ms")
