"""Events tell of what began or ended, once."""

from typing import Any

from wsgiapp.types import Manifest
from wsgiapp_operator.events import choose_events


def status(
    ready: tuple[str, str], reloaded: tuple[str, str], content: str = "h1", message: str = "m"
) -> Manifest:
    def condition(kind: str, state: tuple[str, str]) -> dict[str, Any]:
        return {"type": kind, "status": state[0], "reason": state[1], "message": message}

    return {
        "conditions": [condition("Ready", ready), condition("Reloaded", reloaded)],
        "reload": {"hash": content},
    }


SERVING = status(("True", "Serving"), ("True", "ContentLoaded"))
RELOADING = status(("False", "Reloading"), ("Unknown", "Reloading"), "h2")
LOADED = status(("True", "Serving"), ("True", "ContentLoaded"), "h2")
FAILED = status(("False", "ReloadFailed"), ("False", "ReloadFailed"), "h2")


def reasons(before: Manifest, after: Manifest) -> list[tuple[str, str]]:
    return [(event.type, event.reason) for event in choose_events(before, after)]


def test_reload_has_a_start_and_an_end() -> None:
    assert reasons(SERVING, RELOADING) == [("Normal", "ReloadStarted")]
    assert reasons(RELOADING, LOADED) == [("Normal", "ReloadFinished")]


def test_failed_reload_is_a_warning_once() -> None:
    assert reasons(RELOADING, FAILED) == [("Warning", "ReloadFailed")]
    assert reasons(FAILED, FAILED) == []


def test_fix_after_a_failure_is_a_new_reload() -> None:
    fixing = status(("False", "Reloading"), ("Unknown", "Reloading"), "h3")
    assert reasons(FAILED, fixing) == [("Normal", "ReloadStarted")]


def test_trouble_is_told_once_for_each_message() -> None:
    broken = status(("False", "AppCrashed"), ("Unknown", "Starting"))
    assert reasons(SERVING, broken) == [("Warning", "AppCrashed")]
    assert reasons(broken, broken) == []


def test_normal_steps_of_a_rollout_are_no_news() -> None:
    rolling = status(("False", "RollingOut"), ("Unknown", "Starting"))
    assert reasons({}, rolling) == []
    assert reasons(rolling, SERVING) == [("Normal", "Serving")]


def test_app_at_which_an_upgrade_stops_is_a_warning_once() -> None:
    def behind(reason: str, message: str = "m") -> Manifest:
        upgrade = {"type": "UpToDate", "status": "False", "reason": reason, "message": message}
        return {**SERVING, "conditions": [*SERVING["conditions"], upgrade]}

    assert reasons(SERVING, behind("UpgradeFailed")) == [("Warning", "UpgradeFailed")]
    assert reasons(behind("UpgradeFailed"), behind("UpgradeFailed", "another pod")) == []
    assert reasons(SERVING, behind("UpgradeStopped")) == []
