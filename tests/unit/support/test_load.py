"""The load client against servers that misbehave: its "0 failed" must mean something.

Each test gives a loopback server one fault and expects exactly that fault in the figures.
"""

from __future__ import annotations

import asyncio
import re
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.background_load import BackgroundLoad
from tests.support.load import RemoteRefusedError, main, run
from tests.support.load_report import LoadPlan, LoadReport, Seen, Tally, percentile
from tests.support.wait import wait_until


@dataclass(slots=True)
class Asked:
    """One request as the server read it; `nth` counts from 0, `on_connection` too."""

    method: str
    path: str
    body: bytes
    nth: int
    on_connection: int
    fields: dict[str, str] = field(default_factory=dict)


Answer = bytes | None  # None: close without a byte
Behaviour = Callable[[Asked, asyncio.StreamWriter], Awaitable[Answer]]


def answer(body: bytes, *, status: str = "200 OK", version: str = "v1", extra: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nX-App-Version: {version}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{extra}\r\n".encode() + body


def right(asked: Asked) -> bytes:
    return answer(asked.body if asked.method == "POST" else b"hello")


async def _read_body(reader: asyncio.StreamReader, fields: dict[str, str]) -> bytes:
    if fields.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(fields.get("content-length", "0")))
    body = b""
    while size := int(await reader.readline(), 16):
        body += await reader.readexactly(size)
        await reader.readexactly(2)
    await reader.readline()
    return body


@asynccontextmanager
async def serving(behave: Behaviour) -> AsyncIterator[str]:
    """A loopback server whose every answer `behave` decides; yields its URL."""
    count = 0

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            for on_connection in range(1_000_000):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                lines = head.split("\r\n")
                method, path, _ = lines[0].split(" ")
                fields = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
                body = await _read_body(reader, fields)
                asked = Asked(method, path, body, count, on_connection, fields)
                count += 1
                reply = await behave(asked, writer)
                if reply is None:
                    break
                writer.write(reply)
                await writer.drain()
                if fields.get("connection") == "close":
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()


async def report_of(behave: Behaviour, **plan: object) -> LoadReport:
    values: dict[str, object] = {"rate": 400.0, "duration_s": 0.25, "seed": 7, "timeout_s": 60.0}
    async with serving(behave) as url:
        report = await run(LoadPlan(url=url, **(values | plan)))  # type: ignore[arg-type]
    assert report.sent == report.ok + report.failed + report.wrong
    return report


async def test_right_answers_are_all_ok_and_every_echo_is_compared() -> None:
    sent: list[Asked] = []

    async def behave(asked: Asked, _: asyncio.StreamWriter) -> bytes:
        sent.append(asked)
        return right(asked)

    report = await report_of(behave, post_share=0.5, new_connection_share=0.2)
    assert report.is_clean
    assert report.sent == 100
    posts = [asked for asked in sent if asked.method == "POST"]
    assert report.bytes_checked == sum(len(asked.body) for asked in posts)
    assert {"transfer-encoding", "content-length"} <= {name for a in posts for name in a.fields}
    assert 30 <= len(posts) <= 70
    closing = [asked for asked in sent if asked.fields.get("connection") == "close"]
    assert 5 <= len(closing) <= 40
    assert max(asked.on_connection for asked in sent) > 3  # the others reuse theirs


async def test_wrong_echo_is_counted_with_its_first_difference() -> None:
    async def behave(asked: Asked, _: asyncio.StreamWriter) -> bytes:
        if asked.method == "POST":
            return answer(asked.body[:-1] + bytes([asked.body[-1] ^ 1]))
        return right(asked)

    report = await report_of(behave, post_share=0.3)
    assert report.wrong > 10
    assert report.failed == 0
    assert report.reasons == {"wrong: body is not the echo": report.wrong}
    assert re.search(r"sent (\d+) bytes, got \1, first difference at", report.errors[0])


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (answer(b"oops", status="502 Bad Gateway"), "failed: status 502"),
        (answer(b"", status="302 Found"), "failed: status 302"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "wrong: no X-App-Version"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "failed: bad response"),
        (b"SSH-2.0\r\n\r\n", "failed: bad response"),
        (answer(b"a") + b"HTTP", "failed: bad response"),
    ],
)
async def test_each_bad_answer_is_counted_by_its_reason(reply: bytes, reason: str) -> None:
    async def behave(asked: Asked, _: asyncio.StreamWriter) -> bytes:
        return reply if asked.nth == 10 else right(asked)

    report = await report_of(behave, post_share=0.0)
    assert report.reasons == {reason: 1}
    assert report.failed + report.wrong == 1


async def test_answer_cut_off_in_its_body_is_failed_and_never_retried() -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> Answer:
        if asked.nth == 10:
            writer.write(answer(b"x" * 100)[:-50])
            return None
        return right(asked)

    report = await report_of(behave, post_share=0.0, new_connection_share=0.0)
    assert report.reasons == {"failed: closed in the middle of the answer": 1}
    assert "50 body bytes of 100" in report.errors[0]
    assert report.retried_reused_get == 0


async def test_get_on_reused_connection_closed_without_answer_is_retried_once() -> None:
    async def behave(asked: Asked, _: asyncio.StreamWriter) -> Answer:
        return None if asked.nth == 50 else right(asked)

    report = await report_of(behave, post_share=0.0, new_connection_share=0.0, connections=2)
    assert report.is_clean
    assert report.retried_reused_get == 1


async def test_retry_that_fails_too_is_failed() -> None:
    async def behave(asked: Asked, _: asyncio.StreamWriter) -> Answer:
        return None if asked.nth >= 50 else right(asked)

    report = await report_of(behave, post_share=0.0, new_connection_share=0.0, connections=2)
    assert report.failed == report.sent - 50
    assert 1 <= report.retried_reused_get <= 2  # once for a connection that had served before
    assert report.reasons == {"failed: closed before the answer": report.failed}


async def test_connection_lost_with_its_request_makes_room_for_those_that_wait() -> None:
    async def behave(asked: Asked, _: asyncio.StreamWriter) -> Answer:
        if asked.nth == 0:
            await asyncio.sleep(0.2)  # all requests are due by then, and wait for this connection
            return None
        return right(asked)

    report = await report_of(
        behave, duration_s=0.1, connections=1, post_share=0.0, new_connection_share=0.0
    )
    assert report.reasons == {"failed: closed before the answer": 1}
    assert report.elapsed_s < 30  # timeout_s is 60


async def test_post_on_reused_connection_closed_without_answer_is_failed() -> None:
    async def behave(asked: Asked, _: asyncio.StreamWriter) -> Answer:
        return None if asked.nth == 50 else right(asked)

    report = await report_of(behave, post_share=1.0, new_connection_share=0.0, connections=2)
    assert report.reasons == {"failed: closed before the answer": 1}
    assert "on a reused connection" in report.errors[0]
    assert report.retried_reused_get == 0


async def test_get_on_new_connection_closed_without_answer_is_failed() -> None:
    async def behave(asked: Asked, _: asyncio.StreamWriter) -> Answer:
        return None if asked.nth == 50 else right(asked)

    report = await report_of(behave, post_share=0.0, new_connection_share=1.0)
    assert report.reasons == {"failed: closed before the answer": 1}
    assert "on a new connection" in report.errors[0]


async def test_reset_is_told_from_close() -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> Answer:
        if asked.nth == 50:
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            writer.transport.abort()
            return None
        return right(asked)

    report = await report_of(behave, post_share=1.0, new_connection_share=0.0)
    assert report.reasons == {"failed: reset before the answer": 1}


async def test_posts_keep_off_reused_connections_when_asked_to() -> None:
    reused: list[int] = []

    async def behave(asked: Asked, _: asyncio.StreamWriter) -> bytes:
        if asked.method == "POST":
            reused.append(asked.on_connection)
        return right(asked)

    report = await report_of(behave, post_share=0.5, post_reuse=False)
    assert report.is_clean
    assert set(reused) == {0}


async def test_connections_closed_while_idle_harm_nothing_and_are_shown() -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> Answer:
        writer.write(right(asked))  # promises keep-alive, then closes
        return None

    report = await report_of(behave, rate=50.0, duration_s=0.4, post_share=0.0, connections=2)
    assert report.is_clean
    # On a busy machine a close may also come when the next request is on its way.
    assert report.idle_closes > 0


async def test_unasked_answer_on_idle_connection_is_wrong() -> None:
    async def behave(asked: Asked, writer: asyncio.StreamWriter) -> bytes:
        if asked.nth == 0:
            later = asyncio.get_running_loop().call_later
            later(0.02, writer.write, answer(b"another's"))
        return right(asked)

    report = await report_of(
        behave, rate=2.0, duration_s=1.0, post_share=0.0, new_connection_share=0.0
    )
    assert report.reasons == {"wrong: unsolicited answer": 1}


async def test_open_loop_counts_a_stall_for_all_requests_due_in_it() -> None:
    async def behave(asked: Asked, _: asyncio.StreamWriter) -> bytes:
        loop = asyncio.get_running_loop()
        stall.setdefault("until", loop.time() + 0.3)
        await asyncio.sleep(max(0.0, stall["until"] - loop.time()))
        return right(asked)

    for _ in range(20):
        stall: dict[str, float] = {}
        report = await report_of(behave, rate=200.0, duration_s=0.5, connections=1, post_share=0.0)
        assert report.is_clean
        if report.client_lag_max_s < 0.05:  # else this process has stalled as well
            break
    assert report.max_s >= 0.28
    # 60 of 100 requests were due within the stall: coordinated omission would show one.
    assert report.p50_s > 0.03
    assert report.max_at_s < 0.1 or report.client_lag_max_s >= 0.05


async def test_timeout_is_failed_and_frees_the_run() -> None:
    async def behave(asked: Asked, _: asyncio.StreamWriter) -> bytes:
        if asked.nth == 5:
            await asyncio.sleep(600)
        return right(asked)

    report = await report_of(behave, timeout_s=5.0, post_share=0.0)
    assert report.reasons == {"failed: timeout": 1}


async def test_requests_that_wait_for_a_connection_time_out_too() -> None:
    async def behave(asked: Asked, _: asyncio.StreamWriter) -> bytes:
        await asyncio.sleep(600)
        return right(asked)

    report = await report_of(
        behave, timeout_s=0.2, connections=1, post_share=0.0, new_connection_share=0.0
    )
    assert report.failed == report.sent
    assert set(report.reasons) == {"failed: timeout"}


@pytest.mark.parametrize("rate", [100.0, 0.0])
async def test_no_server_is_failed_requests_not_a_crash(rate: float) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/"
        report = await run(LoadPlan(url=url, rate=rate, duration_s=0.2))
    assert report.sent == report.failed > 0
    assert set(report.reasons) == {"failed: connect"}
    assert report.sent < 400  # the closed loop does not spin


async def test_closed_loop_keeps_each_connection_busy_with_one_request() -> None:
    running, most = 0, 0

    async def behave(asked: Asked, _: asyncio.StreamWriter) -> bytes:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return right(asked)

    report = await report_of(behave, rate=0.0, connections=3, new_connection_share=0.0)
    assert report.is_clean
    assert report.sent > 10
    assert most == 3


async def test_versions_are_seen_with_first_and_last_time() -> None:
    async def behave(asked: Asked, _: asyncio.StreamWriter) -> bytes:
        return answer(b"hello", version="v1" if asked.nth < 60 else "v2")

    report = await report_of(behave, post_share=0.0)
    assert list(report.versions) == ["v1", "v2"]
    assert report.versions["v1"].count == 60
    assert report.versions["v1"].last_s <= report.versions["v2"].first_s


async def test_stop_ends_early_and_waits_for_answers() -> None:
    stop = asyncio.Event()

    async def behave(asked: Asked, _: asyncio.StreamWriter) -> bytes:
        if asked.nth == 20:
            stop.set()
        await asyncio.sleep(0.05)
        return right(asked)

    async with serving(behave) as url:
        report = await run(LoadPlan(url=url, rate=200.0, duration_s=600.0), stop=stop)
    assert report.is_clean
    assert report.elapsed_s < 60


@pytest.mark.parametrize(
    "url", ["http://192.0.2.1/", "http://10.1.2.3:8000/", "http://[2001:db8::1]/"]
)
async def test_refuses_remote_addresses(url: str) -> None:
    with pytest.raises(RemoteRefusedError, match="--allow-remote"):
        await run(LoadPlan(url=url, duration_s=0.1))


@pytest.mark.parametrize("url", ["https://127.0.0.1/", "127.0.0.1:80", ""])
async def test_refuses_urls_it_cannot_use(url: str) -> None:
    with pytest.raises(ValueError, match="use http://"):
        await run(LoadPlan(url=url, duration_s=0.1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"post_share": 1.5}, "post_share is 1.5; use 0 to 1"),
        ({"post_share": 0.6, "slow_share": 0.6}, "post_share [+] slow_share is 1.2"),
        ({"connections": 0}, "connections is 0; use 1 to 4096"),
    ],
)
def test_plan_refuses_values_out_of_range(values: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoadPlan(url="http://127.0.0.1/", **values)  # type: ignore[arg-type]


async def test_command_writes_the_report_and_tells_failure_by_exit_code(tmp_path: Path) -> None:
    async def behave(asked: Asked, _: asyncio.StreamWriter) -> bytes:
        return answer(b"", status="500 Oops") if asked.nth == 3 else right(asked)

    file = tmp_path / "report.json"
    async with serving(behave) as url:
        command = [sys.executable, "-m", "tests.support.load", "--url", url, "--rate", "100"]
        process = await asyncio.create_subprocess_exec(
            *command, "--duration", "0.2", "--json", str(file), stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
    assert process.returncode == 1
    assert "1 failed, 0 wrong" in out.decode()
    assert LoadReport.from_json(file.read_text()).reasons == {"failed: status 500": 1}


def test_command_refuses_a_remote_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--url", "http://192.0.2.1/", "--rate", "1"]) == 2
    assert "192.0.2.1, not loopback" in capsys.readouterr().err


async def test_background_load_runs_until_finished() -> None:
    async def behave(asked: Asked, _: asyncio.StreamWriter) -> bytes:
        return right(asked)

    async with serving(behave) as url:
        plan = LoadPlan(url=url, host="app.test", rate=50.0, duration_s=600.0, seed=1)
        with BackgroundLoad(plan) as load:
            await asyncio.to_thread(wait_until, lambda: (now := load.latest()) and now.ok >= 10)
            report = await asyncio.to_thread(load.finish)
    assert report.is_clean
    assert report.sent >= 10


def test_report_survives_json() -> None:
    tally = Tally()
    tally.sent = 2
    tally.add_version("v1", 0.5)
    tally.add_ok(0.0, 0.5)
    tally.add_failed(1.0, 3.0, reason="reset", detail="GET /")
    report = tally.report(started_at=1.0, elapsed_s=4.0)
    assert LoadReport.from_json(report.to_json()) == report
    assert report.versions == {"v1": Seen(0.5, 0.5)}
    assert (report.max_s, report.max_at_s) == (2.0, 1.0)


def test_percentile_is_nearest_rank() -> None:
    ordered = [float(value) for value in range(1, 101)]
    assert percentile(ordered, 0.5) == 50.0
    assert percentile(ordered, 0.99) == 99.0
    assert percentile([7.0], 0.99) == 7.0
    assert percentile([], 0.5) == 0.0
