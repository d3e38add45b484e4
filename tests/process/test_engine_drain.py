"""Leaving without a failed request: handover between workers, closing, timeouts, recycling."""

from __future__ import annotations

import threading
import time
from collections import Counter

import pytest

from tests.process.engines import Stage, stage
from tests.support.wait import wait_until

# Its call lasts until `Host.release`.
HELD = b"GET /held HTTP/1.1\r\nHost: t\r\n\r\n"


class Load:
    """Closed-loop clients on keep-alive connections; counts answers and whatever is wrong."""

    def __init__(self, it: Stage, connections: int, target: str = "/", pause_s: float = 0) -> None:
        self.answers = 0
        self.closes = 0
        self.errors: Counter[str] = Counter()
        self.max_s = 0.0
        self._stage = it
        self._target = target
        self._pause_s = pause_s
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._client) for _ in range(connections)]
        for thread in self._threads:
            thread.start()

    def _client(self) -> None:
        client = self._stage.connect()
        while not self._is_over.is_set():
            began = time.monotonic()
            try:
                answer = client.ask(self._target)
            except OSError as error:
                self.errors[repr(error)] += 1
                client = self._stage.connect()
                continue
            except EOFError as error:
                self.errors[str(error)] += 1
                client.sock.close()
                client = self._stage.connect()
                continue
            self.max_s = max(self.max_s, time.monotonic() - began)
            self.answers += 1
            if answer.status != 200:
                self.errors[repr(answer)] += 1
            if answer.field("Connection") == "close":
                self.closes += 1
                client.sock.close()
                client = self._stage.connect()
            if self._pause_s:
                self._is_over.wait(self._pause_s)
        client.sock.close()

    def end(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


def test_idle_connections_are_handed_over_unseen() -> None:
    with stage() as it:
        old = it.start(slot=1)
        clients = [it.connect() for _ in range(50)]
        for client in clients:
            assert client.ask().body == b"hello"
        new = it.start(slot=2)
        old.order("handover")
        old.end()
        assert it.cell(1, "handed_over") == 50
        for client in clients:
            answer = client.ask()
            assert (answer.body, answer.field("Connection")) == (b"hello", None)
            client.sock.close()
        wait_until(lambda: it.requests(2, "GET", "200") == 50, what="the counts")
        assert new.process.poll() is None


def test_half_a_head_is_handed_over_with_its_connection() -> None:
    with stage() as it:
        old = it.start(slot=1, header_timeout_s=120)
        with it.connect() as client:
            client.send(b"GET / HTTP/1.1\r\nHo")
            wait_until(lambda: it.cell(1, "connections") == 1, what="the connection")
            it.start(slot=2, header_timeout_s=120)
            old.order("handover")
            old.end()
            client.send(b"st: t\r\n\r\n")
            assert client.read().body == b"hello"


def test_running_call_is_answered_and_then_handed_over() -> None:
    with stage() as it:
        old = it.start(slot=1)
        with it.connect() as client:
            client.send(HELD)
            wait_until(lambda: it.cell(1, "in_flight") == 1, what="the call")
            it.start(slot=2)
            old.order("handover")
            old.release()
            answer = client.read()
            assert (answer.body, answer.field("Connection")) == (b"held", None)
            old.end()
            assert client.ask().body == b"hello"
            wait_until(lambda: it.requests(2, "GET", "200") == 1, what="the count")


def test_client_whose_next_request_is_there_before_the_call_is_over_is_handed_over() -> None:
    """The other thread has seen that there is something to read: the worker served such a client without an end."""
    with stage() as it:
        old = it.start(slot=1, threads=2)
        load = Load(it, connections=1, target="/slow_close")
        wait_until(lambda: load.answers > 3, what="some load")
        it.start(slot=2)
        old.order("handover")
        try:
            old.end()
            before = load.answers
            wait_until(lambda: load.answers > before + 3, what="more load")
        finally:
            load.end()
        assert not load.errors
        assert (load.closes, it.cell(1, "handed_over")) == (0, 1)


def test_handover_to_a_busy_worker_strands_nobody() -> None:
    with stage() as it:
        old = it.start(slot=1)
        clients = [it.connect() for _ in range(5)]
        for client in clients:
            client.ask()
        it.start(slot=2)
        busy = it.connect()
        old.order("handover")
        busy.send(b"GET /slow?ms=800 HTTP/1.1\r\nHost: t\r\n\r\n")  # by whichever worker
        old.end()
        for client in clients:
            assert client.ask().body == b"hello"
            client.sock.close()
        assert busy.read().body == b"slow"
        busy.sock.close()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("target", ["/", "/slow?ms=3"])
def test_rolling_handover_under_load_fails_no_request(threads: int, target: str) -> None:
    with stage() as it:
        hosts = [it.start(slot=slot, threads=threads) for slot in (1, 2)]
        load = Load(it, connections=16, target=target)
        for round_number in range(6):
            slot = 3 if round_number % 2 == 0 else 4
            it.set_cell(slot, "worker_state", 2)
            fresh = it.start(slot=slot, threads=threads)
            before = load.answers
            wait_until(lambda b=before: load.answers > b + 200, what="some load")
            old = hosts.pop(0)
            old.order("handover")
            old.end()
            hosts.append(fresh)
        load.end()
        assert not load.errors
        assert load.closes == 0
        assert load.answers > 1200


def test_without_a_pair_a_drained_worker_says_close() -> None:
    with stage() as it:
        host = it.start(handover=False)
        with it.connect() as client:
            client.send(HELD)
            wait_until(lambda: it.cell(1, "in_flight") == 1, what="the call")
            host.order("handover")
            host.release()
            answer = client.read()
            assert (answer.body, answer.field("Connection")) == (b"held", "close")
        host.end()


def test_close_serves_the_accept_queue_and_what_runs() -> None:
    with stage() as it:
        host = it.start()
        with it.connect() as running, it.connect() as idle:
            assert idle.ask().body == b"hello"
            wait_until(lambda: it.cell(1, "in_flight") == 0, what="the end of the call")
            running.send(HELD)
            wait_until(lambda: it.cell(1, "in_flight") == 1, what="the call")
            queued = [it.connect() for _ in range(20)]
            for client in queued:
                client.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            host.order("close")
            idle.send(b"GET / HTTP/1.1\r\nHost: t\r\n\r\n")
            host.release()
            for client in [*queued, running]:
                answer = client.read()
                assert (answer.status, answer.field("Connection")) == (200, "close")
            answer = idle.read()
            assert (answer.body, answer.field("Connection")) == (b"hello", "close")
            host.end()


def test_close_ends_idle_connections_after_a_moment() -> None:
    with stage() as it:
        host = it.start(keep_alive_s=3600)
        with it.connect() as client:
            client.ask()
            began = time.monotonic()
            host.order("close")
            host.end()
            assert time.monotonic() - began > 1
            assert client.is_ended()


def test_close_answers_what_another_worker_had_handed_over() -> None:
    with stage() as it:
        old = it.start(slot=1)
        with it.connect() as client:
            client.ask()
            old.order("handover")
            old.end()
            last = it.start(slot=2)
            last.order("close")
            answer = client.ask()
            assert (answer.body, answer.field("Connection")) == (b"hello", "close")
            last.end()


def test_close_under_load_answers_every_request_it_took() -> None:
    with stage() as it:
        hosts = [it.start(slot=slot) for slot in (1, 2)]
        load = Load(it, connections=8, target="/slow?ms=5")
        wait_until(lambda: load.answers > 100, what="some load")
        fresh = it.start(slot=3)
        for host in hosts:
            host.order("close")
        for host in hosts:
            host.end()
        before = load.answers
        wait_until(lambda: load.answers > before + 50, what="more load")
        load.end()
        assert not load.errors
        assert fresh.process.poll() is None


def test_stop_ends_at_once() -> None:
    with stage() as it:
        host = it.start(keep_alive_s=3600)
        with it.connect() as client:
            client.ask()
            host.order("stop")
            host.end()
            assert client.is_ended()


def test_overdue_call_gets_504_and_the_worker_leaves() -> None:
    with stage() as it:
        old = it.start(slot=1, threads=2, request_timeout_s=1.5)
        stuck, other = it.connect(), it.connect()
        for client in (stuck, other):
            client.ask()
        it.start(slot=2)
        stuck.send(HELD)
        # The call never ends by itself.
        assert stuck.read().status == 504
        assert stuck.is_ended()
        event = old.expect("timeout")
        assert event[2:4] == ["GET", "/held"]
        assert event[4] >= 1_500_000
        wait_until(lambda: it.requests(1, "GET", "504") == 1, what="the count")
        wait_until(lambda: it.cell(1, "timeouts") == 1, what="the count of timeouts")
        old.release()
        old.end()
        answer = other.ask()
        assert (answer.body, answer.field("Connection")) == (b"hello", None)
        wait_until(lambda: it.requests(2, "GET", "200") == 1, what="the other worker's count")


def test_requests_behind_an_overdue_call_are_served_by_another_worker() -> None:
    with stage() as it:
        old = it.start(slot=1, threads=1, request_timeout_s=1.5)
        first = it.connect()
        second = it.connect()
        for client in (first, second):
            client.ask()
        it.start(slot=2)
        first.send(HELD)
        wait_until(lambda: it.cell(1, "in_flight") == 1, what="the call")
        # The only thread of the first worker never comes back.
        assert second.ask("/echo", method="POST", body=b"12").body == b"12"
        assert first.read().status == 504
        old.expect("timeout")


def test_max_requests_is_told_once_and_serving_goes_on() -> None:
    with stage() as it:
        host = it.start(max_requests=5)
        with it.connect() as client:
            for _ in range(12):
                assert client.ask().status == 200
            assert host.expect("max_requests") == ["max_requests"]
            assert not host.is_idle()
        wait_until(host.is_idle, what="the end of the connection")


def test_short_starts_under_load_have_no_stall() -> None:
    for _ in range(8):
        with stage() as it:
            for slot in (1, 2):
                it.start(slot=slot)
            load = Load(it, connections=24)
            wait_until(lambda load=load: load.answers > 400, what="some load")
            load.end()
            assert not load.errors
            assert load.max_s < 10  # a lost wake-up never comes


def test_busy_worker_leaves_requests_to_an_idle_one() -> None:
    """Both connections were accepted by one worker; its app thread can run one call only."""
    with stage() as it:
        busy = it.start(slot=1)
        first, second = it.connect(), it.connect()
        for client in (first, second):
            client.ask()
        it.start(slot=2)
        first.send(HELD)
        wait_until(lambda: it.cell(1, "in_flight") == 1, what="the call")
        assert second.ask().body == b"hello"
        busy.release()
        assert first.read().body == b"held"
        wait_until(lambda: it.requests(2, "GET", "200") == 1, what="the count")


def test_close_serves_an_accept_queue_that_takes_longer_than_idle_clients_may() -> None:
    with stage() as it:
        host = it.start()
        waiting = [it.connect() for _ in range(12)]
        for client in waiting:
            client.send(b"GET /slow?ms=300 HTTP/1.1\r\nHost: t\r\n\r\n")
        wait_until(lambda: it.cell(1, "in_flight") == 1, what="the first call")
        host.order("close")
        for client in waiting:
            assert client.read().body == b"slow"
        host.end()


def test_overdue_calls_are_counted_as_long_as_they_run() -> None:
    with stage() as it:
        host = it.start(threads=2, request_timeout_s=0.3)
        with it.connect() as client:
            client.send(HELD)
            wait_until(lambda: it.cell(1, "overdue") == 1, what="the timeout")
            assert client.read().status == 504
            host.expect("timeout")
            assert (it.cell(1, "overdue"), it.cell(1, "in_flight")) == (1, 1)
            host.release()
            # One after the other, a moment apart.
            wait_until(
                lambda: (it.cell(1, "overdue"), it.cell(1, "in_flight")) == (0, 0), what="the end"
            )
            assert it.requests(1, "GET", "504") == 1
