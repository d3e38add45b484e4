"""Small pure parts: addresses, app names, log lines, messages, wishes."""

import os
import time
from collections.abc import Iterator

import pytest
from prefork.agent.reload_request import parse_wish
from prefork.arbiter.listeners import Address, parse_address
from prefork.base import messages
from prefork.base.log import format_line
from prefork.base.messages import Channel
from prefork.base.systemd import passed_descriptors
from prefork.errors import Refusal
from prefork.worker.app_import import AppName, parse_app_name


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", Address("127.0.0.1:80", host="127.0.0.1", port=80)),
        (":8080", Address(":8080", port=8080)),
        ("localhost", Address("localhost", host="localhost", port=8000)),
        ("[::1]:80", Address("[::1]:80", host="::1", port=80)),
        ("[::]", Address("[::]", host="::", port=8000)),
        ("unix:/run/a.sock", Address("unix:/run/a.sock", path="/run/a.sock")),
        ("unix:///run/a.sock", Address("unix:///run/a.sock", path="/run/a.sock")),
        ("fd://3", Address("fd://3", descriptor=3)),
    ],
)
def test_addresses(text: str, address: Address):
    assert parse_address(text) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("127.0.0.1:http", "the port http is not one of 0 to 65535"),
        ("1.2.3.4:70000", "the port 70000 is not"),
        ("::1:80", "write an IPv6 address in brackets"),
        ("[::1", "use HOST:PORT"),
        ("unix:", "use HOST:PORT, [IPV6]:PORT, unix:PATH"),
        ("fd://x", "use HOST:PORT"),
    ],
)
def test_bad_addresses_say_how_it_is_written(text: str, message: str):
    with pytest.raises(Refusal, match="bind is") as caught:
        parse_address(text)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("shop", AppName("shop", "application")),
        ("shop.wsgi:app", AppName("shop.wsgi", "app")),
        ("shop:sites.main", AppName("shop", "sites.main")),
        ("shop:create()", AppName("shop", "create", True)),
        (
            "shop:create('x', debug=True)",
            AppName("shop", "create", True, ("x",), (("debug", True),)),
        ),
    ],
)
def test_app_names(text: str, name: AppName):
    assert parse_app_name(text) == name


@pytest.mark.parametrize(
    "text", ["app.py", "a-b:app", ":app", "shop:create(os.environ)", "shop:1", "shop:a b"]
)
def test_bad_app_names_say_how_it_is_written(text: str):
    with pytest.raises(Refusal, match="use MODULE:CALLABLE"):
        parse_app_name(text)


def test_log_values_are_quoted_where_their_end_would_not_be_seen():
    line = format_line(
        0.5,
        "info",
        "worker ready",
        {"pid": 7, "how": "exit code 1", "q": 'a"b\n', "s": 0.25, "e": ""},
    )
    assert line == (
        '1970-01-01T00:00:00.500Z INFO     worker ready pid=7 how="exit code 1" q="a\\"b\\n" s=0.250 e=""\n'
    )


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
        messages.MoldUnfit("a, b"),
        messages.BootFailed('Traceback\n "ü" \x00'),
        messages.WorkerBorn(7),
        messages.WorkerReady(),
        messages.WorkerFull(),
        messages.WorkerStuck(),
        messages.WorkerLeaving(),
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
    assert not other.send(messages.Stop())


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
    began = time.monotonic()
    with pytest.raises(BlockingIOError):
        other.receive(wait=False)
    assert time.monotonic() - began < 1


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
        b'{"kind": "WorkerBorn"}',
        b'{"kind": "WorkerReady", "more": 1}',
        b"[" * 100_000,
        b'{"kind": "BootFailed", "traceback": "%s"}' % (b"a" * messages.PACKET_LIMIT),
    ],
)
def test_packet_that_is_no_message_is_told_from_one(ends: tuple[Channel, Channel], packet: bytes):
    one, other = ends
    one.end.send(packet)
    received = other.receive()
    assert received is not None
    assert isinstance(received[0], messages.Garbled)


def test_sockets_of_systemd_are_for_the_process_they_name():
    assert passed_descriptors({"LISTEN_PID": "7", "LISTEN_FDS": "2"}, 7) == (3, 4)
    assert passed_descriptors({"LISTEN_PID": "7", "LISTEN_FDS": "2"}, 8) == ()
    assert passed_descriptors({}, 7) == ()


def test_reload_wish():
    wish = parse_wish('{"id": "00ff", "content": {"source": "ab"}}')
    assert wish is not None
    assert (wish.id, wish.content) == ("00ff", {"source": "ab"})
    assert parse_wish("") is None


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"id": 5, "content": {}}', '{"id": "a", "content": {"s": 1}}', "no"]
)
def test_reload_wish_that_is_none(text: str):
    with pytest.raises(ValueError, match=r"it is not|Expecting value"):
        parse_wish(text)
