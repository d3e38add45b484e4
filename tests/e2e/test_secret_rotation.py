"""A Secret that is rotated all the time loses no request, ends with its last value, and piles nothing up."""

from __future__ import annotations

import time

import pytest

from tests.e2e import steady_app
from tests.e2e.conftest import AppMaker, LoadMaker
from tests.support.kube import Kube
from tests.support.wait import NotYetError, wait_until
from tests.support.wsgi_app import WsgiApp

EVERY_S, TIMES = 2.0, 30
_COUNT = """
import pathlib
print(len([each for each in pathlib.Path("/content/settings").iterdir() if each.name != "live"]))
"""


def count_versions(app: WsgiApp, pod: str) -> int:
    """Return how many versions of the Secret a pod holds."""
    inside = ("exec", "-n", app.namespace, pod, "-c", "agent", "--")
    return int(app.kube.kubectl(*inside, "python3", "-c", _COUNT))


@pytest.mark.full
def test_secret_rotated_every_two_seconds_for_a_minute(
    steady: AppMaker, under_load: LoadMaker, kube: Kube, namespace: str
) -> None:
    app = steady(version="1", secret="start")
    pods = app.serving_pods()
    most = 0
    with under_load(app, "Secret rotated every 2 s for a minute") as load:
        began = time.monotonic()
        for number in range(TIMES):
            kube.apply(steady_app.build_secret(f"value-{number}"), namespace=namespace)
            if number % 5 == 0:
                most = max(most, *(count_versions(app, pod) for pod in pods))
            time.sleep(max(0.0, began + EVERY_S * (number + 1) - time.monotonic()))
        last = f"1/value-{TIMES - 1}"

        def all_serve_the_last() -> bool:
            seen = {pod: app.fetch(pod, "/version")[1] for pod in app.serving_pods()}
            if set(seen) != set(pods) or set(seen.values()) != {last}:
                raise NotYetError(str(seen))
            return True

        wait_until(all_serve_the_last, within_s=90, what=f"{last} in every pod")
        app.wait_condition("Reloaded", "True", within_s=30)
        report = load.finish(in_place=True)
    assert list(report.versions)[-1] == last
    assert most <= 3, "what serves, what is tried, and what has just come"
    print(f"at most {most} versions at a time")
    wait_until(
        lambda: all(count_versions(app, pod) == 1 for pod in pods),
        within_s=30,
        what="one version of the Secret in each pod",
    )
    assert app.serving_pods() == pods
