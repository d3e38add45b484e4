"""An Event that repeats is counted up, not posted again."""

from wsgiapp_operator.apply import Writer
from wsgiapp_operator.cache import Cache
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
