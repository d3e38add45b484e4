"""What values may be."""

import pytest
from prefork.base.stats import BOUNDS_MAX
from prefork.config.kinds import bounds
from prefork.config.options import DURATION_BUCKETS, DURATION_BUCKETS_MAX


def test_bounds_are_read_from_text_and_from_a_list() -> None:
    kind = bounds(3)
    assert kind.parse("0.05, 0.3,1") == kind.parse([0.05, "0.3", 1]) == (0.05, 0.3, 1.0)
    assert kind.parse("3600") == (3600.0,)
    assert kind.parse("0.000001") == (0.000001,)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "1,1",
        "2,1",
        "0",
        "-1",
        "x",
        "nan",
        "3601",
        "0.0000014,0.0000011",
        "1,1.0000001",
        "1,2,3,4",
        [],
        None,
        3,
        [None],
    ],
)
def test_bounds_that_cannot_be_are_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        bounds(3).parse(value)


def test_the_stats_table_has_room_for_all_bounds() -> None:
    assert len(DURATION_BUCKETS) <= DURATION_BUCKETS_MAX == BOUNDS_MAX
