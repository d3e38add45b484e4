"""Damaged requests in great number: every answer is well formed, and no worker is lost."""

from __future__ import annotations

import contextlib
import random

import pytest

from tests.conformance import rules
from tests.conformance.case import get
from tests.conformance.serving import Serving
from tests.conformance.wire import Wire

ROUNDS = 40
BATCH = 50
SEEDS = [case.sent for case in rules.CASES if len(case.sent) < 2000 and case.server == "plain"]
BYTES = b'\r\n\t\0 :;,%?#/*="\\_-09afxAZ\x7f\x80\xff[]'


def damaged(chance: random.Random) -> bytes:
    """One to three requests in a row, a few bytes of them changed, removed, doubled or added."""
    data = bytearray(b"".join(chance.choice(SEEDS) for _ in range(chance.randint(1, 3))))
    for _ in range(chance.randint(0, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0:
                data[at : at + 1] = bytes([chance.choice(BYTES)])
            case 1:
                del data[at : at + chance.randint(1, 5)]
            case 2:
                data[at:at] = data[at : at + chance.randint(1, 20)]
            case _:
                data[at:at] = bytes([chance.choice(BYTES)])
    return bytes(data)


def read_all(wire: Wire) -> list[int]:
    """The statuses of all answers until the end; a malformed one fails the test.

    A reset is an end as well: noise goes on behind requests that ask for the close.
    """
    statuses = []
    with contextlib.suppress(ConnectionResetError):
        while not wire.is_ended():
            statuses.append(wire.answer().status)
    return statuses


@pytest.mark.parametrize("number", range(ROUNDS))
def test_noise_is_answered_and_survived(number: int, plain: Serving) -> None:
    chance = random.Random(number)
    worker = plain.worker()
    for _ in range(BATCH):
        sent = damaged(chance)
        with plain.connect() as wire:
            pieces = chance.randint(1, 4)
            cuts = sorted(chance.randrange(len(sent) + 1) for _ in range(pieces - 1))
            ends = [*cuts, len(sent)]
            wire.send(*(sent[start:end] for start, end in zip([0, *cuts], ends, strict=True)))
            wire.end()
            statuses = read_all(wire)
        # A refusal is the last word on a connection.
        assert all(status == 200 for status in statuses[:-1]), (sent, statuses)
        assert all(status < 500 or status in (501, 505) for status in statuses), (sent, statuses)
    with plain.connect() as wire:
        wire.send(get(b"GET /unread HTTP/1.1"))
        assert wire.answer().body == b"unread"
    assert plain.worker() == worker
