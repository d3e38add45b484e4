"""What the arbiter does next: (fleet, event, now) → (fleet, actions). Pure.

An event changes single facts (`transitions`); `reconcile` then compares what is wanted with what
there is and adds the actions that bring them together. Times are seconds of the monotonic clock.

A reload in these terms: a new generation is `booting`; when all its workers are ready it becomes
`current`; workers of an older generation are then `leaving`, and a leaving worker is drained as
soon as the serving workers are more than wanted. Recycling is the same with a single worker.
"""

from prefork.arbiter.actions import Step
from prefork.arbiter.events import Event
from prefork.arbiter.fleet import Fleet
from prefork.arbiter.reconcile import reconcile
from prefork.arbiter.transitions import HANDLERS


def step(fleet: Fleet, event: Event, now: float) -> Step:
    """Return the fleet after `event`, and what to do about it."""
    fleet, first = HANDLERS[type(event)](fleet, event, now)
    fleet, second = reconcile(fleet, now)
    return fleet, (*first, *second)


def next_deadline(fleet: Fleet, now: float) -> float | None:
    """Return when `Tick` is due at the latest, None when only other events matter.

    What was due until `now` has been acted on by the step before; if it could not be (no slot, no
    mold), another event will make it possible, and asking again at once would be a busy loop.
    """
    times = [fleet.fork_at, fleet.next_drain_at]
    times += [worker.deadline for worker in fleet.workers.values() if worker.deadline is not None]
    for generation in (fleet.current, fleet.booting):
        if generation is not None:
            times += [
                generation.health.due,
                generation.mold.retry_at,
                generation.mold.started + generation.policy.boot_timeout,
            ]
    return min((time for time in times if time > now), default=None)
