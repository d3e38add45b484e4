"""`wsgi.file_wrapper`: the client gets the bytes that the object's own `read` gives, framed once, and nobody waits for them."""

import os
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.process.engines import Answer, Client
from tests.process.harness import Prefork, write_app
from tests.support.wait import wait_until

APP = """
    import bz2, gzip, io, os, tempfile, threading, time

    FOLDER = os.path.dirname(os.path.abspath(__file__))
    PLAIN = f"{FOLDER}/plain"
    CLOSE = threading.Event()

    class Decrypting:
        "As a storage's file object: the real file is `.file`, and read() decrypts."

        def __init__(self, file):
            self.file = file

        def read(self, size=-1):
            return bytes(byte ^ 0x5A for byte in self.file.read(size))

        def __getattr__(self, name):
            return getattr(self.file, name)

    class Shouting(io.FileIO):
        def read(self, size=-1):
            return super().read(size).upper()

    class ShoutingRaw(io.FileIO):
        def readinto(self, buffer):
            count = super().readinto(buffer)
            buffer[:count] = bytes(buffer[:count]).upper()
            return count

    def with_own_read():
        file = open(PLAIN, "rb")
        file.read = lambda size, read=file.read: read(size).upper()
        return file

    def raw_with_own_readinto():
        file = open(PLAIN, "rb")
        def readinto(buffer, readinto=file.raw.readinto):
            count = readinto(buffer)
            buffer[:count] = bytes(buffer[:count]).upper()
            return count
        file.raw.readinto = readinto
        return file

    def compressed(module, name):
        with module.open(f"{FOLDER}/{name}", "wb") as file:
            file.write(open(PLAIN, "rb").read())
        return module.open(f"{FOLDER}/{name}", "rb")

    def advanced(file, size):
        file.read(size)
        return file

    def sought(file, position):
        file.seek(position)
        return file

    def random_access(flushes):
        file = tempfile.TemporaryFile()
        file.write(b"written and in the buffer, perhaps")
        file.seek(8)
        if flushes:
            file.flush()
        return file

    def dirty():
        file = open(f"{FOLDER}/dirty", "w+b")
        file.write(b"x" * 100)
        file.flush()
        file.seek(0)
        file.write(b"dirty")
        return file

    def named():
        file = tempfile.NamedTemporaryFile()
        file.write(b"named")
        file.seek(0)
        return file

    FILES = {
        "plain": lambda: open(PLAIN, "rb"),
        "unbuffered": lambda: open(PLAIN, "rb", buffering=0),
        "read-ahead": lambda: advanced(open(PLAIN, "rb"), 7),
        "sniffed": lambda: sought(advanced(open(PLAIN, "rb"), 7), 0),
        "offset": lambda: sought(open(PLAIN, "rb"), 1000),
        "unbuffered-offset": lambda: sought(open(PLAIN, "rb", buffering=0), 1000),
        "beyond": lambda: sought(open(PLAIN, "rb"), 10_000_000),
        "random-access": lambda: random_access(False),
        "random-access-flushed": lambda: random_access(True),
        "dirty": dirty,
        "named": named,
        "decrypting": lambda: Decrypting(open(PLAIN, "rb")),
        "subclass": lambda: Shouting(PLAIN),
        "raw-subclass": lambda: io.BufferedReader(ShoutingRaw(PLAIN)),
        "own-read": with_own_read,
        "raw-own-readinto": raw_with_own_readinto,
        "gzip": lambda: compressed(gzip, "plain.gz"),
        "bz2": lambda: compressed(bz2, "plain.bz2"),
        "empty": lambda: open("/dev/null", "rb"),
        "proc": lambda: open("/proc/self/cmdline", "rb"),
        "sys": lambda: open("/sys/kernel/mm/transparent_hugepage/enabled", "rb"),
        "memory": lambda: io.BytesIO(b"memory"),
    }

    def pipe():
        reader, writer = os.pipe()
        os.write(writer, b"through a pipe")
        os.close(writer)
        return open(reader, "rb")

    FILES["pipe"] = pipe

    class SlowClose:
        "An iterable, or a file's close, that takes its time."

        def __init__(self, blocks=()):
            self.blocks = iter(blocks)

        def __iter__(self):
            return self.blocks

        def close(self):
            CLOSE.wait(20)

    class BadClose(SlowClose):
        def close(self):
            raise RuntimeError("close failed")

    def app(environ, start_response):
        wrap = environ["wsgi.file_wrapper"]
        name, query = environ["PATH_INFO"].strip("/"), environ["QUERY_STRING"]
        kind, _, rest = name.partition("/")
        fields = [("Content-Type", "application/octet-stream")]
        if kind == "file":
            start_response("200 OK", fields)
            return wrap(FILES[rest](), 4096)
        if kind == "read":
            start_response("200 OK", fields)
            return list(iter(lambda file=FILES[rest](): file.read(4096), b""))
        if kind == "split":
            length = [("Content-Length", query)] if query else []
            start_response("200 OK", fields + length)(b"written ")
            return wrap(open(f"{FOLDER}/evil", "rb"), 4096)
        if kind == "changing":
            start_response("200 OK", fields)
            return wrap(open(f"{FOLDER}/changing", "rb"), 4096)
        if kind == "sparse":
            start_response("200 OK", fields)
            return wrap(open(f"{FOLDER}/sparse", "rb"))
        if kind == "list":
            start_response("200 OK", fields)
            return [bytes(int(query))]
        if kind == "slow-close":
            start_response("200 OK", fields)
            return SlowClose([b"all", b" of it"])
        if kind == "bad-close":
            start_response("200 OK", fields)
            return BadClose([b"all", b" of it"])
        if kind == "fails-slowly":
            start_response("200 OK", fields)
            return SlowClose(iter(lambda: 1 / 0, None))
        if kind == "release":
            CLOSE.set()
        start_response("200 OK", fields)
        return [b"hello"]
"""
PLAIN = b"plain text of the document\n" * 20_000
EVIL = b"5\r\nEVIL!\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
GIB = 1 << 30


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefork]:
    folder = tmp_path_factory.mktemp("files")
    write_app(folder, APP)
    (folder / "plain").write_bytes(PLAIN)
    (folder / "evil").write_bytes(EVIL)
    with Prefork("-w", "1", "--threads", "2", cwd=folder) as server:
        yield server


def connect(server: Prefork, timeout_s: float = 20) -> Client:
    return Client(socket.create_connection(("127.0.0.1", server.port), timeout_s))


def ask(server: Prefork, target: str) -> Answer:
    with connect(server) as client:
        answer = client.ask(target)
        assert client.ask("/").body == b"hello", "the connection goes on"
        return answer


@pytest.mark.parametrize(
    "name",
    [
        "plain", "unbuffered", "read-ahead", "sniffed", "offset", "unbuffered-offset", "beyond", "random-access",
        "random-access-flushed", "dirty", "named", "decrypting", "subclass", "raw-subclass",
        "own-read", "raw-own-readinto", "gzip", "bz2", "empty", "proc", "sys", "pipe", "memory",
    ],
)  # fmt: skip
def test_client_gets_what_read_gives(name: str, served: Prefork) -> None:
    expected = ask(served, f"/read/{name}").body
    assert ask(served, f"/file/{name}").body == expected


@pytest.mark.parametrize("name", ["plain", "unbuffered", "sniffed", "offset", "random-access"])
def test_plain_file_has_a_length(name: str, served: Prefork) -> None:
    answer = ask(served, f"/file/{name}")
    assert answer.field("Content-Length") == str(len(answer.body))


def test_file_after_write_cannot_end_the_response(served: Prefork) -> None:
    assert ask(served, "/split").body == b"written " + EVIL


@pytest.mark.parametrize("length", [8, 12, 8 + len(EVIL)])
def test_file_after_write_is_cut_to_the_content_length(length: int, served: Prefork) -> None:
    assert ask(served, f"/split?{length}").body == (b"written " + EVIL)[:length]


def test_file_after_write_on_http_1_0_ends_with_the_connection(served: Prefork) -> None:
    with connect(served) as client:
        client.send(b"GET /split HTTP/1.0\r\n\r\n")
        assert client.read().body == b"written " + EVIL


def test_file_that_grows_while_it_is_sent_is_sent_as_it_was(served: Prefork) -> None:
    path = served.cwd / "changing"
    path.write_bytes(b"a" * 30_000_000)
    with connect(served) as client:
        client.send(b"GET /changing HTTP/1.1\r\nHost: a\r\n\r\n")
        head = client.until_body()
        with path.open("ab") as file:
            file.write(b"b" * 1000)
        assert b"Content-Length: 30000000\r\n" in head
        assert client.exactly(30_000_000) == b"a" * 30_000_000
        assert client.ask("/").body == b"hello"


def test_file_that_shrinks_while_it_is_sent_ends_the_connection(served: Prefork) -> None:
    path = served.cwd / "changing"
    path.write_bytes(b"a" * 30_000_000)
    with connect(served) as client:
        client.send(b"GET /changing HTTP/1.1\r\nHost: a\r\n\r\n")
        client.until_body()
        os.truncate(path, 1000)
        assert len(client.rest()) < 30_000_000
    assert ask(served, "/").status == 200


@pytest.mark.parametrize(
    ("target", "body"),
    [("/slow-close", b"all of it"), ("/fails-slowly", b"Internal Server Error\n")],
)
def test_close_of_the_body_delays_nobody(folder: Path, target: str, body: bytes) -> None:
    write_app(folder, APP)
    with Prefork("-w", "1", "--threads", "2", cwd=folder) as server, connect(server) as client:
        assert client.ask(target).body == body
        assert ask(server, "/release").body == b"hello"
        assert client.ask("/").body == b"hello"


def test_close_that_fails_takes_nothing_from_a_complete_response(served: Prefork) -> None:
    assert ask(served, "/bad-close").body == b"all of it"
    served.wait_log("close failed")


def read_all(client: Client, count: int) -> None:
    """Take `count` bytes as fast as they come."""
    buffer = bytearray(1 << 20)
    while count > 0:
        got = client.sock.recv_into(buffer)
        assert got, f"{count} bytes are missing"
        count -= got


def bytes_received(client: Client) -> int:
    """Return how much has come on a connection, whoever reads it (`tcpi_bytes_received` of linux/tcp.h)."""
    info = client.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(struct.unpack_from("<Q", info, 128)[0])


READ_ALL = """
import socket, sys
sock, left = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
buffer = bytearray(1 << 20)
while left > 0:
    got = sock.recv_into(buffer)
    assert got, f"{left} bytes are missing"
    left -= got
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_fast_reader_of_a_huge_file_makes_nobody_wait(folder: Path, threads: int) -> None:
    """Sent in one go, 3 GB to a reader on the same machine made the others wait for 9 of 10 seconds."""
    size = 32 * GIB
    write_app(folder, APP)
    (folder / "sparse").touch()
    os.truncate(folder / "sparse", size)
    with (
        Prefork("-w", "1", "--threads", str(threads), cwd=folder) as server,
        connect(server) as reader,
        connect(server) as client,
    ):
        reader.send(b"GET /sparse HTTP/1.1\r\nHost: a\r\n\r\n")
        head = reader.until_body()
        assert f"Content-Length: {size}\r\n".encode() in head
        reader.sock.settimeout(None)
        descriptor = reader.sock.fileno()
        program = [sys.executable, "-c", READ_ALL, str(descriptor), str(size - reader.held())]
        with subprocess.Popen(program, pass_fds=[descriptor]) as reading:
            wait_until(lambda: bytes_received(reader) > GIB, what="the reader has not begun")
            # In bytes, not in seconds: three processes that never rest share the machine's cores with others, so how
            # long a wait is says little. A file that was sent in one go would be through first.
            for _ in range(100):
                assert client.ask("/").body == b"hello"
            is_through = reading.poll() is not None
            reading.kill()
        assert not is_through, f"{size} bytes were sent while 100 requests were answered"


def test_two_fast_readers_share_and_requests_come_between(folder: Path) -> None:
    write_app(folder, APP)
    # Room for all four answers, which wait for their readers: the app's thread has nothing to do with them any more.
    options = ("-w", "1", "--spool-size=2Gi", "--write-timeout=600")
    with Prefork(*options, cwd=folder) as server, ExitStack() as connections:
        client, *readers = [connections.enter_context(connect(server, 60)) for _ in range(5)]
        for reader in readers:
            reader.send(b"GET /list?200000000 HTTP/1.1\r\nHost: a\r\n\r\n")
        for reader in readers:
            reader.until_body()
        assert client.ask("/").body == b"hello"
        threads = [threading.Thread(target=read_body, args=(reader,)) for reader in readers]
        for thread in threads:
            thread.start()
        asked = 0
        while any(thread.is_alive() for thread in threads):
            assert client.ask("/").body == b"hello"
            asked += 1
        assert asked > 20


def read_body(reader: Client) -> None:
    read_all(reader, 200_000_000 - reader.held())
