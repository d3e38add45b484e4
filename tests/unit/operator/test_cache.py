"""The cache keeps the newest of everything, digests instead of contents, and forgets in time."""

import json
import tracemalloc
from typing import Any

from wsgiapp.types import Manifest
from wsgiapp_operator.cache import AppKey, Cache, key_of

from tests.unit.operator.samples import CODE

SHOP = AppKey("web", "shop")


def make(kind: str, name: str, version: int, **content: Any) -> Manifest:
    labels = {"wsgi.dev/app": "shop"}
    metadata = {
        "name": name, "namespace": "web", "uid": f"uid-{name}", "resourceVersion": str(version),
        "labels": labels,
    }  # fmt: skip
    return {"kind": kind, "metadata": metadata, **content}


def test_own_write_is_no_news_when_the_watch_brings_it() -> None:
    cache = Cache()
    assert cache.put(make("Service", "shop", 5)) == {SHOP}
    assert cache.put(make("Service", "shop", 5)) == set()
    assert cache.put(make("Service", "shop", 6)) == {SHOP}


def test_older_state_never_replaces_a_newer_one() -> None:
    cache = Cache()
    cache.put(make("Service", "shop", 7, spec={"a": 7}))
    assert cache.put(make("Service", "shop", 6, spec={"a": 6})) == set()
    found = cache.get("Service", "web", "shop")
    assert found is not None
    assert found["spec"] == {"a": 7}


def test_answer_to_a_write_after_the_deletion_does_not_bring_the_object_back() -> None:
    cache = Cache()
    cache.put(make("Pod", "p", 5))
    assert cache.forget(make("Pod", "p", 9)) == {SHOP}
    assert cache.put(make("Pod", "p", 8)) == set()
    assert cache.get("Pod", "web", "p") is None


def test_late_word_of_an_older_deletion_leaves_the_namesake() -> None:
    cache = Cache()
    cache.put(make("Service", "shop", 9))
    cache.forget(make("Service", "shop", 8))
    assert cache.get("Service", "web", "shop") is not None


def test_listing_drops_what_went_unseen_and_spares_what_is_newer() -> None:
    cache = Cache()
    for name, version in (("gone", 1), ("there", 2)):
        cache.put(make("Pod", name, version))
    before = cache.newest_version()
    cache.put(make("Pod", "made-meanwhile", 3))
    assert cache.keep_only("Pod", [key_of(make("Pod", "there", 2))], before) == {SHOP}
    assert [pod["metadata"]["name"] for pod in cache.pods(SHOP)] == ["made-meanwhile", "there"]


def test_what_nobody_reads_is_not_kept() -> None:
    cache = Cache()
    pod = make("Pod", "p", 1)
    pod["metadata"]["managedFields"] = [{"manager": "kubelet"}]
    pod["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": "{}",
        "a": "b",
    }
    cache.put(pod)
    metadata = cache.pods(SHOP)[0]["metadata"]
    assert "managedFields" not in metadata
    assert metadata["annotations"] == {"a": "b"}


def test_objects_of_a_kind_come_back_as_they_were_and_what_they_have_alike_is_kept_once() -> None:
    cache, alike = Cache(), {"spec": {f"field-{n}": f"{n * 7919:x}" for n in range(300)}}
    pods = [
        make("Pod", f"p-{n:03}", n + 1, **alike, status={"podIP": f"10.0.0.{n}"}) for n in range(99)
    ]
    early = [make("Pod", f"p-{n:03}", 0) for n in range(9)]  # without what makes the others alike
    tracemalloc.start()
    for pod in (*early, *pods):
        cache.put(pod)
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert cache.pods(SHOP) == pods
    assert kept_bytes / len(pods) < len(json.dumps(pods[1])) / 5


def test_object_that_is_longer_than_what_a_sample_may_be_comes_back_too() -> None:
    cache = Cache()
    pods = [make("Pod", f"p{n}", n, spec={"text": str(n) * n * 20_000}) for n in range(1, 4)]
    for pod in pods:
        cache.put(pod)
    assert cache.pods(SHOP) == pods


def test_content_is_noted_only_for_those_who_mount_it() -> None:
    cache = Cache()
    content = make("ConfigMap", CODE.name, 3, data={"app.py": "x"})
    assert cache.record_content(content) == set()
    cache.refer(SHOP, [CODE])
    assert cache.digest("web", CODE) is None
    assert cache.record_content(content) == {SHOP}


def test_change_without_a_change_of_content_is_known_by_its_version() -> None:
    cache = Cache()
    cache.refer(SHOP, [CODE])
    cache.record_content(make("ConfigMap", CODE.name, 3, data={"app.py": "x"}))
    assert cache.record_content(make("ConfigMap", CODE.name, 3, data={"app.py": "x"})) == set()
    assert cache.record_content(make("ConfigMap", CODE.name, 2, data={"app.py": "y"})) == set()
    before = cache.digest("web", CODE)
    assert cache.record_content(make("ConfigMap", CODE.name, 4, data={"app.py": "x"})) == {SHOP}
    after = cache.digest("web", CODE)
    assert before is not None
    assert after is not None
    assert before.digest == after.digest


def test_deleted_content_is_known_as_missing() -> None:
    cache = Cache()
    cache.refer(SHOP, [CODE])
    cache.record_content(make("ConfigMap", CODE.name, 3, data={}))
    assert cache.record_content(make("ConfigMap", CODE.name, 4, data={}), deleted=True) == {SHOP}
    seen = cache.digest("web", CODE)
    assert seen is not None
    assert seen.digest is None


def test_digest_goes_with_its_last_user() -> None:
    cache = Cache()
    other = AppKey("web", "other")
    for app in (SHOP, other):
        cache.refer(app, [CODE])
    cache.record_content(make("ConfigMap", CODE.name, 3, data={}))
    cache.refer(SHOP, [])
    assert cache.digest("web", CODE) is not None
    cache.refer(other, [])
    assert cache.digest("web", CODE) is None


def pod_of(app: str, version: int) -> Manifest:
    pod = make("Pod", "p", version)
    pod["metadata"]["labels"]["wsgi.dev/app"] = app
    return pod


def test_relabelled_pod_moves_to_its_new_app_and_both_are_looked_at() -> None:
    cache = Cache()
    other = AppKey("web", "quarantine")
    cache.put(pod_of("shop", 1))
    assert cache.put(pod_of("quarantine", 2)) == {SHOP, other}
    assert cache.pods(SHOP) == []
    assert len(cache.pods(other)) == 1
    assert cache.forget(pod_of("quarantine", 3)) == {other}
    assert cache.pods(SHOP) == []
    assert cache.pods(other) == []


def test_pod_without_its_label_is_dropped_from_its_app_and_may_come_back() -> None:
    cache = Cache()
    cache.put(pod_of("shop", 1))
    bare = make("Pod", "p", 2)
    bare["metadata"]["labels"] = {}
    assert cache.put(bare) == {SHOP}
    assert cache.pods(SHOP) == []
    cache.forget(bare)
    assert cache.put(pod_of("shop", 3)) == {SHOP}


def test_forgetting_a_deleted_app_leaves_the_namesake_that_was_made_meanwhile() -> None:
    cache = Cache()
    for uid, version in (("first", 1), ("second", 2)):
        app = make("WsgiApp", "shop", version)
        app["metadata"]["uid"] = uid
        cache.put(app)
    assert not cache.forget_app(SHOP, "first")
    assert cache.apps() == [SHOP]
    assert cache.forget_app(SHOP, "second")
    assert cache.apps() == []


def test_late_word_of_the_namesake_s_deletion_leaves_the_new_object_whatever_the_versions() -> None:
    cache = Cache()
    for uid, version in (("first", 5), ("second", 9)):
        service = make("Service", "shop", version)
        service["metadata"]["uid"] = uid
        cache.put(service)
    gone = make("Service", "shop", 10)
    gone["metadata"]["uid"] = "first"
    assert cache.forget(gone) == set()
    assert cache.get("Service", "web", "shop") is not None


def test_content_made_while_its_absence_was_asked_for_is_there() -> None:
    cache = Cache()
    cache.refer(SHOP, [CODE])
    cache.record_content(make("ConfigMap", CODE.name, 3, data={"app.py": "x"}))
    cache.record_missing("web", CODE)
    seen = cache.digest("web", CODE)
    assert seen is not None
    assert seen.digest is not None


def test_listing_wins_over_a_newer_version_of_a_history_that_was_rolled_back() -> None:
    cache = Cache()
    cache.put(make("Service", "shop", 900, spec={"a": 1}))
    restored = make("Service", "shop", 90, spec={"a": 2})
    assert cache.put(restored) == set()
    assert cache.put(restored, listed_after=cache.newest_version()) == {SHOP}
    found = cache.get("Service", "web", "shop")
    assert found is not None
    assert found["spec"] == {"a": 2}


def test_listing_brings_back_what_had_been_deleted_in_a_history_that_was_rolled_back() -> None:
    cache = Cache()
    old = make("Service", "shop", 90)
    cache.put(old)
    before_the_deletion = cache.newest_version()
    cache.forget(make("Service", "shop", 900))
    assert cache.put(old) == set()
    assert cache.put(old, listed_after=before_the_deletion) == set()
    assert cache.put(old, listed_after=cache.newest_version()) == {SHOP}
    assert cache.put(make("Service", "shop", 91)) == {SHOP}


def test_listing_never_replaces_what_was_written_while_it_ran() -> None:
    cache = Cache()
    cache.put(make("Service", "shop", 5))
    before = cache.newest_version()
    cache.put(make("Service", "shop", 7))
    assert cache.put(make("Service", "shop", 6), listed_after=before) == set()
