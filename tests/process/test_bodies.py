"""Request bodies: received before the app is called, however large, slow or framed they are."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.process.engine_host import read_at_random
from tests.process.engines import Client, Host, Stage, sending, stage
from tests.process.harness import PREFORK, Prefork, open_files, write_app
from tests.support.wait import UNHURRIED_S, wait_until

MIB = 1 << 20
HEAD = "POST {target} HTTP/1.1\r\nHost: t\r\n{more}\r\n"


def head(target: str, *fields: str) -> bytes:
    return HEAD.format(target=target, more="".join(f"{field}\r\n" for field in fields)).encode()


def chunked(body: bytes, size: int = 50_000) -> bytes:
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in [*pieces, b""])


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def digest_of(body: bytes) -> bytes:
    return f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()


def assert_answers(it: Stage) -> None:
    """Ask for something else; a client that stalled before it would hold the only app thread for a minute."""
    with it.connect() as client:
        assert client.ask().body == b"hello"


# -- a body that is still coming holds nothing -----------------------------------------------------

STALLS = {
    "small": head("/echo", "Content-Length: 5") + b"1",
    "one byte of 2 MB": head("/echo", "Content-Length: 2000000") + b"1",
    "half of 2 MB": head("/echo", "Content-Length: 2000000") + b"1" * 1_000_000,
    "most of 2 MB": head("/echo", "Content-Length: 2000000") + b"1" * 1_999_999,
    "small, expects": head("/echo", "Content-Length: 5", "Expect: 100-continue"),
    "large, expects": head("/echo", "Content-Length: 2000000", "Expect: 100-continue"),
    "chunked": head("/echo", "Transfer-Encoding: chunked") + b"5\r\nhel",
    "large, chunked": head("/echo", "Transfer-Encoding: chunked") + chunked(b"1" * 1_500_000)[:-5],
}


@pytest.mark.parametrize("sent", STALLS.values(), ids=STALLS.keys())
def test_body_that_is_still_coming_holds_no_app_thread(sent: bytes) -> None:
    with stage() as it:
        it.start(threads=1, body_timeout_s=60.0)
        stalled = [it.connect() for _ in range(8)]
        for client in stalled:
            client.send(sent)
        for _ in range(5):
            assert_answers(it)
        wait_until(lambda: it.cell(1, "in_flight") == 0, what="no call")


PIECES = {
    "head, body": ({}, [head("/digest", "Content-Length: 100"), b"1" * 100]),
    "head, body in two": ({}, [head("/digest", "Content-Length: 100"), b"1" * 50, b"1" * 50]),
    "head in two": ({}, [b"GET / HTTP/1.1\r\n", b"Host: t\r\n\r\n"]),
    "streamed": (
        {"stream_request_bodies": True},
        [head("/digest", "Content-Length: 100000"), b"1" * 50_000, b"1" * 50_000],
    ),
}


@pytest.mark.parametrize(("settings", "pieces"), PIECES.values(), ids=PIECES.keys())
def test_request_in_pieces_is_not_held_up_by_a_late_acknowledgement(
    settings: dict[str, Any], pieces: list[bytes]
) -> None:
    """nginx sends head and body apart, and a piece only when the one before it is acknowledged (Nagle).

    The kernel acknowledges at once at the beginning of a connection, and after 40 ms later on.
    """
    with stage() as it:
        it.start(**settings)
        with it.connect() as client:

            def ask_s() -> float:
                started = time.perf_counter()
                for piece in pieces:
                    client.send(piece)
                assert client.read().status == 200
                return time.perf_counter() - started

            for _ in range(15):
                ask_s()
            # A busy machine may hold up any of them; a late acknowledgement would hold up all.
            wait_until(lambda: ask_s() < 0.03, what="an answer before 30 ms", every_s=0.02)


def test_continue_comes_at_once_whatever_the_app_does() -> None:
    """Also to an app that never reads the body: it is not called before the body is here."""
    with stage() as it:
        it.start()
        for target, body in (("/echo", b"body"), ("/unread", b"did not look")):
            with it.connect() as client:
                client.send(head(target, "Expect: 100-continue", "Content-Length: 4"))
                assert client.read().status == 100
                client.send(b"body")
                assert client.read().body == body
                assert client.ask().body == b"hello"


def test_continue_is_left_out_when_the_body_is_on_its_way_already() -> None:
    with stage() as it:
        it.start()
        with it.connect() as client:
            client.send(head("/echo", "Expect: 100-continue", "Content-Length: 4") + b"body")
            assert client.read().body == b"body"
            client.send(head("/echo", "Expect: 100-continue", "Content-Length: 0"))
            assert client.read().status == 200


@pytest.mark.parametrize("size", [1000, 1001])
def test_body_above_the_limit_is_refused_instead_of_continued(size: int) -> None:
    with stage() as it:
        it.start(max_request_body=1000)
        with it.connect() as client:
            client.send(head("/digest", "Expect: 100-continue", f"Content-Length: {size}"))
            assert client.read().status == (100 if size <= 1000 else 413)


@pytest.mark.parametrize("size", [3 * MIB, 3 * MIB + 1])
def test_chunked_body_is_refused_where_it_passes_the_limit(size: int) -> None:
    with stage() as it:
        it.start(max_request_body=3 * MIB)
        with it.connect() as client:
            body = noise(size)
            client.send(head("/digest", "Transfer-Encoding: chunked") + chunked(body))
            answer = client.read()
            assert answer.status == (200 if size <= 3 * MIB else 413)
            assert size > 3 * MIB or answer.body == digest_of(body)


# -- sizes and framings ----------------------------------------------------------------------------

SIZES = [0, 1, 4000, 64 * 1024, MIB - 1, MIB, MIB + 1, 3 * MIB + 7, 20 * MIB]


@pytest.mark.parametrize("size", SIZES)
def test_body_arrives_whole_and_has_its_length_however_it_is_framed(size: int) -> None:
    body = noise(size)
    with stage() as it:
        it.start()
        with it.connect() as client:
            for framed in (
                head("/length_and_digest", f"Content-Length: {size}") + body,
                head("/length_and_digest", "Transfer-Encoding: chunked") + chunked(body),
            ):
                client.send(framed)
                assert client.read().body == str(size).encode() + b" " + digest_of(body)
            assert client.ask().body == b"hello"


def test_requests_behind_a_large_body_are_answered_in_order() -> None:
    body = noise(2 * MIB)
    with stage() as it:
        it.start()
        with it.connect() as client:
            client.send(
                head("/digest", f"Content-Length: {len(body)}") + body
                + head("/digest", "Transfer-Encoding: chunked") + chunked(body)
                + b"GET / HTTP/1.1\r\nHost: t\r\n\r\n"
                + head("/digest", f"Content-Length: {len(body)}") + body
            )  # fmt: skip
            assert client.read().body == digest_of(body)
            assert client.read().body == digest_of(body)
            assert client.read().body == b"hello"
            assert client.read().body == digest_of(body)


def test_large_body_that_the_app_leaves_unread_keeps_the_connection() -> None:
    with stage() as it:
        it.start()
        with it.connect() as client:
            assert client.ask("/unread", method="POST", body=b"x" * 3_000_000).status == 200
            assert client.ask().body == b"hello"


@pytest.mark.parametrize("size", [10_000, 3 * MIB])
@pytest.mark.parametrize("seed", range(6))
def test_input_reads_as_a_file_does(size: int, seed: int) -> None:
    """The same calls, with the same sizes, as on a BytesIO; lines of all lengths."""
    body = b"\n".join(b"l" * (n * 37 % 5000) for n in range(size // 2000))[:size]
    with stage() as it:
        it.start()
        with it.connect() as client:
            answer = client.ask(f"/read_at_random?seed={seed}", method="POST", body=body)
        assert json.loads(answer.body) == read_at_random(io.BytesIO(body), seed)


# -- the spool -------------------------------------------------------------------------------------


def wait_spooled(host: Host, folder: Path, count: int) -> None:
    """Wait until the engine has so many files in `folder` open."""

    def spooled() -> int:
        return sum(link.startswith(str(folder)) for link in open_files(host.process.pid).values())

    wait_until(lambda: spooled() == count, what=f"{count} spool files")


def test_spooled_body_has_no_name_and_ends_with_its_request(tmp_path: Path) -> None:
    with stage() as it:
        host = it.start(spool_dir=str(tmp_path))
        with it.connect() as client:
            client.send(head("/digest", "Content-Length: 3000000") + b"x" * 2_000_000)
            wait_spooled(host, tmp_path, 1)
            assert os.listdir(tmp_path) == []
            client.send(b"x" * 1_000_000)
            assert client.read().body == digest_of(b"x" * 3_000_000)
            wait_spooled(host, tmp_path, 0)
        with it.connect() as client:
            client.send(head("/digest", "Content-Length: 3000000") + b"x" * 2_000_000)
            wait_spooled(host, tmp_path, 1)
        wait_spooled(host, tmp_path, 0)


def test_body_waits_unread_while_the_spool_is_full(tmp_path: Path) -> None:
    with stage() as it:
        host = it.start(spool_size=4 * MIB, spool_dir=str(tmp_path), body_timeout_s=30.0)
        body = noise(3 * MIB)
        with it.connect() as first, it.connect() as second:
            first.send(head("/digest", f"Content-Length: {len(body)}") + body[:-1])
            wait_spooled(host, tmp_path, 1)
            # In a thread of its own: the kernel takes only part of it while nobody reads.
            second.sock.settimeout(20)
            with sending(second, head("/digest", f"Content-Length: {len(body)}") + body):
                with it.connect() as third:
                    small = third.ask("/digest", method="POST", body=b"s" * 500_000)
                    assert small.body == digest_of(b"s" * 500_000)
                first.send(body[-1:])
                assert first.read().body == digest_of(body)
                assert second.read().body == digest_of(body)


def test_body_that_finds_no_room_in_time_gets_503(tmp_path: Path) -> None:
    """One that keeps coming, however slowly, keeps its place."""
    with stage() as it:
        host = it.start(spool_size=4 * MIB, spool_dir=str(tmp_path), body_timeout_s=5.0)
        with it.connect() as first, it.connect() as second:
            first.send(head("/digest", "Content-Length: 4000000") + b"x" * 2_000_000)
            wait_spooled(host, tmp_path, 1)
            with sending(first, b"x" * 1_999_999, every_s=0.1, step=4000):
                second.send(head("/digest", "Content-Length: 2000000") + b"x" * 1_500_000)
                answer = second.read()
                assert (answer.status, answer.field("Connection")) == (503, "close")
                assert_answers(it)


def test_body_that_does_not_move_makes_way_for_one_that_waits(tmp_path: Path) -> None:
    with stage() as it:
        host = it.start(spool_size=4 * MIB, spool_dir=str(tmp_path), body_timeout_s=30.0)
        body = noise(2 * MIB)
        with it.connect() as first, it.connect() as second:
            first.send(head("/digest", "Content-Length: 4000000") + b"x" * 2_000_000)
            wait_spooled(host, tmp_path, 1)
            second.sock.settimeout(25)
            with sending(second, head("/digest", f"Content-Length: {len(body)}") + body):
                assert second.read().body == digest_of(body)
            assert first.read().status == 408


def test_body_larger_than_the_whole_spool_is_refused_with_the_name_of_the_option() -> None:
    """It could wait for room forever."""
    with stage() as it:
        it.start(spool_size=4 * MIB)
        with it.connect() as client:
            client.send(head("/digest", f"Content-Length: {4 * MIB + 1}"))
            answer = client.read()
            assert answer.status == 413
            assert b"--spool-size" in answer.body
            assert client.is_ended()
        with it.connect() as client:
            client.send(head("/digest", "Transfer-Encoding: chunked"))
            with sending(client, chunked(noise(5 * MIB))):
                assert client.read().status == 413
        with it.connect() as client:
            body = noise(4 * MIB)
            assert client.ask("/digest", method="POST", body=body).body == digest_of(body)


def test_without_a_usable_spool_large_bodies_are_streamed_and_the_log_says_so(folder: Path) -> None:
    write_app(
        folder,
        """
        def app(environ, start_response):
            length = len(environ["wsgi.input"].read())
            start_response("200 OK", [])
            return [b"%d" % length]
        """,
    )
    with Prefork("-w", "1", "--spool-dir", "/proc", cwd=folder) as server:
        line = server.wait_log("request bodies above 1 MiB cannot be spooled.*")[0]
        assert "/proc" in line
        assert "--spool-dir" in line
        with Client(socket.create_connection(("127.0.0.1", server.port), UNHURRIED_S)) as client:
            assert client.ask("/", method="POST", body=b"x" * 3_000_000).body == b"3000000"
            client.send(head("/", "Transfer-Encoding: chunked") + chunked(b"x" * 3_000_000))
            assert client.read().body == b"3000000"


def test_full_disk_costs_the_request_and_nothing_else() -> None:
    with stage() as it:
        it.start(file_bytes_max=2 * MIB)
        with it.connect() as client:
            client.send(head("/digest", f"Content-Length: {3 * MIB}"))
            with sending(client, b"x" * 3 * MIB):
                assert client.read().status == 503
        assert_answers(it)
        with it.connect() as client:
            assert client.ask("/digest", method="POST", body=b"x" * MIB).body == digest_of(
                b"x" * MIB
            )


def test_full_disk_is_logged_with_what_the_system_says(folder: Path) -> None:
    command = ("prlimit", f"--fsize={8 * MIB}", *PREFORK)
    with Prefork("-w", "1", "--spool-dir", str(folder), cwd=folder, command=command) as server:
        with Client(socket.create_connection(("127.0.0.1", server.port), UNHURRIED_S)) as client:
            client.send(head("/", f"Content-Length: {9 * MIB}"))
            with sending(client, b"x" * 9 * MIB):
                assert client.read().status == 503
        line = server.wait_log("cannot keep a request body.*")[0]
        assert str(folder) in line
        assert "File too large" in line
        assert server.get()[0] == 200


def test_memory_of_bodies_that_are_still_coming_is_bounded() -> None:
    with stage() as it:
        host = it.start(buffer_memory=8 * MIB, spool_size=1 << 30, body_timeout_s=120)
        assert_answers(it)

        def rss() -> int:
            return int(Path(f"/proc/{host.process.pid}/statm").read_text().split()[1]) * 4096

        before = rss()
        clients = [it.connect() for _ in range(100)]
        for client in clients:
            client.send(head("/echo", "Content-Length: 1000000") + b"x" * 900_000)
        wait_until(lambda: it.cell(1, "connections") == 100, what="all of them")
        assert_answers(it)
        assert rss() - before < 8 * MIB + 12 * MIB
        for client in clients:
            client.send(b"x" * 100_000)
            assert len(client.read().body) == 1_000_000


def test_fast_upload_does_not_keep_the_others_waiting() -> None:
    """However fast or slow the machine is: while the upload goes on, the others are answered again and again."""
    most = 900 * MIB
    is_enough = threading.Event()
    sent = answered = 0

    def upload() -> None:
        nonlocal sent
        piece = b"x" * MIB
        while sent < most and not is_enough.is_set():
            fast.send(piece)
            sent += MIB

    with stage() as it:
        it.start(spool_size=1 << 30)
        with it.connect() as fast, it.connect() as other:
            fast.send(head("/length", f"Content-Length: {most}"))
            uploading = threading.Thread(target=upload, daemon=True)
            uploading.start()
            while answered < 20 or sent < 100 * MIB:
                assert other.ask().body == b"hello"
                answered += 1
                assert sent < most, f"only {answered} answers while {most} bytes came"
            is_enough.set()
            uploading.join()


# -- streaming on request ---------------------------------------------------------------------------


def test_streaming_app_reads_while_the_body_comes() -> None:
    with stage() as it:
        it.start(stream_request_bodies=True, body_timeout_s=600)
        with it.connect() as client:
            client.send(head("/first_line", "Content-Length: 3000000") + b"line\n" + b"x" * 70_000)
            assert client.read().body == b"line\n"  # nobody waits ten minutes for the rest


def test_streaming_app_gets_its_continue_when_it_reads() -> None:
    with stage() as it:
        it.start(stream_request_bodies=True)
        with it.connect() as client:
            client.send(head("/echo", "Expect: 100-continue", "Content-Length: 4"))
            assert client.read().status == 100
            client.send(b"body")
            assert client.read().body == b"body"
        with it.connect() as client:
            client.send(head("/unread", "Expect: 100-continue", "Content-Length: 4"))
            answer = client.read()
            assert (answer.status, answer.field("Connection")) == (200, "close")
            assert client.is_ended()


def test_truncated_stream_raises_in_the_app_and_ends_the_connection() -> None:
    with stage() as it:
        host = it.start(stream_request_bodies=True)
        with it.connect() as client:
            client.send(head("/digest", "Content-Length: 3000000") + b"abc")
            client.sock.shutdown(socket.SHUT_WR)
            assert client.read().status == 400
            assert client.is_ended()
        wait_until(lambda: "ConnectionResetError" in host.errors, what="the traceback")
