"""Everything at once: bad and good clients, bodies, pipelines, workers that come and go; nothing may be lost."""

from __future__ import annotations

import hashlib
import random
import threading
from collections import Counter
from collections.abc import Callable

import pytest

from tests.process.engines import Client, Host, Stage, stage
from tests.support.wait import wait_until

GET = b"GET %s HTTP/1.1\r\nHost: t\r\n\r\n"


class Crowd:
    """Clients that do something else each time, and say when an answer is wrong."""

    def __init__(self, it: Stage, count: int, seed: int) -> None:
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._stage = it
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(random.Random(seed + n),))
            for n in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, rng: random.Random) -> None:
        acts: list[Callable[[Client, random.Random], None]] = [
            self.hello, self.hello, self.hello, self.pipeline, self.echo, self.upload,
            self.slow, self.chunks, self.trickle,
        ]  # fmt: skip
        client = self._stage.connect()
        while not self._is_over.is_set():
            if rng.random() < 0.05:
                self.give_up(client, rng)
                client = self._stage.connect()
            act = rng.choice(acts)
            try:  # what takes longer than the client's timeout is wrong, too
                act(client, rng)
                self.done[act.__name__] += 1
                assert not client.is_closing, "the server said close"
            except (OSError, EOFError, AssertionError) as error:
                self.wrong.append(f"{act.__name__}: {error!r}")
                client.sock.close()
                client = self._stage.connect()
        client.sock.close()

    def hello(self, client: Client, _rng: random.Random) -> None:
        assert client.ask().body == b"hello"

    def pipeline(self, client: Client, rng: random.Random) -> None:
        sizes = [rng.randrange(1, 3000) for _ in range(rng.randrange(2, 9))]
        client.send(b"".join(GET % (b"/big?size=%d" % size) for size in sizes))
        assert [len(client.read().body) for _ in sizes] == sizes

    def echo(self, client: Client, rng: random.Random) -> None:
        body = rng.randbytes(rng.randrange(60_000))
        assert client.ask("/echo", method="POST", body=body).body == body

    def upload(self, client: Client, rng: random.Random) -> None:
        body = rng.randbytes(rng.randrange(70_000, 400_000))
        expected = f"{len(body)} {hashlib.sha256(body).hexdigest()}".encode()
        assert client.ask("/digest", method="PUT", body=body).body == expected

    def slow(self, client: Client, rng: random.Random) -> None:
        assert client.ask(f"/slow?ms={rng.randrange(1, 25)}").body == b"slow"

    def chunks(self, client: Client, rng: random.Random) -> None:
        count = rng.randrange(1, 30)
        assert len(client.ask(f"/blocks?count={count}&size=700").body) == 700 * count

    def trickle(self, client: Client, rng: random.Random) -> None:
        wire = b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 6\r\n\r\nabcdef"
        cut = rng.randrange(1, len(wire))
        client.send(wire[:cut])
        self._is_over.wait(rng.random() / 50)
        client.send(wire[cut:])
        assert client.read().body == b"abcdef"

    def give_up(self, client: Client, rng: random.Random) -> None:
        wire = rng.choice([b"GET / HT", GET % b"/slow?ms=5", GET % b"/big?size=300000"])
        client.send(wire)
        client.sock.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_nothing_is_lost_while_workers_come_and_go(threads: int) -> None:
    with stage() as it:
        hosts: list[Host] = [it.start(slot=slot, threads=threads) for slot in (1, 2)]
        crowd = Crowd(it, 24, seed=threads)
        for round_number in range(6):
            it.set_cell(3 + round_number % 2, "worker_state", 2)
            fresh = it.start(slot=3 + round_number % 2, threads=threads)
            before = sum(crowd.done.values())
            wait_until(lambda b=before: sum(crowd.done.values()) > b + 300, what="load")
            leaving = hosts.pop(0)
            leaving.order("handover")
            leaving.end()
            hosts.append(fresh)
        crowd.end()
        assert not crowd.wrong
        for host in hosts:
            wait_until(host.is_idle, what="the end of all connections")
            assert it.cell(host.slot, "in_flight") == 0
            assert it.cell(host.slot, "connections") == 0
        for host in hosts:
            host.order("close")
        for host in hosts:
            host.end()
            assert "Traceback" not in host.errors.replace("ConnectionResetError", "")


@pytest.mark.parametrize(("workers", "threads"), [(1, 1), (1, 2), (2, 2)])
def test_new_connections_are_served_while_the_old_ones_never_pause(
    workers: int, threads: int
) -> None:
    with stage() as it:
        for slot in range(1, workers + 1):
            it.start(slot=slot, threads=threads)
        is_over = threading.Event()
        answers = [0] * (8 * workers * threads)

        def never_pause(number: int) -> None:
            with it.connect() as client:
                while not is_over.is_set():
                    assert client.ask("/slow?ms=5").body == b"slow"
                    answers[number] += 1

        crowd = [threading.Thread(target=never_pause, args=(n,)) for n in range(len(answers))]
        for thread in crowd:
            thread.start()
        wait_until(lambda: min(answers) > 3, what="a full house")
        passed_by = []
        for _ in range(10):
            before = sum(answers)
            with it.connect() as client:
                assert client.ask().body == b"hello"
            passed_by.append(sum(answers) - before)
        is_over.set()
        for thread in crowd:
            thread.join()
        # Of the old connections, while a new one waits: in answers, as seconds are longer on a busy machine.
        assert max(passed_by) < 100 * len(answers)


def test_pipelining_clients_do_not_shut_others_out() -> None:
    with stage() as it:
        it.start()
        is_over = threading.Event()

        def pipeline() -> None:
            with it.connect() as client:
                client.send(GET % b"/" * 200)
                while not is_over.is_set():
                    assert client.read().body == b"hello"
                    client.send(GET % b"/")

        crowd = [threading.Thread(target=pipeline) for _ in range(3)]
        for thread in crowd:
            thread.start()
        wait_until(lambda: it.requests(1, "GET", "200") > 500, what="pipelines")
        before = it.requests(1, "GET", "200")
        with it.connect() as client:
            assert client.ask().body == b"hello"
        assert it.requests(1, "GET", "200") - before < 50_000
        is_over.set()
        for thread in crowd:
            thread.join()
