"""Which Events a change of status is worth: reloads, issues that begin or end, an upgrade that stops. Pure."""

from typing import Any, NamedTuple

from wsgiapp.types import Manifest

from wsgiapp_operator.state import NO_CLASS, UPGRADE_FAILED

# Reasons of Ready=False that are a normal step on the way, not news.
ON_THE_WAY = frozenset(
    {"RollingOut", "Reloading", "Starting", "NotReady", "MinimumReplicasUnavailable"}
)
# By condition: reasons that Ready does not have.
WARNINGS = (("UpToDate", UPGRADE_FAILED), ("Routed", NO_CLASS))


class Event(NamedTuple):
    type: str  # Normal or Warning
    reason: str
    message: str


def choose_events(before: Manifest, after: Manifest) -> list[Event]:
    """Return the Events for going from one status to the next."""
    events = [*choose_reload_events(before, after), *choose_warnings(before, after)]
    old, new = find(before, "Ready"), find(after, "Ready")
    is_new = (old.get("reason"), old.get("message")) != (new.get("reason"), new.get("message"))
    is_trouble = new.get("status") == "False" and new["reason"] not in ON_THE_WAY
    if is_new and is_trouble and new["reason"] != "ReloadFailed":
        events.append(Event("Warning", new["reason"], new["message"]))
    # After a reload its own end says it.
    is_told = any(event.reason == "ReloadFinished" for event in events)
    if new.get("status") == "True" and old.get("status") != "True" and not is_told:
        events.append(Event("Normal", new["reason"], new["message"]))
    return events


def choose_reload_events(before: Manifest, after: Manifest) -> list[Event]:
    old, new = find(before, "Reloaded"), find(after, "Reloaded")
    old_hash = before.get("reload", {}).get("hash")
    new_hash = after.get("reload", {}).get("hash")
    is_same = old.get("reason") == new.get("reason") and old_hash == new_hash
    if is_same or not old:
        return []
    # A reload of the same content that goes on is seen anew by an operator that has just started.
    is_resumed = old_hash == new_hash and old.get("reason") == "ContentLoaded"
    if new.get("reason") == "Reloading" and not is_resumed:
        return [Event("Normal", "ReloadStarted", f"bringing content {new_hash} to the pods")]
    if new.get("reason") == "ReloadFailed":
        return [Event("Warning", "ReloadFailed", new["message"])]
    if new.get("reason") == "ContentLoaded" and old.get("reason") in ("Reloading", "ReloadFailed"):
        return [Event("Normal", "ReloadFinished", f"content {new_hash}: {new['message']}")]
    return []


def choose_warnings(before: Manifest, after: Manifest) -> list[Event]:
    """Return the Events about what keeps an app from nothing that Ready is about, once each."""
    return [
        Event("Warning", reason, find(after, kind)["message"])
        for kind, reason in WARNINGS
        if find(after, kind).get("reason") == reason != find(before, kind).get("reason")
    ]


def find(status: Manifest, kind: str) -> dict[str, Any]:
    for condition in status.get("conditions", ()):
        if condition["type"] == kind:
            return dict(condition)
    return {}
