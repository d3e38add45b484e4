"""The engine alone, over loopback: requests, bodies, answers, limits."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prefork import _engine

from tests.process.engines import JSON_LINES, SETTINGS, Stage, stage
from tests.support.wait import wait_until


@pytest.fixture(scope="module")
def served() -> Iterator[Stage]:
    with stage() as it:
        it.start(max_request_body=40_000_000, forwarded_allow_ips=["127.0.0.1"])
        yield it


def chunked(body: bytes, size: int) -> bytes:
    blocks = (body[at : at + size] for at in range(0, len(body), size))
    return b"".join(b"%x\r\n%s\r\n" % (len(b), b) for b in blocks) + b"0\r\n\r\n"


CHUNKED_HEAD = b"POST /digest HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n"


def expected_digest(body: bytes) -> bytes:
    return f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()


def test_keep_alive_serves_many_requests_on_one_connection(served: Stage) -> None:
    with served.connect() as client:
        for _ in range(200):
            assert client.ask().body == b"hello"


def test_pipelined_requests_are_answered_in_order(served: Stage) -> None:
    with served.connect() as client:
        requests = [b"GET /big?size=%d HTTP/1.1\r\nHost: t\r\n\r\n" % n for n in range(1, 300)]
        client.send(b"".join(requests))
        assert [len(client.read().body) for _ in requests] == list(range(1, 300))


def test_pipelined_bodies_do_not_run_into_each_other(served: Stage) -> None:
    with served.connect() as client:
        post = b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 3\r\n\r\n"
        client.send(post + b"one" + CHUNKED_HEAD.replace(b"digest", b"echo") + chunked(b"two", 2))
        client.send(post + b"tre")
        assert [client.read().body for _ in range(3)] == [b"one", b"two", b"tre"]


@pytest.mark.parametrize("size", [0, 1, 1000, 65_536, 65_537, 1_048_576, 1_048_577, 20_000_000])
def test_bodies_of_known_length_arrive_whole(served: Stage, size: int) -> None:
    body = os.urandom(size)
    with served.connect() as client:
        for _ in range(2):
            answer = client.ask("/digest", method="POST", body=body)
            assert answer.body == expected_digest(body)


@pytest.mark.parametrize(
    ("size", "chunk"), [(0, 1), (5, 1), (60_000, 7), (300_000, 4096), (3_000_000, 9000)]
)
def test_chunked_bodies_arrive_whole(served: Stage, size: int, chunk: int) -> None:
    body = os.urandom(size)
    with served.connect() as client:
        for _ in range(2):
            client.send(CHUNKED_HEAD + chunked(body, chunk))
            assert client.read().body == expected_digest(body)


def test_body_that_trickles_in_is_read_whole(served: Stage) -> None:
    wire = CHUNKED_HEAD + chunked(b"abcdefghij", 3)
    with served.connect() as client:
        for at in range(len(wire)):
            client.send(wire[at : at + 1])
        assert client.read().body == expected_digest(b"abcdefghij")


def test_large_echo_comes_back_equal(served: Stage) -> None:
    body = os.urandom(5_000_000)
    with served.connect() as client:
        answer = client.ask("/echo", method="POST", body=body)
        assert answer.body == body


def test_input_reads_lines_with_sizes_and_hints(served: Stage) -> None:
    with served.connect() as client:
        answer = client.ask("/lines", method="POST", body=b"a\nbcdef\ng\nh\n\nlast")
        parts = ["a\n", "bcd", "", "ef\n", "g\n", "h\n", "\n", "last"]
        assert json.loads(answer.body) == parts


def test_unread_small_body_keeps_the_connection(served: Stage) -> None:
    with served.connect() as client:
        assert client.ask("/unread", method="POST", body=b"x" * 1000).status == 200
        assert client.ask().body == b"hello"


def test_body_above_the_limit_is_refused_before_it_is_read(served: Stage) -> None:
    with served.connect() as client:
        client.send(b"POST /digest HTTP/1.1\r\nHost: t\r\nContent-Length: 40000001\r\n\r\n")
        assert client.read().status == 413
        assert client.is_ended()


def test_generator_is_sent_in_chunks_and_closed(served: Stage) -> None:
    with served.connect() as client:
        before = int(client.ask("/closed").body)
        answer = client.ask("/blocks?count=5&size=10")
        assert answer.field("Transfer-Encoding") == "chunked"
        assert answer.body == b"".join(bytes([65 + i]) * 10 for i in range(5))
        assert int(client.ask("/closed").body) == before + 1


def test_http_1_0_gets_no_chunks_and_the_end_of_the_connection(served: Stage) -> None:
    with served.connect() as client:
        client.send(b"GET /blocks?count=3&size=2 HTTP/1.0\r\n\r\n")
        answer = client.read()
        assert answer.field("Transfer-Encoding") is None
        assert answer.body == b"AABBCC"


def test_http_1_0_is_kept_alive_when_it_asks(served: Stage) -> None:
    with served.connect() as client:
        for _ in range(2):
            client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            answer = client.read()
            assert (answer.field("Connection"), answer.body) == ("keep-alive", b"hello")


@pytest.mark.parametrize(
    ("path", "body"),
    [("late", b"late"), ("written", b"first second third"), ("replaced", b"replaced")],
)
def test_ways_of_pep_3333(served: Stage, path: str, body: bytes) -> None:
    with served.connect() as client:
        answer = client.ask(f"/{path}")
        assert answer.body == body
        assert answer.field("X-First") is None
        assert client.ask().body == b"hello"


def test_excess_is_cut_and_shortage_ends_the_connection(served: Stage) -> None:
    with served.connect() as client:
        assert client.ask("/excess").body == b"abc"
        assert client.ask().body == b"hello"
        with pytest.raises(EOFError, match="5 bytes early"):
            client.ask("/short")


@pytest.mark.parametrize("path", ["raises", "silent", "bad_header", "text"])
def test_app_errors_give_500_and_keep_the_connection(served: Stage, path: str) -> None:
    with served.connect() as client:
        assert client.ask(f"/{path}").status == 500
        assert client.ask().body == b"hello"
    wait_until(
        lambda: f" method=GET target=/{path}\n  " in served.hosts[0].errors,
        what="the traceback",
    )


@pytest.mark.parametrize("path", ["raises_within", "too_late"])
def test_app_error_after_the_head_cuts_the_answer(served: Stage, path: str) -> None:
    with served.connect() as client, pytest.raises(EOFError):
        client.ask(f"/{path}")


def test_head_and_204_have_no_body(served: Stage) -> None:
    with served.connect() as client:
        answer = client.ask(method="HEAD")
        assert answer.field("Content-Length") == "5"
        assert client.ask("/no_content").field("Content-Length") is None
        assert client.ask("/blocks?count=2&size=3", method="HEAD").status == 200
        assert client.ask().body == b"hello"


@pytest.mark.parametrize("size", [10, 70_000, 6_000_000])
def test_file_wrapper_sends_the_file_from_its_position(served: Stage, size: int) -> None:
    with served.connect() as client:
        whole = b"0123456789" * (size // 10)
        answer = client.ask(f"/file?size={size}&from=5")
        assert answer.field("Content-Length") == str(len(whole) - 5)
        assert answer.body == whole[5:]
        assert client.ask("/memory_file").body == b"m" * 100_000
        assert client.ask(f"/file?size={size}", method="HEAD").status == 200
        assert client.ask().body == b"hello"


def test_environ_has_what_pep_3333_asks_for(served: Stage) -> None:
    with served.connect() as client:
        more = "X-A: 1\r\nx-a: 2\r\nCookie: a=1\r\nCookie: b=2\r\nX_A: bad\r\nAccept: a\r\nAccept: b\r\n"
        more += "Content-Type: text/x\r\nX-Forwarded-Proto: https\r\n"
        answer = client.ask("/environ_of/%e4%20?q=%20", method="POST", body=b"12", more=more)
        environ = json.loads(answer.body)
    expected = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/environ_of/\u00e4 ",
        "QUERY_STRING": "q=%20",
        "RAW_URI": "/environ_of/%e4%20?q=%20",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(served.address[1]),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "prefork-test",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "2",
        "HTTP_HOST": "test",
        "HTTP_X_A": "1,2",
        "HTTP_COOKIE": "a=1; b=2",
        "HTTP_ACCEPT": "a,b",
        "wsgi.version": [1, 0],
        "wsgi.url_scheme": "https",
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    assert {key: environ.get(key) for key in expected} == expected


def test_what_requests_have_in_common_is_never_taken_for_what_they_say(served: Stage) -> None:
    """Environs are copied from templates that are learned from earlier requests."""
    names = ["User-Agent", "Cookie", "X-Own", "Accept", "Authorization", "x-own-too"]
    rows = [names, names[::-1], names[:4], [*names, "Dnt"], [*names[:5], "X-Own-Too"]]
    values = ["a", "b", "", "\u00e9", "\x80" * 3, "k" * 512, "l" * 513, "a", "a"]
    with served.connect() as client:
        for turn in range(1000):
            row = rows[turn % len(rows)]
            sent = {
                name: values[(turn * (at + 1)) // 7 % len(values)] for at, name in enumerate(row)
            }
            more = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
            environ = json.loads(client.ask("/environ_of", more=more).body)
            expected = {
                f"HTTP_{n.upper().replace('-', '_')}": v.encode().decode("latin-1")
                for n, v in sent.items()
            }
            got = {key: value for key, value in environ.items() if key.startswith("HTTP_")}
            assert got == expected | {"HTTP_HOST": "test"}, f"request {turn}"


def test_repeated_names_are_joined_however_often_they_come(served: Stage) -> None:
    with served.connect() as client:
        for turn in range(64):
            more = f"X-A: {turn}\r\nx-a: 2\r\nAccept: a\r\nAccept: {turn}\r\n"
            environ = json.loads(client.ask("/environ_of", more=more).body)
            found = environ["HTTP_X_A"], environ["HTTP_ACCEPT"]
            assert found == (f"{turn},2", f"a,{turn}")


def test_each_connection_sees_its_own_port(served: Stage) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(served.connect()) for _ in range(100)]
        for client in clients * 2:
            environ = json.loads(client.ask("/environ_of").body)
            assert environ["REMOTE_PORT"] == str(client.sock.getsockname()[1])


def test_malformed_request_is_refused_and_counted(served: Stage) -> None:
    before = served.cell(1, "rejects")
    with served.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert client.read().status == 400
        assert client.is_ended()
    wait_until(lambda: served.cell(1, "rejects") == before + 1, what="the count")


def test_request_and_end_in_one_packet_end_the_connection_after_the_answer(served: Stage) -> None:
    with served.connect() as client:
        client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
        client.sock.shutdown(socket.SHUT_WR)
        assert client.read().body == b"hello"
        assert client.is_ended()


def test_requests_are_counted_by_method_and_code(served: Stage) -> None:
    before = served.requests(1, "PUT", "200"), served.cell(1, "bytes_in")
    with served.connect() as client:
        client.ask("/digest", method="PUT", body=b"x" * 500)
    wait_until(
        lambda: (
            served.requests(1, "PUT", "200") == before[0] + 1 and served.cell(1, "in_flight") == 0
        ),
        what="the count",
    )
    assert served.cell(1, "bytes_in") > before[1] + 500
    wait_until(lambda: served.cell(1, "oldest_start_us") == 0, what="no call")


def test_slow_head_and_slow_body_get_408() -> None:
    with stage() as it:
        # Longer than this test may be held up between connecting and sending: a silent client gets no 408.
        it.start(header_timeout_s=2, body_timeout_s=2)
        with it.connect() as client, it.connect() as second, it.connect() as third:
            client.send(b"GET / HTTP/1.1\r\n")
            second.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nab")
            third.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 3000000\r\n\r\nab")
            assert client.read().status == 408
            assert second.read().status == 408
            assert third.read().status == 408
            assert all(c.is_ended() for c in (client, second, third))


def test_idle_connection_is_closed_after_keep_alive() -> None:
    with stage() as it:
        it.start(keep_alive_s=0.3)
        with it.connect() as client:
            assert client.ask().body == b"hello"
            assert client.is_ended()
        wait_until(lambda: it.cell(1, "connections") == 0, what="no connection")


def test_health_is_answered_while_a_thread_is_in_a_long_call() -> None:
    with stage() as it:
        host = it.start(threads=2)
        with it.connect() as slow, it.connect() as quick:
            slow.send(b"GET /held HTTP/1.1\r\nHost: t\r\n\r\n")
            wait_until(lambda: it.cell(1, "in_flight") == 1, what="the slow call")
            for _ in range(20):
                assert quick.ask().body == b"hello"
            host.release()
            assert slow.read().body == b"held"


@pytest.mark.parametrize("threads", [1, 3])
def test_stalled_clients_do_not_stop_the_others(threads: int) -> None:
    with stage() as it:
        it.start(threads=threads, header_timeout_s=600, body_timeout_s=600, write_timeout_s=600)
        stalled = [it.connect() for _ in range(999)]
        try:
            for number, client in enumerate(stalled):
                client.send(
                    (
                        b"GET / HTTP/1.1\r\nHost",
                        b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 9\r\n\r\nhalf",
                        b"GET /big?size=900000 HTTP/1.1\r\nHost: t\r\n\r\n",
                    )[number % 3]
                )
            with it.connect() as client:
                for _ in range(100):  # those that stall are given ten minutes
                    assert client.ask().body == b"hello"
            for number, client in enumerate(stalled[:30]):
                client.send((b": t\r\n\r\n", b"12345", b"")[number % 3])
                body = client.read().body
                assert body in (b"hello", b"half12345", b"x" * 900_000)
        finally:
            for client in stalled:
                client.sock.close()


def test_slow_reader_of_a_huge_answer_is_given_up_after_write_timeout() -> None:
    with stage() as it:
        it.start(write_timeout_s=0.5)
        with it.connect() as stuck, it.connect() as client:
            stuck.send(b"GET /big?size=50000000 HTTP/1.1\r\nHost: t\r\n\r\n")
            assert client.ask().body == b"hello"
            wait_until(lambda: it.cell(1, "disconnects") == 1, what="giving up")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("target", ["/slow?ms=1500", "/pause?size=9&ms=1500"])
def test_client_that_leaves_while_the_app_answers_is_counted_once(
    threads: int, target: str
) -> None:
    """The kernel takes a small answer to a client that has closed like any other."""
    with stage() as it:
        it.start(threads=threads)
        with it.connect() as gone:
            gone.send(f"GET {target} HTTP/1.1\r\nHost: t\r\n\r\n".encode())
        wait_until(lambda: it.cell(1, "disconnects") == 1, what="the client has left")
        with it.connect() as stays:
            for _ in range(3):
                assert stays.ask("/slow?ms=20").body == b"slow"
        wait_until(lambda: it.cell(1, "connections") == 0, what="the client has left, answered")
        assert it.cell(1, "disconnects") == 1


def test_access_log_is_json_whatever_the_client_sends(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with stage() as it:
        host = it.start(log=log, access_log=JSON_LINES)
        with it.connect() as client:
            client.ask('/echo?"\\', method="POST", body=b"1234", more='User-Agent: "x\\\xe9\r\n')
            client.send(b"\x00\r\n\r\n")
            client.rest()
        host.order("close")
        host.end()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["status"] for line in lines] == [200, 400]
    assert lines[0]["target"] == '/echo?"\\'
    first = {
        k: lines[0][k]
        for k in ("method", "bytes", "user_agent", "client", "pid", "worker", "generation")
    }
    assert first == {
        "method": "POST",
        "bytes": 4,
        "user_agent": '"x\\\xe9',
        "client": "127.0.0.1",
        "pid": 7,
        "worker": 1,
        "generation": 2,
    }
    assert "method" not in lines[1]


def test_client_that_does_not_read_a_huge_answer_does_not_hold_the_app_thread() -> None:
    with stage() as it:
        it.start(write_timeout_s=600)
        stuck = it.connect()
        stuck.send(b"GET /big?size=50000000 HTTP/1.1\r\nHost: t\r\n\r\n")
        with it.connect() as client:  # which does not wait ten minutes
            assert client.ask().body == b"hello"
        assert stuck.read().body == b"x" * 50_000_000
        assert stuck.ask().body == b"hello"


def test_answer_is_read_to_its_end_though_the_server_closes_and_the_client_still_sends() -> None:
    with stage() as it:
        it.start()
        for _ in range(20):
            with it.connect() as client:
                client.send(b"GET /short HTTP/1.1\r\nHost: t\r\n\r\n" * 50)
                assert client.rest().endswith(b"\r\n\r\nshort")


def test_listen_queue_tells_depth_and_limit() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=7) as listener:
        assert _engine.listen_queue(listener.fileno()) == (0, 7)
        waiting = [socket.create_connection(listener.getsockname()) for _ in range(3)]
        # The last step of a handshake is the kernel's own affair.
        wait_until(lambda: _engine.listen_queue(listener.fileno()) == (3, 7))
        for client in waiting:
            client.close()


def test_listen_queue_of_a_unix_socket_is_unknown_and_of_a_file_an_error(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        assert _engine.listen_queue(listener.fileno()) == (0, 0)
    with (tmp_path / "f").open("w") as file, pytest.raises(OSError, match="socket"):
        _engine.listen_queue(file.fileno())


def test_unix_socket_is_served_with_an_empty_remote_address(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    with stage(listener) as it:
        it.start()
        with it.connect() as client:
            body = os.urandom(3_000_000)
            more = "X-Forwarded-Proto: https\r\n"
            environ = json.loads(client.ask("/environ_of", more=more).body)
            assert environ["REMOTE_ADDR"] == ""
            assert environ["wsgi.url_scheme"] == "https"
            assert client.ask("/echo", method="POST", body=body).body == body


def test_slow_reader_of_a_generator_gets_all_of_it_and_close_is_called() -> None:
    with stage() as it:
        it.start(threads=2, write_timeout_s=60)
        with it.connect() as slow:
            slow.send(b"GET /blocks?count=200&size=100000 HTTP/1.1\r\nHost: t\r\n\r\n")
            wait_until(lambda: it.cell(1, "bytes_out") > 100_000, what="some of it")
            assert len(slow.read().body) == 20_000_000
            wait_until(lambda: it.connect().ask("/closed").body == b"1", what="close()")


def test_block_goes_out_while_the_app_makes_the_next_one() -> None:
    """PEP 3333: the server must not hold a block back until the app yields again."""
    with stage() as it:
        host = it.start()
        with it.connect() as client:
            client.send(b"GET /held_within?size=30000000 HTTP/1.1\r\nHost: t\r\n\r\n")
            received = 0
            while received < 30_000_000:
                received += len(client.sock.recv(1 << 20))
            host.release()


def test_settings_are_checked_by_name() -> None:
    told = {**SETTINGS, "keep_alive_s": -1.0}
    with pytest.raises(ValueError, match=r"keep_alive_s is -1.*use seconds"):
        _engine.Engine(len, listeners=[], settings=told, stats_fd=-1, slot=1, report_error=print)
    with pytest.raises(ValueError, match="settings lack threads"):
        _engine.Engine(len, listeners=[], settings={}, stats_fd=-1, slot=1, report_error=print)
    told = {**SETTINGS, "forwarded_allow_ips": ["10.0.0.0/40"]}
    with pytest.raises(ValueError, match=r"forwarded_allow_ips has '10.0.0.0/40'"):
        _engine.Engine(len, listeners=[], settings=told, stats_fd=-1, slot=1, report_error=print)
    with pytest.raises(ValueError, match="app must be callable"):
        _engine.Engine(1, listeners=[], settings=SETTINGS, stats_fd=-1, slot=1, report_error=print)  # type: ignore[arg-type]


def test_stats_table_of_another_version_is_refused() -> None:
    fd = os.memfd_create("stats")
    try:
        os.ftruncate(fd, 40_000)
        with pytest.raises(OSError, match="magic"):
            _engine.Engine(
                len, listeners=[], settings=SETTINGS, stats_fd=fd, slot=1, report_error=print
            )
        with pytest.raises(OSError, match=r"slot is 9, but .* has slots 1 to 3"):
            _engine.Engine(
                len, listeners=[], settings=SETTINGS, stats_fd=fd, slot=9, report_error=print
            )
    finally:
        os.close(fd)


def test_access_log_that_nobody_reads_stops_nobody_and_loses_nothing(tmp_path: Path) -> None:
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with stage() as it:
            host = it.start(log=fifo, access_log=JSON_LINES, request_timeout_s=5.0)
            with it.connect() as client:
                for _ in range(1000):
                    assert client.ask(more=f"User-Agent: {'u' * 300}\r\n").status == 200
            host.order("close")
            os.set_blocking(reader, True)
            pieces = []
            while piece := os.read(reader, 1 << 16):
                pieces.append(piece)
            host.end()
        assert len(b"".join(pieces).splitlines()) == 1000
    finally:
        os.close(reader)


def test_draining_worker_tells_when_its_listeners_are_not_needed() -> None:
    with stage() as it:
        host = it.start()
        with it.connect() as client:
            client.send(b"GET /held HTTP/1.1\r\nHost: t\r\n\r\n")
            wait_until(lambda: it.cell(1, "in_flight") == 1, what="the call")
            host.order("handover")
            host.expect("shut")  # though the call goes on
            host.release()
            assert client.read().body == b"held"


def test_child_that_the_app_forks_neither_answers_nor_serves() -> None:
    with stage() as it:
        it.start()
        with it.connect() as client:
            for _ in range(5):
                assert client.ask("/forks").body == b"7"
                assert client.ask("/child_returns").body == b"parent"
                assert client.ask().body == b"hello"


def test_child_that_stays_does_not_keep_the_connection_open() -> None:
    with stage() as it:
        it.start()
        with it.connect() as client:
            client.send(b"GET /child_stays HTTP/1.0\r\n\r\n")
            assert client.read().body == b"parent"  # the child stays as long as the server


def test_at_the_connection_limit_the_longest_idle_one_gives_way() -> None:
    with stage() as it:
        it.start(max_connections=5, header_timeout_s=60)
        kept = [it.connect() for _ in range(5)]
        for client in kept:
            assert client.ask().body == b"hello"
        for client in kept[2:]:
            client.send(b"GET / HTTP/1.1\r\n")
        with it.connect() as first, it.connect() as second:
            assert first.ask().body == b"hello"
            assert kept[0].is_ended()
            assert second.ask().body == b"hello"
            assert kept[1].is_ended()
            for client in kept[2:]:
                client.send(b"Host: t\r\n\r\n")
                assert client.read().body == b"hello"


@pytest.mark.parametrize("sent", [b"", b"GET / HT"])
def test_at_the_connection_limit_clients_that_ask_for_nothing_give_way(sent: bytes) -> None:
    """They would shut out all others for the time that a head may take, again and again."""
    with stage() as it, ExitStack() as stack:
        it.start(max_connections=5, header_timeout_s=60)
        silent = [stack.enter_context(it.connect()) for _ in range(8)]
        for client in silent:
            client.send(sent)
        with it.connect() as client:
            assert client.ask().body == b"hello"
        assert silent[0].is_ended()


def test_at_the_connection_limit_nobody_is_closed_for_nobody() -> None:
    """Also while all threads are in calls, and after each of them."""
    with stage() as it, ExitStack() as stack:
        it.start(max_connections=5, threads=2)
        clients = [stack.enter_context(it.connect()) for _ in range(5)]
        for _ in range(20):
            for client in clients:
                client.send(b"GET /slow?ms=3 HTTP/1.1\r\nHost: t\r\n\r\n")
            assert [client.read().body for client in clients] == [b"slow"] * 5
        for client in clients:
            assert client.ask().body == b"hello"
        assert it.cell(1, "connections") == 5


def test_response_is_sent_while_another_thread_of_the_app_waits_for_the_body() -> None:
    """The wait is nobody else's: neither that response's nor, by the GIL, that of any other thread."""
    with stage() as it:
        it.start(stream_request_bodies=True, threads=3, body_timeout_s=60)
        with it.connect() as uploading, it.connect() as client:
            uploading.send(
                b"POST /answered_while_read HTTP/1.1\r\nHost: t\r\nContent-Length: 2000000\r\n\r\nx"
            )
            assert uploading.read().body == b"early"
            assert client.ask().body == b"hello"
