"""An Event that repeats is counted up, not posted again, and one that cannot be posted holds up nothing."""

from typing import Any

import aiohttp
import pytest
from wsgiapp_operator.apply import Writer
from wsgiapp_operator.cache import Cache
from wsgiapp_operator.client import ApiError
from wsgiapp_operator.events import Event
from wsgiapp_operator.metrics import Metrics

from tests.unit.operator.fake_cluster import FakeCluster
from tests.unit.operator.samples import NOW, make_manifest

SERVING = Event("Normal", "Serving", "3 of 3 pods are up to date and ready")


async def test_event_that_repeats_is_counted_up_as_long_as_it_is_there() -> None:
    cluster = FakeCluster()
    writer = Writer(cluster, Cache(), Metrics())  # type: ignore[arg-type]  # a fake
    app = cluster.put(make_manifest())
    for _ in range(3):
        await writer.post_event(app, SERVING, NOW)
    await writer.post_event(app, SERVING._replace(message="2 of 2 pods"), NOW)
    events = [each for (kind, *_), each in cluster.objects.items() if kind == "Event"]
    assert [each["count"] for each in events] == [3, 1]

    cluster.remove("Event", "web", events[0]["metadata"]["name"])
    await writer.post_event(app, SERVING, NOW)
    events = [each for (kind, *_), each in cluster.objects.items() if kind == "Event"]
    assert [each["count"] for each in events] == [1, 1]


@pytest.mark.parametrize(
    "error", [ApiError(403, "forbidden"), TimeoutError(), aiohttp.ServerDisconnectedError()]
)
async def test_event_that_cannot_be_posted_or_counted_holds_up_nothing(error: Exception) -> None:
    """What it is about is in the status already, and would be taken for no news at the next look."""
    cluster: Any = FakeCluster()
    writer = Writer(cluster, Cache(), Metrics())
    app = cluster.put(make_manifest())
    await writer.post_event(app, SERVING, NOW)
    cluster.refusals["Event"] = error
    await writer.post_event(app, SERVING, NOW)
    assert cluster.refusals.pop("Event") is error
    await writer.post_event(app, SERVING, NOW)
    events = [each for (kind, *_), each in cluster.objects.items() if kind == "Event"]
    assert [each["count"] for each in events] == [1, 1]
