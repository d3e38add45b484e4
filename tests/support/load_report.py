"""What a load run was asked to do and what it saw: plain values, JSON and text.

Owns the words of the figures (`failed`, `wrong`, `retried_reused_get`); knows nothing of sockets.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from dataclasses import asdict, dataclass, field, fields
from typing import Any

ERRORS_KEPT = 20


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """One load run against one app.

    Open loop (`rate` > 0): requests are due at fixed times, whether or not earlier ones have been
    answered, and latency counts from the due time, so a stall is seen by all it would have hit.
    Closed loop (`rate` == 0): each connection sends its next request when it has its answer.

    Shares are of all requests, 0 to 1. A `new_connection_share` request opens a connection,
    asks to close it, and is never retried. With `post_reuse` False every POST does so as well.
    """

    url: str
    host: str | None = None  # Host header; None: taken from the URL
    rate: float = 0.0  # requests per second; 0: closed loop
    connections: int = 16  # keep-alive connections at most
    duration_s: float = 20.0
    timeout_s: float = 30.0  # from due time to the last byte of the answer
    post_share: float = 0.25
    post_reuse: bool = True
    post_max_bytes: int = 64 * 1024
    new_connection_share: float = 0.1
    slow_share: float = 0.0  # GET /slow?ms=slow_ms: keeps calls running while things change
    slow_ms: int = 250
    get_path: str = "/"
    expect_version: bool = True  # a GET answer without X-App-Version is wrong
    allow_remote: bool = False
    seed: int | None = None

    def __post_init__(self) -> None:
        shares = self.post_share + self.slow_share
        for name, value, least, most in (
            ("rate", self.rate, 0, 100_000),
            ("connections", self.connections, 1, 4096),
            ("duration_s", self.duration_s, 0.01, 86_400),
            ("timeout_s", self.timeout_s, 0.01, 3600),
            ("post_max_bytes", self.post_max_bytes, 0, 64 * 1024 * 1024),
            ("post_share", self.post_share, 0, 1),
            ("slow_share", self.slow_share, 0, 1),
            ("post_share + slow_share", shares, 0, 1),
            ("new_connection_share", self.new_connection_share, 0, 1),
        ):
            if not least <= value <= most:
                raise ValueError(f"{name} is {value}; use {least} to {most}")


@dataclass(slots=True)
class Seen:
    """Where one X-App-Version was seen; seconds since the start of the run."""

    first_s: float
    last_s: float
    count: int = 1


@dataclass(frozen=True, slots=True)
class LoadReport:
    """What a run saw. `sent == ok + failed + wrong` always holds.

    failed: no complete answer, or a status other than 200. wrong: a 200 that is not the answer
    asked for (a body that is not the echo, no version). retried_reused_get: GETs on a reused
    connection that was closed before the first byte of an answer; sent once more on a new
    connection, as every browser does, and judged by that answer.
    """

    started_at: float  # Unix time
    elapsed_s: float
    sent: int
    ok: int
    failed: int
    wrong: int
    retried_reused_get: int
    p50_s: float
    p99_s: float
    max_s: float
    max_at_s: float  # when the slowest request was due, since the start
    client_lag_max_s: float  # how late this client itself sent at worst; part of the latencies
    connections_opened: int
    idle_closes: int  # connections the server closed between requests; harmless
    bytes_checked: int  # of echoed bodies, compared byte by byte
    versions: dict[str, Seen] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)  # the first ERRORS_KEPT, with their times

    @property
    def rate(self) -> float:
        """Requests a second, over the whole run."""
        return self.sent / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def is_clean(self) -> bool:
        """True when requests were sent and not one failed or was answered wrongly."""
        return self.sent > 0 and self.failed == 0 and self.wrong == 0

    def to_json(self) -> str:
        """Return the report as one line of JSON, read back by `from_json`."""
        return json.dumps(asdict(self), ensure_ascii=False)

    @staticmethod
    def from_json(text: str) -> LoadReport:
        """Return the report that `to_json` wrote; KeyError names a missing field."""
        raw: dict[str, Any] = json.loads(text)
        values = {f.name: raw[f.name] for f in fields(LoadReport)}
        values["versions"] = {name: Seen(**seen) for name, seen in raw["versions"].items()}
        return LoadReport(**values)

    def to_text(self) -> str:
        """Return the report for a person, several lines."""
        lines = [
            f"{self.sent} requests in {self.elapsed_s:.1f} s ({self.rate:.0f}/s): "
            f"{self.failed} failed, {self.wrong} wrong, "
            f"{self.retried_reused_get} GET retried after an idle close",
            f"latency p50 {_ms(self.p50_s)}, p99 {_ms(self.p99_s)}, max {_ms(self.max_s)} "
            f"(due {self.max_at_s:.1f} s after the start; this client's own lag at most "
            f"{_ms(self.client_lag_max_s)})",
            f"{self.connections_opened} connections opened, {self.idle_closes} closed while idle, "
            f"{self.bytes_checked} echoed bytes compared",
        ]
        for name, seen in self.versions.items():
            lines.append(
                f"version {name}: {seen.count} answers, {seen.first_s:.2f} s to {seen.last_s:.2f} s"
            )
        lines += [f"{count} x {reason}" for reason, count in self.reasons.items()]
        return "\n".join(lines + self.errors)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


class Tally:
    """Counts answers while a run goes on; `report` makes the figures of them."""

    def __init__(self) -> None:
        self.sent = self.ok = self.failed = self.wrong = 0
        self.retried_reused_get = self.connections_opened = self.idle_closes = 0
        self.bytes_checked = 0
        self.client_lag_max_s = 0.0
        self.versions: dict[str, Seen] = {}
        self.reasons: Counter[str] = Counter()
        self.errors: list[str] = []
        self._latencies_s = array("d")
        self._max_s = self._max_at_s = 0.0

    def add_ok(self, due_s: float, now_s: float) -> None:
        """Count a right answer; times in seconds since the start."""
        self.ok += 1
        self._add_latency(due_s, now_s)

    def add_wrong(self, due_s: float, now_s: float, *, reason: str, detail: str) -> None:
        """Count an answer 200 that is not the one asked for."""
        self.wrong += 1
        self._add_latency(due_s, now_s)
        self._note("wrong", now_s, reason=reason, detail=detail)

    def add_failed(self, due_s: float, now_s: float, *, reason: str, detail: str) -> None:
        """Count a request without a good answer."""
        self.failed += 1
        self._add_latency(due_s, now_s)
        self._note("failed", now_s, reason=reason, detail=detail)

    def add_version(self, name: str, now_s: float) -> None:
        """Note the X-App-Version of an answer."""
        seen = self.versions.get(name)
        if seen is None:
            self.versions[name] = Seen(now_s, now_s)
        else:
            seen.last_s = now_s
            seen.count += 1

    def report(self, *, started_at: float, elapsed_s: float) -> LoadReport:
        """Return the figures so far."""
        ordered = sorted(self._latencies_s)
        return LoadReport(
            started_at=started_at,
            elapsed_s=elapsed_s,
            sent=self.sent,
            ok=self.ok,
            failed=self.failed,
            wrong=self.wrong,
            retried_reused_get=self.retried_reused_get,
            p50_s=percentile(ordered, 0.50),
            p99_s=percentile(ordered, 0.99),
            max_s=self._max_s,
            max_at_s=self._max_at_s,
            client_lag_max_s=self.client_lag_max_s,
            connections_opened=self.connections_opened,
            idle_closes=self.idle_closes,
            bytes_checked=self.bytes_checked,
            versions=dict(self.versions),
            reasons=dict(self.reasons),
            errors=list(self.errors),
        )

    def _add_latency(self, due_s: float, now_s: float) -> None:
        latency_s = now_s - due_s
        self._latencies_s.append(latency_s)
        if latency_s > self._max_s:
            self._max_s, self._max_at_s = latency_s, due_s

    def _note(self, kind: str, now_s: float, *, reason: str, detail: str) -> None:
        self.reasons[f"{kind}: {reason}"] += 1
        if len(self.errors) < ERRORS_KEPT:
            self.errors.append(f"{now_s:8.3f} s  {kind}: {reason}: {detail}")


def percentile(ordered: list[float], share: float) -> float:
    """Return the nearest-rank percentile of sorted values; 0.0 for none."""
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]
