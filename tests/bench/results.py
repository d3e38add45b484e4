"""What one run found, as one value: written as JSON, read by the page and the charts."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

Figures = dict[str, dict[str, Any]]


@dataclass(kw_only=True)
class Results:
    """`cost`, `instructions`, `reload`, `stalled`, `killed`, `greenlets`: by server name, as measured.

    `failed` and `left_out` name the servers without figures and the reason; `conditions` is what a
    reader needs to judge the run.
    """

    conditions: dict[str, Any]
    left_out: dict[str, str] = field(default_factory=dict)
    cost: dict[str, dict[str, dict[str, list[float]]]] = field(default_factory=dict)
    cost_failed: dict[str, str] = field(default_factory=dict)
    instructions: dict[str, dict[str, float]] = field(default_factory=dict)
    instructions_failed: dict[str, str] = field(default_factory=dict)
    logging: dict[str, dict[str, float]] = field(
        default_factory=dict
    )  # instructions, with an access log
    logging_failed: dict[str, str] = field(default_factory=dict)
    reload: Figures = field(default_factory=dict)
    stalled: Figures = field(default_factory=dict)
    killed: Figures = field(default_factory=dict)
    greenlets: Figures = field(default_factory=dict)

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        return cls(**json.loads(path.read_text()))

    def cost_us(self, server: str, case: str) -> Spread | None:
        """CPU µs per request, or None when the server has no figure."""
        rounds = self.cost.get(server, {}).get(case, {}).get("cpu_us")
        return Spread.of(rounds) if rounds else None

    def foreign(self) -> Spread | None:
        """Share of the server's core that others used, over all samples of the CPU table."""
        samples = [
            share
            for cases in self.cost.values()
            for figures in cases.values()
            for share in figures["foreign"]
        ]
        return Spread.of(samples) if samples else None


@dataclass(frozen=True)
class Spread:
    """Median, lowest and highest of a figure's rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: list[float]) -> Spread:
        return cls(statistics.median(rounds), min(rounds), max(rounds))
