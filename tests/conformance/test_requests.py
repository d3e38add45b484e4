"""Every case of raw bytes: its answers, what the app saw, and whether the connection goes on."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.conformance import cheroot, rules, waitress
from tests.conformance.case import Case, get
from tests.conformance.serving import Serving
from tests.conformance.wire import Wire

CASES = [*rules.CASES, *waitress.CASES, *cheroot.CASES]
NEXT = get(b"GET /next HTTP/1.1")


def judge(case: Case, wire: Wire) -> None:
    """Read what follows the case's bytes, and hold it against the case."""
    if case.ends:
        wire.end()
    answers = [wire.answer() for _ in case.statuses]
    assert tuple(answer.status for answer in answers) == case.statuses
    if case.saw:
        seen = json.loads(answers[-1].body)
        assert {name: seen.get(name) for name in case.saw} == case.saw
    if case.keeps:
        assert answers[-1].value("connection") != "close"
        wire.send(NEXT)
        answer = wire.answer()
        assert answer.status == 200
        assert json.loads(answer.body)["PATH_INFO"].endswith("/next")
    else:
        if answers:
            # 1.1 is told that this was the last answer, so that it need not guess.
            assert answers[-1].value("connection") == "close" or case.ends
        wire.assert_closed()


def by_rule(cases: list[Case]) -> dict[str, Case]:
    """Return the cases by name; two of one name would hide each other in a report."""
    named = {str(case): case for case in cases}
    assert len(named) == len(cases)
    return named


@pytest.mark.parametrize("case", [pytest.param(c, id=name) for name, c in by_rule(CASES).items()])
def test_request(case: Case, serving: Callable[[str], Serving]) -> None:
    with serving(case.server).connect() as wire:
        wire.send(case.sent)
        judge(case, wire)


BYTEWISE = by_rule([case for case in CASES if not case.whole_only])


@pytest.mark.parametrize("case", [pytest.param(c, id=name) for name, c in BYTEWISE.items()])
def test_request_byte_by_byte(case: Case, serving: Callable[[str], Serving]) -> None:
    with serving(case.server).connect() as wire:
        wire.send(*(case.sent[i : i + 1] for i in range(len(case.sent))))
        judge(case, wire)
