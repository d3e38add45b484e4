"""An unknown field is answered with the one that was probably meant."""

from __future__ import annotations

from typing import Any

import pytest
from wsgiapp.schema import find_spec_faults

MEANT = [
    # gunicorn's settings and options
    ({"server": {"max_requests": 5}}, "spec.server.maxRequests"),
    ({"server": {"worker-class": "gthread"}}, "spec.server.workerClass"),
    ({"server": {"keepalive": 5}}, "spec.server.keepAliveSeconds"),
    ({"server": {"graceful_timeout": 5}}, "spec.server.gracefulTimeoutSeconds"),
    (
        {"server": {"timeout": 30}},
        "spec.server.requestTimeoutSeconds or spec.server.gracefulTimeoutSeconds",
    ),
    # a typo
    ({"server": {"worker": 2}}, "spec.server.workers"),
    ({"replica": 2}, "spec.replicas"),
    ({"healthcheck": {}}, "spec.healthCheck"),
    # elsewhere in the spec, or in the pod
    ({"workers": 2}, "spec.server.workers"),
    ({"hosts": []}, "spec.ingress.hosts"),
    ({"rollout": {"drainDelaySeconds": 1}}, "spec.termination.drainDelaySeconds"),
    ({"nodeSelector": {}}, "spec.podTemplate.spec.nodeSelector"),
    ({"serviceAccountName": "x"}, "spec.podTemplate.spec.serviceAccountName"),
]
NOTHING_LIKE_IT = [
    ({"command": []}, "spec has image, "),
    ({"server": {"bind": ":8000"}}, "spec.server has workers, "),
    ({"reload": {"x": 1}}, "spec.reload has maxConcurrent or timeoutSeconds"),
]


def fault_of(part: dict[str, Any]) -> str:
    (fault,) = find_spec_faults({"image": "i", "app": "shop:app"} | part)
    return fault.reason


@pytest.mark.parametrize(("part", "meant"), MEANT, ids=lambda each: str(each)[:40])
def test_field_that_was_meant_is_named(part: dict[str, Any], meant: str) -> None:
    assert fault_of(part) == f"is unknown; did you mean {meant}?"


@pytest.mark.parametrize(("part", "known"), NOTHING_LIKE_IT, ids=lambda each: str(each)[:40])
def test_without_a_guess_the_known_fields_are_named(part: dict[str, Any], known: str) -> None:
    assert fault_of(part).startswith(f"is unknown; {known}")
