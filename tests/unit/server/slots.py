"""Slots of the stats table as workers of the test fill them."""

from prefork.base.stats import Table, WorkerState


def occupy(
    table: Table, slot: int, *, state: WorkerState = WorkerState.SERVING, generation: int = 1
) -> None:
    table.set_slot(slot, "worker_state", state.value)
    table.set_slot(slot, "slot_generation", generation)
