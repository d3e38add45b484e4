"""What takes several rounds: 100-continue, timeouts, clients that stop reading."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.conformance.case import chunked, get, post
from tests.conformance.serving import Serving

EXPECT = b"Expect: 100-continue"
UNREAD = get(b"GET /unread HTTP/1.1")


# 100-continue (RFC 9110 10.1.1; cheroot:conn.100_Continue, waitress:functional.expect_continue)


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("server", ["plain", "streaming"])
def test_continue_is_sent_before_the_body(
    framing: str, server: str, serving: Callable[[str], Serving]
) -> None:
    plain = serving(server)
    fields = [b"Content-Length: 5"] if framing == "length" else [b"Transfer-Encoding: chunked"]
    body = b"hello" if framing == "length" else b"5\r\nhello\r\n0\r\n\r\n"
    with plain.connect() as wire:
        wire.send(post(*fields, EXPECT))
        assert wire.interim() == 100
        wire.send(body)
        assert json.loads(wire.answer().body)["body"] == "hello"
        wire.send(UNREAD)
        assert wire.answer().status == 200


def test_continue_is_sent_though_the_app_will_not_read(plain: Serving) -> None:
    """The app is called when the body is here: until then nobody knows whether it reads."""
    with plain.connect() as wire:
        wire.send(post(b"Content-Length: 5", EXPECT, path=b"/unread"))
        assert wire.interim() == 100
        wire.send(b"hello")
        answer = wire.answer()
        assert (answer.body, answer.value("connection")) == (b"unread", None)


def test_no_continue_when_a_streaming_app_does_not_read(streaming: Serving) -> None:
    with streaming.connect() as wire:
        wire.send(post(b"Content-Length: 5", EXPECT, path=b"/unread"))
        answer = wire.answer()
        assert (answer.body, answer.interim) == (b"unread", ())
        # Whether the body will come is unknown, so the next request cannot be told from it.
        assert answer.value("connection") == "close"
        wire.assert_closed()


def test_no_continue_when_the_body_came_along(plain: Serving) -> None:
    with plain.connect() as wire:
        wire.send(post(b"Content-Length: 5", EXPECT, body=b"hello"))
        answer = wire.answer()
        assert json.loads(answer.body)["body"] == "hello"
        assert answer.interim in ((), (100,))


def test_no_continue_for_a_body_that_is_too_large(serving: Callable[[str], Serving]) -> None:
    with serving("small").connect() as wire:
        wire.send(post(b"Content-Length: 9999", EXPECT))
        answer = wire.answer()
        assert (answer.status, answer.interim) == (413, ())


def test_no_continue_in_1_0(plain: Serving) -> None:
    with plain.connect() as wire:
        wire.send(get(b"POST / HTTP/1.0", b"Content-Length: 5", EXPECT, body=b"hello"))
        answer = wire.answer()
        assert (answer.status, answer.interim) == (200, ())


def test_continue_for_each_request_of_a_connection(plain: Serving) -> None:
    """cheroot:conn.readall_or_close, with an app that reads."""
    with plain.connect() as wire:
        for _ in range(2):
            wire.send(post(b"Content-Length: 17", EXPECT, path=b"/body"))
            assert wire.interim() == 100
            wire.send(b"I am a small file")
            assert wire.answer().body == b"I am a small file"


# Time


def test_idle_connection_is_closed_without_a_word(serving: Callable[[str], Serving]) -> None:
    """cheroot:conn.HTTP11_Timeout_after_request."""
    with serving("hasty").connect() as wire:
        wire.send(UNREAD)
        assert wire.answer().status == 200
        wire.assert_closed()


def test_connection_that_never_speaks_is_closed_without_a_word(
    serving: Callable[[str], Serving],
) -> None:
    """cheroot:conn.HTTP11_Timeout[before headers] expects 408: a browser that opened a spare
    connection would take it for the answer to its first request."""
    with serving("hasty").connect() as wire:
        wire.assert_closed()


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\nHos", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_head_that_takes_too_long_is_a_408(sent: bytes, serving: Callable[[str], Serving]) -> None:
    """cheroot:conn.HTTP11_Timeout[half the headers]."""
    with serving("hasty").connect() as wire:
        wire.send(sent)
        answer = wire.answer()
        assert (answer.status, answer.value("connection")) == (408, "close")
        wire.assert_closed()


def test_head_that_drips_does_not_get_more_time(serving: Callable[[str], Serving]) -> None:
    with serving("hasty").connect() as wire:
        wire.send(b"GET / HTTP/1.1\r\n")
        for _ in range(90):  # below the limit of fields, and many times the time for a head
            wire.send(b"X: y\r\n")
            if wire.is_readable(within_s=0.1):
                break
        else:
            pytest.fail("the head got more time with each field")
        assert wire.answer().status == 408


@pytest.mark.parametrize(
    "sent",
    [
        post(b"Content-Length: 10", body=b"abc"),
        post(b"Content-Length: 100000", body=b"abc", path=b"/body"),
        chunked(b"5\r\nab"),
    ],
    ids=["small", "streamed", "chunked"],
)
def test_body_that_stalls_is_a_408(sent: bytes, serving: Callable[[str], Serving]) -> None:
    with serving("hasty").connect() as wire:
        wire.send(sent)
        answer = wire.answer()
        assert (answer.status, answer.value("connection")) == (408, "close")
        wire.assert_closed()


def test_stalled_clients_do_not_stop_others(plain: Serving) -> None:
    halves = [
        b"GET / HTTP/1.1\r\nHos",
        post(b"Content-Length: 10", body=b"abc"),
        chunked(b"5\r\nab"),
        b"",
    ]
    stalled = []
    try:
        for number in range(40):
            wire = plain.connect()
            stalled.append(wire)
            wire.send(halves[number % len(halves)])
        with plain.connect() as wire:
            wire.send(UNREAD)
            assert wire.answer().body == b"unread"
    finally:
        for wire in stalled:
            wire.__exit__(None, None, None)


# Closing


def test_refused_request_is_answered_although_the_client_goes_on_sending(plain: Serving) -> None:
    """RFC 9112 9.6: closed at once, unread bytes would reset the connection and lose the answer."""
    with plain.connect() as wire:
        wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", b"y" * 1_000_000)
        assert wire.answer().status == 400
        wire.assert_closed()


def test_body_above_the_limit_is_answered_although_it_is_sent(
    serving: Callable[[str], Serving],
) -> None:
    """cheroot:conn.Content_Length_in, with a client that does not wait."""
    with serving("small").connect() as wire:
        wire.send(post(b"Content-Length: 1000000"), b"y" * 1_000_000)
        assert wire.answer().status == 413
        wire.assert_closed()


@pytest.mark.parametrize("size", [900_000, 8_000_000])
def test_client_that_takes_its_answer_late_gets_all_of_it(size: int, plain: Serving) -> None:
    """cheroot:conn.598; the only app thread serves others in the meantime."""
    body = b"x" * size
    with plain.connect() as wire:
        wire.send(post(b"Content-Length: %d" % size, body=body, path=b"/body"))
        with plain.connect() as other:
            other.send(UNREAD)
            assert other.answer().body == b"unread"
        assert wire.answer().body == body


def test_many_connections_at_once(plain: Serving) -> None:
    """waitress:functional.many_clients."""
    wires = [plain.connect() for _ in range(50)]
    try:
        for wire in wires:
            wire.send(UNREAD)
        for wire in wires:
            assert wire.answer().body == b"unread"
    finally:
        for wire in wires:
            wire.__exit__(None, None, None)


def test_hundreds_of_pipelined_requests_are_answered_in_order(plain: Serving) -> None:
    count = 500
    with plain.connect() as wire:
        wire.send(b"".join(get(b"GET /%d HTTP/1.1" % number) for number in range(count)))
        paths = [json.loads(wire.answer().body)["PATH_INFO"] for _ in range(count)]
    assert paths == [f"/{number}" for number in range(count)]
