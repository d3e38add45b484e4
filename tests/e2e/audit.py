"""What the API server's audit log says that the operator has asked for; pure but for reading the log."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROLES = Path(__file__).parents[2] / "operator" / "controller" / "rbac.yaml"
DECISION = "authorization.k8s.io/decision"
CREATED = 201


class Right(NamedTuple):
    """What a request needs: a verb on a resource, such as `patch` on `wsgiapps/status` of `wsgi.dev`."""

    verb: str
    group: str
    resource: str


class Asked(NamedTuple):
    """A request: when it came, in RFC 3339, what it needed, and whether the roles allowed it."""

    at: str
    right: Right
    is_allowed: bool


def read_roles() -> set[Right]:
    """Return what the chart's roles allow."""
    return {
        Right(verb, group, resource)
        for role in yaml.safe_load_all(ROLES.read_text("utf-8"))
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def read_log(log: Path) -> Iterator[Asked]:
    """Yield the requests in the log and in the one before it, which the API server names by the time."""
    for file in (*sorted(log.parent.glob(f"{log.stem}-*{log.suffix}")), log):
        with file.open("rb") as lines:
            yield from parse(lines)


def parse(lines: Iterable[bytes]) -> Iterator[Asked]:
    for line in lines:
        if not line.endswith(b"\n"):
            return  # it is being written
        event = json.loads(line)
        if "objectRef" not in event or "resource" not in event["objectRef"]:
            continue  # /version, which everybody may ask for
        yield from read_event(event)


def read_event(event: Mapping[str, Any]) -> Iterator[Asked]:
    """Yield what one request needed: server-side apply needs `create` besides where it has created the object."""
    named = event["objectRef"]
    resource = "/".join(filter(None, (named["resource"], named.get("subresource"))))
    right = Right(event["verb"], named.get("apiGroup", ""), resource)
    is_allowed = event.get("annotations", {}).get(DECISION) == "allow"
    yield Asked(event["requestReceivedTimestamp"], right, is_allowed)
    if event["verb"] == "patch" and event.get("responseStatus", {}).get("code") == CREATED:
        yield Asked(event["requestReceivedTimestamp"], right._replace(verb="create"), is_allowed)
