"""What an audit log says that was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.audit import Asked, Right, parse, read_log, read_roles

AT = "2026-11-26T04:00:00.000000Z"


def event(verb: str, code: int = 200, decision: str = "allow", **named: str) -> dict[str, Any]:
    return {
        "verb": verb, "requestReceivedTimestamp": AT, "objectRef": named, "responseStatus": {"code": code},
        "annotations": {"authorization.k8s.io/decision": decision},
    }  # fmt: skip


def lines(*events: dict[str, Any]) -> list[bytes]:
    return [json.dumps(each).encode() + b"\n" for each in events]


STATUS = {"apiGroup": "wsgi.dev", "resource": "wsgiapps", "subresource": "status"}


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (event("list", resource="pods"), [Asked(AT, Right("list", "", "pods"), True)]),
        (event("list", 403, "forbid", resource="nodes"), [Asked(AT, Right("list", "", "nodes"), False)]),
        # Refused by a policy, not by a role.
        (event("patch", 403, resource="pods"), [Asked(AT, Right("patch", "", "pods"), True)]),
        (event("patch", **STATUS), [Asked(AT, Right("patch", "wsgi.dev", "wsgiapps/status"), True)]),
        (
            event("patch", 201, resource="services"),
            [Asked(AT, Right(verb, "", "services"), True) for verb in ("patch", "create")],
        ),
        ({"verb": "get", "requestURI": "/version"}, []),
    ],
)  # fmt: skip
def test_request_needs_its_verb_and_apply_that_creates_needs_two(
    given: dict[str, Any], asked: list[Asked]
) -> None:
    assert list(parse(lines(given))) == asked


def test_line_that_is_being_written_is_left_out() -> None:
    whole = lines(event("get", resource="secrets"))[0]
    assert len(list(parse([whole, whole[:40]]))) == 1


def test_log_of_before_a_rotation_counts_too(tmp_path: Path) -> None:
    log = tmp_path / "audit.log"
    log.write_bytes(b"".join(lines(event("get", resource="secrets"))))
    (tmp_path / "audit-2026-11-26T03-00-00.000.log").write_bytes(
        b"".join(lines(event("list", resource="pods")))
    )
    assert [each.right.resource for each in read_log(log)] == ["pods", "secrets"]


def test_roles_are_compared_right_by_right() -> None:
    assert {
        Right("patch", "wsgi.dev", "wsgiapps/status"),
        Right("update", "coordination.k8s.io", "leases"),
    } <= read_roles()
