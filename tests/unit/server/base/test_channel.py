"""Messages arrive whole, with their descriptors, and what is not a message is noticed."""

import os
import socket
from collections.abc import Iterator

import pytest
from prefork.base import messages
from prefork.base.channel import PACKET_LIMIT, Channel, Sent


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = Channel.pair()
    yield one, other
    one.close()
    other.close()


def test_every_message_arrives_as_it_was_sent(ends: tuple[Channel, Channel]):
    one, other = ends
    sent = [
        messages.Fork(worker=3, slot=2),
        messages.MoldReady(),
        messages.PreloadUnsafe("a, b"),
        messages.BootFailed('Traceback\n "ü" \x00'),
        messages.WorkerSpawned(7),
        messages.WorkerReady(),
        messages.MaxRequestsReached(),
        messages.WorkerStuck(),
        messages.WorkerLeaving(),
        messages.HealthChecked(1, "GET / answered 503"),
        messages.CheckHealth(1, 10.0),
        messages.Begin(),
        messages.Serve(),
        messages.Drain("close"),
        messages.Stop(),
        messages.ReopenLogs(),
    ]
    assert {type(message) for message in sent} == set(messages.KINDS.values())
    for message in sent:
        assert one.send(message)
        assert other.receive() == (message, [])
    one.close()
    assert other.receive() is None
    assert other.send(messages.Stop()) is Sent.GONE


def test_channel_that_is_not_read_is_full_not_gone(ends: tuple[Channel, Channel]):
    one, other = ends
    while one.send(messages.Stop()) is Sent.DONE:
        pass
    assert one.send(messages.Stop()) is Sent.FULL
    other.receive()
    other.receive()
    assert one.send(messages.Stop()) is Sent.DONE


def test_descriptors_travel_with_a_message(ends: tuple[Channel, Channel]):
    one, other = ends
    reading, writing = os.pipe()
    one.send(messages.Fork(worker=1, slot=1), descriptors=[writing])
    os.close(writing)
    received = other.receive()
    assert received is not None
    os.write(received[1][0], b"x")
    assert os.read(reading, 1) == b"x"
    os.close(received[1][0])
    os.close(reading)


def test_reading_does_not_wait_when_told_so(ends: tuple[Channel, Channel]):
    _, other = ends
    with pytest.raises(BlockingIOError):
        other.receive(wait=False)


@pytest.mark.parametrize("fill", ["a", "я", "\U0001f4a5", "\x00", '"', "\udc80"])
def test_long_tracebacks_arrive_with_their_end(ends: tuple[Channel, Channel], fill: str):
    one, other = ends
    assert one.send(messages.BootFailed(messages.shorten(fill * 200_000 + "\nValueError: x")))
    received = other.receive()
    assert received is not None
    assert isinstance(received[0], messages.BootFailed)
    assert received[0].traceback.endswith("\nValueError: x")
    assert len(received[0].traceback) > 3000


def test_short_tracebacks_arrive_as_they_are(ends: tuple[Channel, Channel]):
    one, other = ends
    text = 'Traceback\n "я" \U0001f4a5 \x00'
    one.send(messages.BootFailed(messages.shorten(text)))
    assert other.receive() == (messages.BootFailed(text), [])


@pytest.mark.parametrize(
    "packet",
    [
        b"no json",
        b"\xff",
        b"[]",
        b"{}",
        b'{"kind": "Unheard"}',
        b'{"kind": []}',
        b'{"kind": "WorkerSpawned"}',
        b'{"kind": "WorkerReady", "more": 1}',
        b"[" * 100_000,
        b'{"kind": "BootFailed", "traceback": "%s"}' % (b"a" * PACKET_LIMIT),
    ],
)
def test_packet_that_is_no_message_is_told_from_one(ends: tuple[Channel, Channel], packet: bytes):
    one, other = ends
    one.end.send(packet)
    received = other.receive()
    assert received is not None
    assert isinstance(received[0], messages.Malformed)


def test_a_channel_waits_whatever_default_timeout_an_app_has_set():
    socket.setdefaulttimeout(0.01)
    try:
        one, other = Channel.pair()
        adopted = Channel.adopt(os.dup(other.fileno()))
    finally:
        socket.setdefaulttimeout(None)
    for end in (one, other, adopted):
        assert os.get_blocking(end.fileno())
        assert end.end.gettimeout() is None
        end.close()
