"""One size of the campaign: from empty to settled, at rest, under change, after a restart."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.cluster.paths import TREE, Paths
from tests.scale.agents import StandIn
from tests.scale.control_plane import ControlPlane
from tests.scale.fleet import Fleet, Seen, key_of_number
from tests.scale.operator_process import Operator

CHANGES_PER_S = 10
SLOWER_PER_S = 2  # what a machine of two cores can carry with the rollouts
SLOWER_CHANGES = 100
LONGEST_S = 900.0
LOOKS = 'wsgiapp_operator_reconciles_total{result="success"}'
COPIES = 'wsgiapp_operator_applies_total{changed="true",kind="ConfigMap"}'  # of last good contents
CALM_S = 2.0  # the operator is settled when it has used hardly any CPU for so long


@dataclass(frozen=True, kw_only=True)
class Plan:
    apps: int
    unready: int  # further apps whose pods never become ready
    rest_s: float
    changes: int  # no more than there are apps


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What one size showed; CPU in % of a core, memory in MiB, latencies in ms."""

    apps: int
    unready: int
    settled_s: float
    settled_cpu_s: float
    memory: float
    memory_highest: float
    rest_s: float
    rest_cpu: float
    rest_writes: int
    rest_asked: int
    change_p50: float
    change_p99: float
    change_cpu_ms: float  # of the operator, for each change and all that follows it
    change_plane_cpu_ms: float  # of everything else
    slower_p50: float  # with SLOWER_PER_S
    slower_p99: float
    restart_s: float
    restart_cpu_s: float
    restart_writes: int
    unready_cpu: float
    unready_memory: float
    plane_cpu_s: float  # what everything else used until the apps were settled

    def to_json(self) -> dict[str, float]:
        return asdict(self)


async def run_size(plan: Plan, paths: Paths, log: Path) -> Figures:
    """Measure one size on a control plane of its own."""
    with ControlPlane(paths) as plane:
        plane.install_crd(TREE / "manifests" / "crd" / "wsgiapps.yaml")
        async with StandIn() as agents, Fleet(plane.credentials) as fleet:
            await fleet.make_nodes()
            await fleet.make(0, plan.apps)
            fleet.start_watching()
            return await Measurement(plan, plane, fleet, agents, log).run()


class Measurement:
    def __init__(
        self, plan: Plan, plane: ControlPlane, fleet: Fleet, agents: StandIn, log: Path
    ) -> None:
        self.plan, self.plane, self.fleet, self.agents, self.log = plan, plane, fleet, agents, log

    async def run(self) -> Figures:
        figures: dict[str, float] = {"apps": self.plan.apps, "unready": self.plan.unready}
        with Operator(self.plane.credentials, self.log) as operator:
            figures |= await self._settle(operator)
            figures |= await self._rest(operator)
            figures |= await self._change(operator)
            figures |= await self._change_slower(operator)
        with Operator(self.plane.credentials, self.log) as operator:
            figures |= await self._restart(operator)
            figures |= await self._be_unready(operator)
        self.plane.check()
        return Figures(**figures)  # type: ignore[arg-type]

    async def _settle(self, operator: Operator) -> dict[str, float]:
        started, before = time.monotonic(), sum(self.plane.cpu_s().values())
        await self.fleet.wait(self._all_ready, within_s=LONGEST_S, what="all apps ready")
        await count(operator, COPIES, self.plan.apps)
        await calm(operator)
        return {
            "settled_s": time.monotonic() - started - CALM_S,
            "settled_cpu_s": operator.cpu_s(),
            "plane_cpu_s": sum(self.plane.cpu_s().values()) - before,
        }

    def _all_ready(self, seen: Seen) -> bool:
        return sum(seen.ready.values()) >= self.plan.apps

    async def _rest(self, operator: Operator) -> dict[str, float]:
        cpu, writes, asked = operator.cpu_s(), operator.writes(), self.agents.asked
        applied = count_applies(await self.fleet.metrics())
        started = time.monotonic()
        await asyncio.sleep(self.plan.rest_s)
        used_s, lasted_s = operator.cpu_s() - cpu, time.monotonic() - started
        memory = operator.memory()
        made = max(operator.writes() - writes, count_applies(await self.fleet.metrics()) - applied)
        return {
            "memory": memory.now,
            "memory_highest": memory.highest,
            "rest_s": lasted_s,
            "rest_cpu": 100 * used_s / lasted_s,
            "rest_writes": made,
            "rest_asked": self.agents.asked - asked,
        }

    async def _change(self, operator: Operator) -> dict[str, float]:
        cpu_s, plane_s = operator.cpu_s(), sum(self.plane.cpu_s().values())
        p50, p99 = await self._latencies(operator, self.plan.changes, CHANGES_PER_S)
        plane_used_s = sum(self.plane.cpu_s().values()) - plane_s
        return {
            "change_p50": p50,
            "change_p99": p99,
            "change_cpu_ms": 1000 * (operator.cpu_s() - cpu_s) / self.plan.changes,
            "change_plane_cpu_ms": 1000 * plane_used_s / self.plan.changes,
        }

    async def _change_slower(self, operator: Operator) -> dict[str, float]:
        changes = min(SLOWER_CHANGES, self.plan.apps)
        p50, p99 = await self._latencies(operator, changes, SLOWER_PER_S)
        return {"slower_p50": p50, "slower_p99": p99}

    async def _latencies(
        self, operator: Operator, changes: int, per_s: float
    ) -> tuple[float, float]:
        """Change apps at a steady rate; return p50 and p99, in ms, until each one's Deployment has it."""
        chosen = random.sample(range(self.plan.apps), changes)
        begun = time.monotonic()
        latencies = await asyncio.gather(
            *(
                self._change_one(number, f"{per_s}-round-{turn}", begun + turn / per_s)
                for turn, number in enumerate(chosen)
            )
        )
        latencies.sort()
        await self.fleet.wait(self._all_ready, within_s=LONGEST_S, what="all apps ready again")
        await calm(operator)
        return 1000 * latencies[changes // 2], 1000 * latencies[changes * 99 // 100]

    async def _change_one(self, number: int, round_: str, due: float) -> float:
        await asyncio.sleep(max(due - time.monotonic(), 0))
        started, key = await self.fleet.change(number, round_), key_of_number(number)
        await self.fleet.wait(
            lambda seen: seen.rounds.get(key, ("",))[0] == round_, within_s=120, what=round_
        )
        return self.fleet.seen.rounds[key][1] - started

    async def _restart(self, operator: Operator) -> dict[str, float]:
        """Measure from the start of a process until it has looked at every app and is calm."""
        started = time.monotonic()
        await count(operator, LOOKS, self.plan.apps)
        await calm(operator)
        return {
            "restart_s": time.monotonic() - started - CALM_S,
            "restart_cpu_s": operator.cpu_s(),
            "restart_writes": operator.writes(),
        }

    async def _be_unready(self, operator: Operator) -> dict[str, float]:
        total = self.plan.apps + self.plan.unready
        if self.plan.unready == 0:
            return {"unready_cpu": 0, "unready_memory": 0}
        await self.fleet.make(self.plan.apps, total, unready=True)

        def are_reported(seen: Seen) -> bool:
            return (
                sum(reason == "NotReady" for reason in seen.reported.values()) >= self.plan.unready
            )

        await self.fleet.wait(are_reported, within_s=LONGEST_S, what="unready apps reported")
        # After its progress deadline each of them changes once more; then they are at rest.
        await self.fleet.wait(
            lambda seen: len(seen.stuck) >= self.plan.unready,
            within_s=LONGEST_S,
            what="rollouts stuck",
        )
        await calm(operator)
        cpu, started = operator.cpu_s(), time.monotonic()
        await asyncio.sleep(self.plan.rest_s)
        used_s = operator.cpu_s() - cpu
        return {
            "unready_cpu": 100 * used_s / (time.monotonic() - started),
            "unready_memory": operator.memory().now,
        }


async def count(operator: Operator, name: str, least: int) -> None:
    """Wait until a counter of the operator says so much."""
    async with asyncio.timeout(LONGEST_S):
        while not is_listening(operator) or operator.metrics().get(name, 0) < least:  # noqa: ASYNC110
            await asyncio.sleep(0.5)


async def calm(operator: Operator, *, share: float = 0.1) -> None:
    """Wait until the operator uses hardly any CPU."""
    async with asyncio.timeout(LONGEST_S):
        while True:
            before = operator.cpu_s()
            await asyncio.sleep(CALM_S)
            if operator.cpu_s() - before < share * CALM_S:
                return


def is_listening(operator: Operator) -> bool:
    try:
        operator.metrics()
    except OSError:
        return False
    return True


def count_applies(metrics: str) -> int:
    """Return the server-side applies that the API server has seen: only the operator makes them."""
    pattern = r'^apiserver_request_total\{[^}]*verb="APPLY"[^}]*\} (\S+)$'
    return int(sum(float(count) for count in re.findall(pattern, metrics, re.MULTILINE)))


def describe(figures: Mapping[str, float]) -> str:
    return "\n".join(f"  {name:<18} {value:10.1f}" for name, value in figures.items())
