"""What PEP 3333 and gunicorn let an app answer, on the wire."""

from __future__ import annotations

import gzip
import http.client
import socket
import textwrap
from pathlib import Path

import pytest

from tests.process.harness import Prefork, write_app
from tests.support.wait import UNHURRIED_S


def ask(server: Prefork, path: str = "/") -> tuple[int, list[tuple[str, str]], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=UNHURRIED_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.getheaders(), response.read()
    finally:
        connection.close()


def serve(folder: Path, text: str) -> Prefork:
    write_app(folder, textwrap.dedent(text))
    return Prefork("-w", "1", cwd=folder)


def test_a_file_after_write_stays_inside_its_own_answer(tmp_path: Path):
    """The file's bytes look like the end of a chunked body and a second answer."""
    evil = b"5\r\nEVIL!\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"
    (tmp_path / "evil").write_bytes(evil)
    text = """
        def app(environ, start_response):
            write = start_response("200 OK", [])
            write(b"first ")
            return environ["wsgi.file_wrapper"](open("evil", "rb"))
    """
    with serve(tmp_path, text) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=UNHURRIED_S)
        for _ in range(2):  # on one connection: the second answer must not be the file's
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"first " + evil
        connection.close()


def test_an_empty_file_after_write_ends_the_answer(tmp_path: Path):
    (tmp_path / "empty").write_bytes(b"")
    text = """
        def app(environ, start_response):
            write = start_response("200 OK", [])
            write(b"first")
            return environ["wsgi.file_wrapper"](open("empty", "rb"))
    """
    with serve(tmp_path, text) as server:
        assert ask(server)[2] == b"first"


SLOW_CLOSE = """
    import time
    class Body:
        def __iter__(self): return iter([b"all ", b"of it"])
        def close(self):
            {close}
    def app(environ, start_response):
        start_response("200 OK", [])
        return Body()
"""


def test_an_answer_is_complete_before_close_runs(tmp_path: Path):
    release = tmp_path / "release"
    close = f"while not __import__('os').path.exists({str(release)!r}): time.sleep(0.01)"
    with serve(tmp_path, SLOW_CLOSE.format(close=close)) as server:
        assert ask(server)[2] == b"all of it"  # and close() still waits
        release.touch()


def test_a_close_that_raises_costs_no_complete_answer(tmp_path: Path):
    with serve(tmp_path, SLOW_CLOSE.format(close="raise OSError('in close')")) as server:
        assert ask(server)[2] == b"all of it"
        server.wait_log("OSError: in close")


HOP_BY_HOP = """
    def app(environ, start_response):
        start_response("200 OK", [("Connection", "keep-alive"), ("Transfer-Encoding", "chunked"),
            ("Keep-Alive", "timeout=5"), ("X-Kept", "1"), ("Content-Length", "2")])
        return [b"ok"]
"""


def test_hop_by_hop_headers_of_the_app_are_left_out_with_one_warning_each(tmp_path: Path):
    with serve(tmp_path, HOP_BY_HOP) as server:
        for _ in range(3):
            status, fields, body = ask(server)
            names = {name.lower() for name, _ in fields}
            assert (status, body) == (200, b"ok")
            assert "x-kept" in names
            assert not names & {"connection", "transfer-encoding", "keep-alive"}
        for name in ("connection", "transfer-encoding", "keep-alive"):
            server.wait_log(f"left out.*name={name}\n")
            assert server.log().count(f"name={name}\n") == 1


@pytest.mark.parametrize(
    "call",
    [
        'start_response("200 OK", [("Content-Length", "2"), ("content-length", "2")])',
        'start_response("200 OK", [["Content-Length", "2"]])',
        'start_response("200 OK", (("Content-Length", "2"),))',
        'start_response("200 OK", [], exc_info=None)',
        'start_response(status="200 OK", headers=[])',
    ],
)
def test_what_gunicorn_takes_of_start_response_is_taken(tmp_path: Path, call: str):
    text = f"def app(environ, start_response):\n    {call}\n    return [b'ok']\n"
    with serve(tmp_path, text) as server:
        status, fields, body = ask(server)
        assert (status, body) == (200, b"ok")
        assert [value for name, value in fields if name.lower() == "content-length"] == ["2"]


def test_different_content_lengths_are_an_error(tmp_path: Path):
    text = """
        def app(environ, start_response):
            start_response("200 OK", [("Content-Length", "2"), ("Content-Length", "3")])
            return [b"ok"]
    """
    with serve(tmp_path, text) as server:
        assert ask(server)[0] == 500


# Each returns a file-like object whose read() gives PLAIN.
PLAIN = b"plain text of the document\n" * 2000
FILES = {
    "decrypting, with .file": """
        class Decrypting:
            def __init__(self, file): self.file = file
            def read(self, n=-1): return bytes(b ^ 0x5A for b in self.file.read(n))
            def fileno(self): return self.file.fileno()
            def tell(self): return self.file.tell()
        def make(): return Decrypting(open("doc.enc", "rb"))
    """,
    "subclass of BufferedReader": """
        import io
        class Decrypting(io.BufferedReader):
            def read(self, n=-1): return bytes(b ^ 0x5A for b in super().read(n))
        def make(): return Decrypting(io.FileIO("doc.enc"))
    """,
    "buffer over a decrypting raw file": """
        import io
        class Raw(io.FileIO):
            def readinto(self, buffer):
                n = super().readinto(buffer)
                buffer[:n] = bytes(b ^ 0x5A for b in buffer[:n])
                return n
        def make(): return io.BufferedReader(Raw("doc.enc"))
    """,
    "read replaced on the instance": """
        import tempfile
        def make():
            file = tempfile.NamedTemporaryFile()
            file.write(open("doc.enc", "rb").read())
            file.seek(0)
            inner = file.read
            file.read = lambda n=-1: bytes(b ^ 0x5A for b in inner(n))
            return file
    """,
    "decompressing": """
        import gzip
        def make(): return gzip.open("doc.gz", "rb")
    """,
    "plain": 'def make(): return open("doc", "rb")',
    "unbuffered": 'def make(): return open("doc", "rb", buffering=0)',
    "position moved by reading": """
        def make():
            file = open("more", "rb")
            file.read(5)
            return file
    """,
    "written and not yet in the file": """
        def make():
            file = open("made", "w+b")
            file.write(open("doc", "rb").read())
            file.seek(0)
            return file
    """,
    "temporary file": """
        import tempfile
        def make():
            file = tempfile.NamedTemporaryFile()
            file.write(open("doc", "rb").read())
            file.seek(0)
            return file
    """,
    "spooled file": """
        import tempfile
        def make():
            file = tempfile.SpooledTemporaryFile()
            file.write(open("doc", "rb").read())
            file.seek(0)
            return file
    """,
    "in memory": """
        import io
        def make(): return io.BytesIO(open("doc", "rb").read())
    """,
}


@pytest.mark.parametrize("name", FILES)
def test_a_wrapped_file_sends_what_its_own_read_gives(tmp_path: Path, name: str):
    (tmp_path / "doc").write_bytes(PLAIN)
    (tmp_path / "more").write_bytes(b"first" + PLAIN)
    (tmp_path / "doc.enc").write_bytes(bytes(b ^ 0x5A for b in PLAIN))
    (tmp_path / "doc.gz").write_bytes(gzip.compress(PLAIN))
    text = textwrap.dedent(FILES[name]) + textwrap.dedent("""
        def app(environ, start_response):
            start_response("200 OK", [])
            return environ["wsgi.file_wrapper"](make(), 4096)
    """)
    with serve(tmp_path, text) as server:
        assert ask(server)[2] == PLAIN


def test_a_file_that_is_made_as_it_is_read_is_sent_whole(tmp_path: Path):
    text = """
        def app(environ, start_response):
            start_response("200 OK", [])
            return environ["wsgi.file_wrapper"](open("/proc/version", "rb"))
    """
    with serve(tmp_path, text) as server:
        assert ask(server)[2] == Path("/proc/version").read_bytes()


def test_a_kept_connection_survives_each_kind_of_file(tmp_path: Path):
    (tmp_path / "doc").write_bytes(PLAIN)
    text = """
        def app(environ, start_response):
            start_response("200 OK", [])
            return environ["wsgi.file_wrapper"](open("doc", "rb"))
    """
    with (
        serve(tmp_path, text) as server,
        socket.create_connection(("127.0.0.1", server.port)) as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n" * 2)
        with client.makefile("rb") as answers:
            for _ in range(2):
                length = 0
                while line := answers.readline().strip():
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                assert answers.read(length) == PLAIN


@pytest.mark.parametrize(
    "block", ["", ", 7", ", blksize=7", ", blksize=None", ", -1", ", blksize=100_000"]
)
def test_a_wrapper_takes_blocks_as_gunicorns_does(tmp_path: Path, block: str):
    text = f"""
        import io
        def app(environ, start_response):
            start_response("200 OK", [])
            wrapper = environ["wsgi.file_wrapper"](io.BytesIO(b"x" * 1000){block})
            assert wrapper.blksize in (7, -1, 65536, 100_000)
            return wrapper
    """
    with serve(tmp_path, text) as server:
        assert ask(server)[2] == b"x" * 1000


def test_input_takes_sizes_by_keyword(tmp_path: Path):
    text = """
        def app(environ, start_response):
            body = environ["wsgi.input"]
            parts = [body.read(size=2), body.readline(size=3), *body.readlines(hint=1), body.read(size=None)]
            start_response("200 OK", [])
            return [b"|".join(parts)]
    """
    with serve(tmp_path, text) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=UNHURRIED_S)
        connection.request("POST", "/", b"abcde\nfg\nhi")
        assert connection.getresponse().read() == b"ab|cde|\n|fg\nhi"
        connection.close()


@pytest.mark.parametrize("size", [3, 10, 100_000])
def test_an_iterable_that_never_ends_ends_with_its_content_length(tmp_path: Path, size: int):
    """Of whatever block sizes; it is closed, and its thread serves the next request."""
    text = f"""
        closed = 0

        class Endless:
            def __iter__(self):
                return self
            def __next__(self):
                return b"x" * {size}
            def close(self):
                global closed
                closed += 1

        def app(environ, start_response):
            start_response("200 OK", [("Content-Length", "100"), ("X-Closed", str(closed))])
            return Endless()
    """
    with serve(tmp_path, text) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=UNHURRIED_S)
        for number in range(3):
            connection.request("GET", "/")
            response = connection.getresponse()
            assert (response.read(), response.headers["X-Closed"]) == (b"x" * 100, str(number))
        connection.close()


def test_an_iterable_of_the_promised_length_is_used_up(tmp_path: Path):
    """What a generator does after its last block is done, though the client has all of the answer."""
    text = """
        ended = 0

        def blocks():
            global ended
            yield b"x" * 60
            yield b"x" * 40
            ended += 1

        def app(environ, start_response):
            start_response("200 OK", [("Content-Length", "100"), ("X-Ended", str(ended))])
            return blocks()
    """
    with serve(tmp_path, text) as server:
        for number in range(3):
            _, headers, body = ask(server)
            assert (body, dict(headers)["X-Ended"]) == (b"x" * 100, str(number))
