"""How a new generation takes over, by the memory that is free."""

import pytest
from prefork.arbiter.headroom import MIB, Footprint, NoRoomError, plan_surge
from prefork.config.capacity import MemoryUse

# 10 MiB of import and four workers of 20: 90 MiB.
NEED = Footprint(10 * MIB, (20 * MIB,) * 4)


def use(*, free_mib: int) -> MemoryUse:
    """Return 1000 MiB, of which 30 are the margin."""
    return MemoryUse(limit=1000 * MIB, used=(970 - free_mib) * MIB)


@pytest.mark.parametrize(("free_mib", "surge"), [(90, None), (89, 1), (30, 1), (29, 0), (10, 0)])
def test_as_much_of_a_new_generation_is_there_at_once_as_fits(free_mib: int, surge: int | None):
    assert plan_surge(use(free_mib=free_mib), NEED, workers=4) == surge


def test_without_a_limit_the_whole_generation_is_there_at_once():
    assert plan_surge(None, NEED, workers=4) is None


@pytest.mark.parametrize(("free_mib", "workers", "needed"), [(9, 4, 10), (29, 1, 30), (-40, 4, 10)])
def test_what_does_not_fit_is_refused_with_the_figures(free_mib: int, workers: int, needed: int):
    need = Footprint(10 * MIB, (20 * MIB,) * workers)
    with pytest.raises(NoRoomError) as refused:
        plan_surge(use(free_mib=free_mib), need, workers=workers)
    # A single worker needs its room beside the old one.
    assert refused.value.import_size // MIB == free_mib - (20 if workers == 1 else 0)
    assert f"needs {needed} MiB" in str(refused.value)
    assert f"{max(0, free_mib)} MiB of the limit of 1000 MiB are free" in str(refused.value)
    assert "raise the limit" in str(refused.value)
