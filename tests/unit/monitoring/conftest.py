"""The rules, and the real promtool, fetched into the cache when it is missing."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from charts.generate import RULES
from tests.cluster.packages import install_promtool
from tests.cluster.paths import Paths

Rule = dict[str, Any]
RULES_OF_FILE: list[Rule] = [
    rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
]
ALERTS: dict[str, Rule] = {rule["alert"]: rule for rule in RULES_OF_FILE if "alert" in rule}


@pytest.fixture(scope="session")
def promtool() -> Callable[..., str]:
    """Return promtool(*arguments): what it prints; fails the test with that where it fails."""
    program = install_promtool(Paths.from_environ())

    def run(*arguments: str | Path) -> str:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run
