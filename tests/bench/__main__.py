"""`python -m tests.bench`: prefork and its peers in one run; writes docs/benchmarks.md.

About ten minutes; `--quick` takes CPU time and instructions in under three and writes no page.
Figures also land in build/bench/results.json, server logs in build/bench/logs.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench import page, peers, scenarios
from tests.bench.cost import CostPlan, measure_costs
from tests.bench.instructions import count_instructions
from tests.bench.load import LoadGenerator
from tests.bench.network import enter_own_network
from tests.bench.peers import BUILD, FLOOR, GREENLET_SERVERS, OURS, ROOT, SERVERS, Server
from tests.bench.results import Results, Spread

_FULL = CostPlan(rounds=5, seconds=1.0, warm_up_s=0.25)
_QUICK = CostPlan(rounds=2, seconds=0.5, warm_up_s=0.2)
_KILLS = 5
_SOURCES = Path(__file__).parent
_DOCS = ROOT / "docs"


def main() -> int:
    arguments = _parse(sys.argv[1:])
    if not peers.PYTHON.exists():
        print(f"no {peers.PYTHON}; run: tests/support/install-peers", file=sys.stderr)
        return 1
    logs = BUILD / "logs"
    shutil.rmtree(logs, ignore_errors=True)
    logs.mkdir(parents=True)
    _build_c("floor")
    generator = LoadGenerator(_build_c("load"))
    is_own_network = enter_own_network()
    results = _run(arguments, generator=generator, logs=logs)
    results.conditions["network"] = (
        "own namespace, no packet filter" if is_own_network else "the machine's own loopback"
    )
    results.write(BUILD / "results.json")
    _show(results)
    if not arguments.quick and not arguments.server:
        _write_page(results)
    if reason := results.cost_failed.get(OURS):
        print(f"\nprefork has no figures: {reason}", file=sys.stderr)
        return 1
    return 0


def _parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="CPU time and instructions only, fewer rounds"
    )
    parser.add_argument(
        "--server",
        action="append",
        choices=[server.name for server in (*SERVERS, *GREENLET_SERVERS)],
        help="only this one (repeatable); writes no page",
    )
    return parser.parse_args(words)


def _build_c(name: str) -> Path:
    program = BUILD / name
    compiler = ("cc", "-O2", "-Wall", "-D_GNU_SOURCE", "-o")
    subprocess.run([*compiler, program, _SOURCES / f"{name}.c"], check=True)
    return program


def _run(arguments: argparse.Namespace, *, generator: LoadGenerator, logs: Path) -> Results:
    start = time.monotonic()

    def say(step: str) -> None:
        print(f"  {time.monotonic() - start:4.0f} s  {step}", flush=True)

    left_out = peers.left_out()
    wanted = arguments.server or [server.name for server in (*SERVERS, *GREENLET_SERVERS)]
    servers = [s for s in SERVERS if s.name in wanted and s.distribution not in left_out]
    plan = _QUICK if arguments.quick else _FULL
    results = Results(conditions=_conditions(plan), left_out=left_out)
    if servers:
        results.cost, results.cost_failed = measure_costs(
            [*servers, FLOOR], plan, generator=generator, logs=logs, say=say
        )
    servers = [server for server in servers if server.name in results.cost]
    results.instructions, results.instructions_failed = count_instructions(
        servers, generator=generator, logs=logs, say=say
    )
    logging = [s for s in peers.LOGGING if s.name in results.cost]
    results.logging, results.logging_failed = count_instructions(
        logging, generator=generator, logs=logs, say=lambda step: say(f"{step}, access log")
    )
    if not arguments.quick:
        for server in servers:
            say(f"reload, stalled clients, killed worker: {server.name}")
            _run_scenarios(server, results, generator=generator, logs=logs)
    for server in GREENLET_SERVERS:
        if server.name in wanted:
            say(f"greenlets: {server.name}")
            results.greenlets[server.name] = scenarios.attempt(
                lambda server=server: scenarios.greenlets(server, generator=generator, logs=logs)
            )
    results.conditions["load_after"] = _load_average()
    results.conditions["took_s"] = time.monotonic() - start
    return results


def _run_scenarios(
    server: Server, results: Results, *, generator: LoadGenerator, logs: Path
) -> None:
    name, attempt = server.name, scenarios.attempt
    results.reload[name] = attempt(lambda: scenarios.reload_under_load(server, logs=logs))
    results.stalled[name] = attempt(
        lambda: scenarios.stalled_clients(server, generator=generator, logs=logs)
    )
    kills = [attempt(lambda: scenarios.worker_killed(server, logs=logs)) for _ in range(_KILLS)]
    without = [kill for kill in kills if "reason" in kill]
    if without:
        results.killed[name] = without[0]
    else:
        spread = Spread.of([kill["ms"] for kill in kills])
        results.killed[name] = {"ms": spread.median, "low": spread.low, "high": spread.high}


def _conditions(plan: CostPlan) -> dict[str, object]:
    installed = peers.versions()
    shown = dict.fromkeys([*(server.distribution for server in SERVERS), "flask"])
    python = subprocess.run(
        [peers.PYTHON, "-V"], check=True, capture_output=True, text=True
    ).stdout.strip()
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "command": " ".join(["python -m tests.bench", *sys.argv[1:]]),
        "machine": f"{_cpu_model()}, {os.cpu_count()} cores, {_memory_gib():.0f} GiB",
        "kernel": platform.release(),
        "python": python,
        "versions": {name: installed.get(name, "not installed") for name in shown},
        "load_before": _load_average(),
        "rounds": plan.rounds,
        "seconds": plan.seconds,
        "kills": _KILLS,
    }


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _memory_gib() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30


def _load_average() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _show(results: Results) -> None:
    print(f"\n{page.build_table(results)}")
    if results.greenlets:
        print(f"\n{page.build_greenlets(results)}")
    if results.stalled:
        print(f"\n{page.build_scenarios(results)}")
    for reasons in (results.left_out, results.cost_failed, results.instructions_failed):
        for name, reason in reasons.items():
            print(f"no figures for {name}: {reason}")


def _write_page(results: Results) -> None:
    (_DOCS / "benchmarks.md").write_text(page.build_page(results))
    subprocess.run(
        [peers.PYTHON, "-m", "tests.bench.charts", BUILD / "results.json", _DOCS / "img"],
        check=True,
        cwd=ROOT,
    )
    print("\nwritten: docs/benchmarks.md, docs/img/bench-*.svg, build/bench/results.json")


if __name__ == "__main__":
    raise SystemExit(main())
