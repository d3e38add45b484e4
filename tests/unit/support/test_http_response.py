"""The response reader accepts what is well framed and refuses all that is not."""

from __future__ import annotations

import pytest

from tests.support.http_response import BadResponseError, Response, ResponseReader

OK = b"HTTP/1.1 200 OK\r\n"


def _read(data: bytes) -> Response | None:
    reader = ResponseReader()
    reader.feed(data)
    return reader.next()


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b"Content-Length: 0\r\n\r\n", b""),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", b"hello"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\nExpires: 0\r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", b"ok"),
    ],
)
def test_reads_body_whole_or_byte_by_byte(data: bytes, body: bytes) -> None:
    whole = _read(data)
    assert whole is not None
    assert whole.body == body

    reader, answers = ResponseReader(), []
    for byte in data:
        reader.feed(bytes([byte]))
        if (answer := reader.next()) is not None:
            answers.append(answer)
    assert answers == [whole]
    assert reader.is_empty


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nok",
        b"garbage\r\n\r\n",
        OK + b"Content-Length: 2\nX: y\r\n\r\nok",
        OK + b"Content-Length : 2\r\n\r\nok",
        OK + b"Content-Length: +2\r\n\r\nok",
        OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
        OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nok",
        OK + b"Transfer-Encoding: gzip\r\n\r\n",
        OK + b"X: no framing, so a cut could not be told from the end\r\n\r\nbody",
        OK + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n",
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello",
        OK + b"X: " + b"x" * 70_000,
    ],
)
def test_refuses_bad_framing(data: bytes) -> None:
    with pytest.raises(BadResponseError):
        _read(data)


def test_cut_answer_is_never_complete() -> None:
    data = OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    assert [_read(data[:cut]) for cut in range(len(data))] == [None] * len(data)


def test_bytes_after_the_answer_are_kept_apart() -> None:
    reader = ResponseReader()
    reader.feed(OK + b"Content-Length: 2\r\n\r\nokHTTP")
    answer = reader.next()
    assert answer is not None
    assert answer.body == b"ok"
    assert not reader.is_empty


def test_connection_close_and_repeated_fields() -> None:
    answer = _read(OK + b"Connection: Close\r\nVia: a\r\nvia: b\r\nContent-Length: 0\r\n\r\n")
    assert answer is not None
    assert not answer.keep_alive
    assert answer.fields["via"] == "a, b"
