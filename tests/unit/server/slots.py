"""Slots of the stats table as workers of the test fill them."""

from prefork.base.stats import Life, Table


def occupy(table: Table, slot: int, *, life: Life = Life.SERVING, generation: int = 1) -> None:
    table.set_slot(slot, "worker_state", life.value)
    table.set_slot(slot, "slot_generation", generation)
