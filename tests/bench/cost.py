"""CPU time per request: all servers in turn, several rounds, so that a slow minute hits them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.load import BARE_HEAD, BROWSER_HEAD, LoadError, LoadGenerator
from tests.bench.peers import FLOOR, Server
from tests.bench.running import Running, ServerError, cores, running

# case → (app, request head)
CASES = {
    "bare": ("hello:app", BARE_HEAD),
    "browser": ("hello:app", BROWSER_HEAD),
    "flask": ("flask_hello:app", BROWSER_HEAD),
}


@dataclass(frozen=True, kw_only=True)
class CostPlan:
    """`rounds` of `seconds` for each server and case, each after `warm_up_s` of the same load."""

    rounds: int
    seconds: float
    warm_up_s: float


# server → case → figure → one value per round
Costs = dict[str, dict[str, dict[str, list[float]]]]


def measure_costs(
    servers: Sequence[Server],
    plan: CostPlan,
    *,
    generator: LoadGenerator,
    logs: Path,
    say: Callable[[str], None],
) -> tuple[Costs, dict[str, str]]:
    """Return the figures, and the reason for each server that failed (its figures are dropped).

    Figures: `cpu_us` user + system µs of the whole process tree per request, `user_us` the user
    part of it (the kernel splits by samples, so it is less exact), `per_s` requests a second,
    `client_us` the generator's µs per request, `foreign` the share (0 to 1) of the server's
    core that others used meanwhile.
    """
    costs: Costs = {}
    failed: dict[str, str] = {}
    for number in range(1, plan.rounds + 1):
        for server in servers:
            if server.name in failed:
                continue
            say(f"CPU time, round {number} of {plan.rounds}: {server.name}")
            try:
                _measure_round(server, plan, costs.setdefault(server.name, {}), generator, logs)
            except (ServerError, LoadError) as error:
                failed[server.name] = str(error)
                del costs[server.name]
    return costs, failed


def _measure_round(
    server: Server,
    plan: CostPlan,
    figures: dict[str, dict[str, list[float]]],
    generator: LoadGenerator,
    logs: Path,
) -> None:
    apps = dict.fromkeys(app for app, _ in CASES.values())
    for app in ["hello:app"] if server == FLOOR else apps:
        with running(server, app=app, logs=logs) as started:
            for case, (its_app, head) in CASES.items():
                if its_app == app:
                    generator.put(started.port, head=head, seconds=plan.warm_up_s)
                    for name, value in _measure_once(started, head, plan, generator).items():
                        figures.setdefault(case, {}).setdefault(name, []).append(value)


def _measure_once(
    started: Running, head: bytes, plan: CostPlan, generator: LoadGenerator
) -> dict[str, float]:
    cpu_before, busy_before, start_s = started.cpu_s(), _core_busy_s(), time.monotonic()
    load = generator.put(started.port, head=head, seconds=plan.seconds)
    cpu_after, busy_s = started.cpu_s(), _core_busy_s() - busy_before
    elapsed_s = time.monotonic() - start_s
    user_s, cpu_s = cpu_after[0] - cpu_before[0], sum(cpu_after) - sum(cpu_before)
    if load.missing or not load.requests:
        raise LoadError(f"{load.missing} of {load.requests + load.missing} answers are missing")
    return {
        "cpu_us": cpu_s / load.requests * 1e6,
        "user_us": user_s / load.requests * 1e6,
        "per_s": load.per_s,
        "client_us": load.client_cpu_s / load.requests * 1e6,
        "foreign": max(0.0, busy_s - cpu_s) / elapsed_s,
    }


def _core_busy_s() -> float:
    """Seconds for which the server's core did not idle, the hypervisor's share included."""
    label = f"cpu{cores()[0]}"
    for line in Path("/proc/stat").read_text().splitlines():
        name, *ticks = line.split()
        if name == label:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
            return (user + nice + system + irq + softirq + steal) / 100
    raise AssertionError(f"/proc/stat has no {label}")
