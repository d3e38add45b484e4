"""The page says what was measured: targets met or missed, best peer, reasons for what is missing."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.bench.page import build_page, build_table
from tests.bench.results import Results, Spread


def _cost(us: float) -> dict[str, dict[str, list[float]]]:
    figures = {
        "cpu_us": [us - 1, us, us + 2],
        "user_us": [us / 4] * 3,
        "per_s": [1e6 / us] * 3,
        "client_us": [5.0] * 3,
        "foreign": [0.1, 0.2, 0.3],
    }
    return {"bare": figures, "browser": figures, "flask": figures}


@pytest.fixture
def results() -> Results:
    conditions: dict[str, Any] = {
        "date": "2026-11-22 14:00 UTC",
        "command": "python -m tests.bench",
        "machine": "a CPU",
        "kernel": "6.18",
        "python": "Python 3.13.0",
        "versions": {"prefork": "commit abc", "bjoern": "3.2.2"},
        "network": "own namespace",
        "load_before": "0.1",
        "load_after": "0.2",
        "took_s": 600.0,
        "rounds": 3,
        "seconds": 1.5,
        "kills": 5,
    }
    return Results(
        conditions=conditions,
        cost={
            "prefork": _cost(10.0),
            "bjoern": _cost(13.0),
            "granian": _cost(22.0),
            "C epoll loop": {"bare": _cost(7.0)["bare"]},
        },
        instructions={"prefork": {"bare": 7_900.0, "browser": 18_500.0}},
        stalled={"prefork": {"loss": 0.02, "grown_mib": 3.0}},
        reload={
            "prefork": {
                "sent": 1800,
                "failed": 0,
                "retried": 0,
                "worst_ms": 30.0,
                "reloaded": True,
            },
            "bjoern": {"reason": "no reload"},
        },
        killed={"prefork": {"ms": 61.0, "low": 50.0, "high": 70.0}},
    )


def _line(page: str, start: str) -> str:
    return next(line for line in page.splitlines() if line.startswith(f"| {start}"))


def test_ratio_is_to_the_best_peer_and_never_to_the_floor(results: Results) -> None:
    line = _line(build_page(results), "bare head: requests per CPU second")
    assert line.endswith("| ≥ 1.2 | 1.30 (bjoern) | met |")


def test_missed_targets_stand_beside_their_figures(results: Results) -> None:
    page = build_page(results)
    assert _line(page, "browser headers: requests per CPU").endswith("1.30 (bjoern) | **missed** |")
    assert _line(page, "browser headers: user instr").endswith("| ≤ 18 k | 18.5 k | **missed** |")
    assert _line(page, "worker killed -9").endswith("| < 50 ms | 61 ms | **missed** |")
    assert _line(page, "bare head: user instr").endswith("| 7.9 k | met |")


def test_reload_that_never_served_the_new_code_is_no_success(results: Results) -> None:
    results.reload["prefork"]["reloaded"] = False
    page = build_page(results)
    assert _line(page, "reload with a 3 s import").endswith(
        "| 0 | 0 of 1800, new code never served | **missed** |"
    )


def test_target_without_a_figure_says_why(results: Results) -> None:
    bare = dataclasses.replace(results, stalled={"prefork": {"reason": "did not start"}})
    assert _line(build_page(bare), "1,000 stalled").endswith("| - | did not start |")


def test_servers_without_figures_are_named(results: Results) -> None:
    results.left_out["fastwsgi"] = "does not build"
    results.cost_failed["uWSGI"] = "ended with 1"
    page = build_page(results)
    assert "Left out, fastwsgi: does not build." in page
    assert "No figures for uWSGI: ended with 1." in page
    assert "- Reload, bjoern: no reload." in page


def test_table_lists_servers_in_order_with_median_and_range(results: Results) -> None:
    lines = build_table(results).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "prefork",
        "bjoern",
        "granian",
        "C epoll loop",
    ]
    assert "10.0 (9.0 to 12.0)" in lines[1]


def test_spread_is_median_and_extremes() -> None:
    assert Spread.of([3.0, 1.0, 2.0, 9.0]) == Spread(2.5, 1.0, 9.0)


def test_results_survive_the_file(results: Results, tmp_path: Any) -> None:
    path = tmp_path / "deep" / "results.json"
    results.write(path)
    assert Results.read(path) == results
