"""The state of affairs as the control socket reports it (docs/contracts.md, section 4); reads only."""

import dataclasses
from typing import Any

from prefork.arbiter.fleet import Fleet, present_generations
from prefork.arbiter.generations import Generations
from prefork.arbiter.reloads import LastReload
from prefork.base.stats import Table, WorkerState


def build_status(
    fleet: Fleet, generations: Generations, table: Table, last: LastReload | None, now: float
) -> dict[str, Any]:
    """Return the reply to `status`."""
    current, present = fleet.current, present_generations(fleet)
    serving = [w for w in fleet.workers.values() if w.state is WorkerState.SERVING and w.serves]
    return {
        "state": fleet.state.name.lower().replace("stopping", "draining"),
        "generation": fleet.serving_number(),
        "content": generations.configs[current.number].content if current else {},
        # Every generation there is, also one that boots, and one whose last requests are being answered.
        "generations": [
            {"generation": number, "content": config.content}
            for number, config in generations.configs.items()
            if number in present
        ],
        "workers": {
            "desired": fleet.desired,
            "ready": min(len(serving), fleet.desired),
            "busy": sum(1 for worker in serving if table.slot(worker.slot, "in_flight")),
        },
        "reload": dataclasses.asdict(last) if last else None,
        "reloading": any((fleet.running, fleet.finishing, fleet.queued)),
        "crash_loop": describe_crash_loop(fleet, now),
    }


def describe_crash_loop(fleet: Fleet, now: float) -> dict[str, Any] | None:
    """Return how many workers crashed in a row and how long the next one waits; None: all calm."""
    wait_s = fleet.fork_at - now
    if wait_s <= 0:
        return None
    return {"crashes": fleet.crashes, "wait_s": round(wait_s, 3)}
