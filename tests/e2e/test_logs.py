"""What pods and operator log can be read by a machine, line by line, and one request is found in all of it."""

from __future__ import annotations

import json
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.cluster import Cluster
from tests.e2e.conftest import AppMaker
from tests.support.kube import Kube
from tests.support.operator_release import NAMESPACE, OperatorRelease
from tests.support.wait import wait_until


def test_every_line_of_pods_and_operator_is_json(
    steady: AppMaker, cluster: Cluster, kube: Kube, namespace: str, operator: OperatorRelease
) -> None:
    app = steady(replicas=1, server={"workers": 2, "threads": 2, "hideQueryStrings": True})

    def ask(path: str, **fields: str) -> int:
        request = Request(cluster.ingress_url + path, headers={"Host": app.host, **fields})
        try:
            with urlopen(request, timeout=10) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code

    def read(*arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in kube.kubectl("logs", *arguments).splitlines()]

    assert ask("/?token=secret") == 200
    assert ask("/slow?token=secret", **{"X-Request-ID": "e2e-1"}) == 500
    pod = app.serving_pods()[0]
    lines: list[dict[str, Any]] = []
    traffic: list[dict[str, Any]] = []
    errors: list[dict[str, Any]] = []

    def are_there() -> bool:
        """Lines are written a moment after the answer, and go through the container runtime, each stream by itself."""
        lines[:] = read(pod, "-n", namespace, "--all-containers")
        traffic[:] = [line for line in lines if "status" in line]
        errors[:] = [line for line in lines if line.get("message") == "error while answering"]
        return len(traffic) >= 2 and len(errors) >= 1

    wait_until(are_there, what="a line is missing")
    assert [(line["target"], line["status"]) for line in traffic] == [("/", 200), ("/slow", 500)]
    assert traffic[0]["host"] == app.host
    # The ingress may set the id itself; then its own is the one that all lines share.
    assert [(e["target"], e["request_id"]) for e in errors] == [("/slow", traffic[1]["request_id"])]
    assert "KeyError" in errors[0]["traceback"]
    assert {"agent listening", "generation active"} <= {line.get("message") for line in lines}
    assert "secret" not in json.dumps(traffic + errors)
    ours = read(operator.wait_ready(), "-n", NAMESPACE)
    assert any(line["message"].startswith("operating") for line in ours)
