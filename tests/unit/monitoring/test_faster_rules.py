"""The rules of the cluster's tests are the shipped ones, only faster."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from charts.generate import RULES
from tests.e2e.alerting import FASTER, scale_rules
from tests.unit.monitoring.conftest import RULES_OF_FILE


def test_scaled_rules_are_valid(promtool: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "rules.yml"
    file.write_text(scale_rules(RULES.read_text(encoding="utf-8")))
    assert f"{len(RULES_OF_FILE)} rules found" in promtool("check", "rules", "--lint-fatal", file)


def test_every_time_of_the_rules_is_scaled_and_nothing_else() -> None:
    text = RULES.read_text(encoding="utf-8")
    scaled = scale_rules(text)
    times = re.compile(r"(\[|\bfor: )(\d+)(ms|[smhd])")
    units_ms = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}

    def read(rules: str) -> list[int]:
        return [int(number) * units_ms[unit] for _, number, unit in times.findall(rules)]

    assert [ms * FASTER for ms in read(scaled)] == read(text)
    assert times.sub("", scaled) == times.sub("", text)
