"""PEP 3333: what an application may do, and what the server makes of one that does it wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.conformance import app as application
from tests.conformance.case import chunked, get, post
from tests.conformance.serving import Serving
from tests.conformance.wire import Answer, Wire
from tests.support.wait import wait_until

SOURCE = application.__file__


def ask(serving: Serving, request: bytes, method: str = "GET") -> Answer:
    """Return the answer to one request on a connection of its own."""
    with serving.connect() as wire:
        wire.send(request)
        return wire.answer(method)


def request(target: str, method: str = "GET", version: str = "1.1") -> bytes:
    return get(f"{method} {target} HTTP/{version}".encode())


def respond(wanted: Mapping[str, Any], method: str = "POST", version: str = "1.1") -> bytes:
    """A request that makes the app answer as `wanted`: status, fields, blocks, lazy."""
    body = json.dumps(wanted).encode()
    first = f"{method} /respond HTTP/{version}".encode()
    return get(first, b"Content-Length: %d" % len(body), body=body)


def assert_serves_on(wire: Wire) -> None:
    wire.send(request("/unread"))
    assert wire.answer().body == b"unread"


# The environ


def test_environ_has_what_pep_3333_wants(plain: Serving) -> None:
    seen = json.loads(ask(plain, request("/x?y")).body)
    assert {name: value for name, value in seen.items() if name.startswith("wsgi.")} == {
        "wsgi.version": [1, 0],
        "wsgi.url_scheme": "http",
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    assert seen["REMOTE_ADDR"] == "127.0.0.1"


def test_environ_tells_of_threads_and_processes(serving: Callable[[str], Serving]) -> None:
    seen = json.loads(ask(serving("many"), request("/")).body)
    assert (seen["wsgi.multithread"], seen["wsgi.multiprocess"]) == (True, True)


def test_unix_socket_has_an_environ_too(serving: Callable[[str], Serving]) -> None:
    proto = get(b"GET / HTTP/1.1", b"X-Forwarded-Proto: https")
    seen = json.loads(ask(serving("unix"), proto).body)
    assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"]) == ("", "https")


def test_path_outside_the_script_name_stays_whole(serving: Callable[[str], Serving]) -> None:
    """A proxy may have cut the prefix off already, or a probe come straight to the pod."""
    seen = json.loads(ask(serving("below"), request("/elsewhere")).body)
    assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/shop", "/elsewhere")


def test_script_name_ends_at_a_slash(serving: Callable[[str], Serving]) -> None:
    seen = json.loads(ask(serving("below"), request("/shopping")).body)
    assert seen["PATH_INFO"] == "/shopping"


# Reading the body

LINES = b"one\ntwo\nthree"


@pytest.mark.parametrize(
    ("how", "pieces"),
    [
        ("read=5", ["one\nt", "wo\nth", "ree"]),
        ("read=1000", ["one\ntwo\nthree"]),
        ("readline=-1", ["one\n", "two\n", "three"]),
        ("readline=2", ["on", "e\n", "tw", "o\n", "th", "re", "e"]),
        ("readlines", ["one\n", "two\n", "three"]),
        ("iterate", ["one\n", "two\n", "three"]),
        ("beyond", ["one\ntwo\nthree", "", "", ""]),
    ],
)
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_body_is_read(how: str, pieces: list[str], framing: str, plain: Serving) -> None:
    path = b"/read-by?" + how.encode()
    if framing == "length":
        sent = post(b"Content-Length: 13", body=LINES, path=path)
    else:
        sent = chunked(b"5\r\none\nt\r\n8\r\nwo\nthree\r\n0\r\n\r\n", path=path)
    assert json.loads(ask(plain, sent).body) == pieces


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_large_body_arrives_whole(framing: str, plain: Serving) -> None:
    body = b"".join(b"%07d\n" % n for n in range(40_000))
    if framing == "length":
        sent = post(b"Content-Length: %d" % len(body), body=body, path=b"/body")
    else:
        pieces = [body[i : i + 9999] for i in range(0, len(body), 9999)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        sent = chunked(framed + b"0\r\n\r\n", path=b"/body")
    with plain.connect() as wire:
        wire.send(sent)
        assert wire.answer().body == body
        assert_serves_on(wire)


TRUNCATED = {
    "length": post(b"Content-Length: 2000000", body=b"x" * 1_500_000, path=b"/body-or-error"),
    "chunked": chunked(b"1e8480\r\n" + b"x" * 1_500_000, path=b"/body-or-error"),
}


@pytest.mark.parametrize("framing", TRUNCATED)
def test_truncated_stream_raises_and_ends_the_connection(framing: str, streaming: Serving) -> None:
    logged = len(streaming.log())
    with streaming.connect() as wire:
        wire.send(TRUNCATED[framing])
        wire.end()
        wire.rest()
    wait_until(
        lambda: "reading raised ConnectionResetError" in streaming.log()[logged:],
        what="the app's error",
    )


@pytest.mark.parametrize("framing", [*TRUNCATED, "small"])
def test_truncated_body_never_reaches_the_app(framing: str, plain: Serving) -> None:
    small = post(b"Content-Length: 10", body=b"abc", path=b"/body-or-error")
    logged = len(plain.log())
    with plain.connect() as wire:
        wire.send(TRUNCATED.get(framing, small))
        wire.end()
        wire.assert_closed()
    assert "reading raised" not in plain.log()[logged:]


def test_malformed_chunk_behind_much_data_is_refused(plain: Serving) -> None:
    sent = chunked(b"30d40\r\n" + b"x" * 200_000 + b"\r\nnonsense\r\n", path=b"/body")
    with plain.connect() as wire:
        wire.send(sent)
        assert wire.answer().status == 400
        wire.assert_closed()


def test_unread_body_does_not_become_a_request(plain: Serving) -> None:
    smuggled = request("/smuggled")
    with plain.connect() as wire:
        wire.send(post(b"Content-Length: %d" % len(smuggled), body=smuggled, path=b"/unread"))
        assert wire.answer().body == b"unread"
        assert_serves_on(wire)


def test_large_unread_body_keeps_the_connection(plain: Serving) -> None:
    body = b"x" * 3_000_000
    with plain.connect() as wire:
        for _ in range(2):
            wire.send(post(b"Content-Length: %d" % len(body), path=b"/unread"), body)
            answer = wire.answer()
            assert (answer.body, answer.value("connection")) == (b"unread", None)


def test_large_unread_stream_ends_the_connection_after_the_answer(streaming: Serving) -> None:
    body = b"x" * 3_000_000
    with streaming.connect() as wire:
        wire.send(post(b"Content-Length: %d" % len(body), path=b"/unread"), body)
        answer = wire.answer()
        assert answer.body == b"unread"
        assert answer.value("connection") == "close"
        wire.assert_closed()


# Answers


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", b"0123456789"),
        ("/write", b"written twice, returned"),
        ("/two", b"onetwo"),
        ("/unread", b"unread"),
    ],
)
def test_body_is_complete(path: str, body: bytes, version: str, plain: Serving) -> None:
    answer = ask(plain, request(path, version=version))
    assert (answer.status, answer.body) == (200, body)


def test_body_of_unknown_length_is_chunked(plain: Serving) -> None:
    with plain.connect() as wire:
        wire.send(request("/generate"))
        answer = wire.answer()
        assert (answer.framing, answer.body) == ("chunked", b"0123456789")
        assert_serves_on(wire)


def test_body_of_unknown_length_ends_the_connection_in_1_0(plain: Serving) -> None:
    with plain.connect() as wire:
        wire.send(get(b"GET /generate HTTP/1.0", b"Connection: keep-alive"))
        answer = wire.answer()
    assert (answer.framing, answer.body) == ("close", b"0123456789")
    assert answer.value("connection") == "close"


def test_list_of_blocks_has_a_length(plain: Serving) -> None:
    answer = ask(plain, respond({"fields": [], "blocks": ["one", "", "two"]}))
    assert (answer.framing, answer.body) == ("length", b"onetwo")


def test_date_and_server_are_given(plain: Serving) -> None:
    answer = ask(plain, request("/unread"))
    assert str(answer.value("date")).endswith(" GMT")
    assert str(answer.value("server")).startswith("prefork")


def test_date_and_server_of_the_app_stay(plain: Serving) -> None:
    fields = [["Date", "then"], ["Server", "own"]]
    answer = ask(plain, respond({"fields": fields}))
    assert (answer.value("date"), answer.value("server")) == ("then", "own")


def test_repeated_fields_stay_apart(plain: Serving) -> None:
    fields = [["Set-Cookie", "a=1"], ["X", "y"], ["Set-Cookie", "b=2"]]
    answer = ask(plain, respond({"fields": fields}))
    assert answer.values("set-cookie") == ["a=1", "b=2"]


def test_latin_1_reaches_the_client(plain: Serving) -> None:
    answer = ask(plain, respond({"status": "200 Ça va", "fields": [["X", "é"]]}))
    assert (answer.reason, answer.value("x")) == ("Ça va", "é")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_no_body_where_none_may_be(status: str, plain: Serving) -> None:
    with plain.connect() as wire:
        wire.send(respond({"status": status, "blocks": ["body"]}))
        answer = wire.answer()
        assert answer.framing == "none"
        assert answer.value("transfer-encoding") is None
        assert_serves_on(wire)


def test_204_has_no_content_length(plain: Serving) -> None:
    wanted = {"status": "204 No Content", "fields": [["Content-Length", "4"]], "blocks": ["body"]}
    assert ask(plain, respond(wanted)).value("content-length") is None


@pytest.mark.parametrize("path", ["/generate", "/unread", "/write", "/file?real"])
def test_head_has_no_body(path: str, plain: Serving) -> None:
    with plain.connect() as wire:
        wire.send(request(path, method="HEAD"))
        assert wire.answer("HEAD").status == 200
        assert_serves_on(wire)


def test_refused_and_failed_heads_have_no_body_either(plain: Serving) -> None:
    for sent in (b"HEAD / HTTP/1.1\r\nHost: a b\r\n\r\n", request("/fails?before", method="HEAD")):
        with plain.connect() as wire:
            wire.send(sent)
            assert wire.answer("HEAD").status in (400, 500)
            wire.end()
            wire.assert_closed()


def test_head_keeps_the_content_length_of_the_app(plain: Serving) -> None:
    wanted = {"fields": [["Content-Length", "1234"]], "blocks": []}
    answer = ask(plain, respond(wanted, method="HEAD"), "HEAD")
    assert answer.value("content-length") == "1234"


@pytest.mark.parametrize("lazy", [True, False])
def test_excess_is_cut(lazy: bool, plain: Serving) -> None:
    wanted = {"fields": [["Content-Length", "5"]], "blocks": ["abc", "defgh"], "lazy": lazy}
    with plain.connect() as wire:
        wire.send(respond(wanted))
        assert wire.answer().body == b"abcde"
        assert_serves_on(wire)


@pytest.mark.parametrize("lazy", [True, False])
@pytest.mark.parametrize("blocks", [["abc"], []])
def test_shortage_ends_the_connection(lazy: bool, blocks: list[str], plain: Serving) -> None:
    wanted = {"fields": [["Content-Length", "5"]], "blocks": blocks, "lazy": lazy}
    with plain.connect() as wire:
        wire.send(respond(wanted), request("/unread"))
        rest = wire.rest()
    head, _, body = rest.partition(b"\r\n\r\n")
    assert b"content-length: 5" in head.lower()
    assert body == "".join(blocks).encode()


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ({"status": "20 OK"}, "status"),
        ({"status": "2000 OK"}, "status"),
        ({"status": "OK"}, "status"),
        ({"status": ""}, "status"),
        ({"status": "200 OK\r\nX: y"}, "status"),
        ({"status": "100 Continue"}, "status"),
        ({"status": "200 \u20ac"}, "status"),
        ({"fields": [["X Y", "a"]]}, "X Y"),
        ({"fields": [["", "a"]]}, "name"),
        ({"fields": [["X:", "a"]]}, "X:"),
        ({"fields": [["X\r\nY", "a"]]}, "name"),
        ({"fields": [["X", "a\r\nY: b"]]}, "X"),
        ({"fields": [["X", "a\nb"]]}, "X"),
        ({"fields": [["X", "a\0b"]]}, "X"),
        ({"fields": [["X", "\u20ac"]]}, "value"),
        ({"fields": [["Content-Length", "x"]]}, "Content-Length"),
        ({"fields": [["Content-Length", "-1"]]}, "Content-Length"),
        ({"fields": [["Content-Length", "1"], ["Content-Length", "2"]]}, "Content-Length"),
        ({"fields": [["X", 1]]}, "value"),
        ({"fields": [[1, "x"]]}, "name"),
        ({"status": 200}, "status"),
    ],
    ids=repr,
)
def test_bad_answer_is_refused(wanted: dict[str, Any], named: str, plain: Serving) -> None:
    logged = len(plain.log())
    answer = ask(plain, respond(wanted))
    assert answer.status == 500
    assert answer.value("x") is None
    wait_until(lambda: named in plain.log()[logged:], what=f"the log to name {named}")


# Failing


@pytest.mark.parametrize("how", ["before", "after", "never", "text", "none", "exit"])
def test_failure_before_anything_was_sent_is_a_500(how: str, plain: Serving) -> None:
    logged = len(plain.log())
    assert ask(plain, request(f"/fails?{how}")).status == 500
    wait_until(
        lambda: "Traceback" in plain.log()[logged:] or "rror" in plain.log()[logged:],
        what="the failure in the log",
    )
    assert ask(plain, request("/unread")).status == 200


@pytest.mark.parametrize("how", ["write", "chunk"])
def test_failure_after_something_was_sent_cuts_the_answer(how: str, plain: Serving) -> None:
    with plain.connect() as wire:
        wire.send(request(f"/fails?{how}"), request("/unread"))
        rest = wire.rest()
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"some" in rest
    assert b"unread" not in rest
    assert not rest.endswith(b"0\r\n\r\n"), "the client must see that the answer is not whole"


def test_exc_info_replaces_what_was_not_sent(plain: Serving) -> None:
    answer = ask(plain, request("/exc-info?early"))
    assert (answer.status, answer.reason, answer.body) == (500, "Replaced", b"replaced")
    assert answer.value("x-first") is None
    assert answer.value("content-length") in (None, "8")


def test_exc_info_is_raised_again_once_something_was_sent(plain: Serving) -> None:
    logged = len(plain.log())
    with plain.connect() as wire:
        wire.send(request("/exc-info?late"))
        rest = wire.rest()
    assert rest.startswith(b"HTTP/1.1 200 OK\r\n")
    assert rest.endswith(b"\r\n\r\nsent")
    wait_until(lambda: "KeyError" in plain.log()[logged:], what="the app's own error")


def test_second_start_response_without_exc_info_is_an_error(plain: Serving) -> None:
    assert ask(plain, request("/exc-info?without")).status == 500


@pytest.mark.parametrize("how", ["", "none", "fails"])
def test_body_is_closed(how: str, plain: Serving) -> None:
    before = int(ask(plain, request("/closed")).body)
    with plain.connect() as wire:
        wire.send(request(f"/closing?{how}"))
        wire.end()
        assert wire.rest().startswith(b"HTTP/1.1 200 OK\r\n")
    assert int(ask(plain, request("/closed")).body) == before + 1


def test_body_is_closed_when_the_client_has_gone(plain: Serving) -> None:
    before = int(ask(plain, request("/closed")).body)
    with plain.connect() as wire:
        wire.send(request("/closing"))
    wait_until(
        lambda: int(ask(plain, request("/closed")).body) == before + 1,
        what="the body to be closed",
    )


# wsgi.file_wrapper


def source() -> bytes:
    with open(SOURCE, "rb") as file:
        return file.read()


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_file_is_sent_whole(version: str, plain: Serving) -> None:
    answer = ask(plain, request("/file?real", version=version))
    assert answer.body == source()


def test_file_is_sent_from_where_it_stands(plain: Serving) -> None:
    assert ask(plain, request("/file?middle")).body == source()[100:]


def test_file_in_memory_is_sent(plain: Serving) -> None:
    assert ask(plain, request("/file?memory")).body == b"in memory"


def test_file_is_cut_to_its_content_length(plain: Serving) -> None:
    with plain.connect() as wire:
        wire.send(request("/file?real&10"))
        assert wire.answer().body == source()[:10]
        assert_serves_on(wire)


def test_file_shorter_than_its_content_length_ends_the_connection(plain: Serving) -> None:
    length = len(source()) + 10
    with plain.connect() as wire:
        wire.send(request(f"/file?real&{length}"), request("/unread"))
        _, _, body = wire.rest().partition(b"\r\n\r\n")
    assert body == source()
