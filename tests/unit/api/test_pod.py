"""What the pod's parts may do to each other."""

from dataclasses import replace
from typing import Any

from wsgiapp.resources.pod import build_pod

from tests.unit.operator.samples import PLATFORM, make_app


def containers(**spec: Any) -> dict[str, Any]:
    pod = build_pod(make_app(**spec), PLATFORM)
    return {each["name"]: each for each in (*pod["initContainers"], *pod["containers"])}


def seconds_until_restart(probe: dict[str, Any]) -> int:
    """Return the longest time from the hang of what the probe asks to the container's end."""
    grace_s = probe.get("terminationGracePeriodSeconds", 0)
    return int(
        probe["periodSeconds"] * probe["failureThreshold"] + probe["timeoutSeconds"] + grace_s
    )


def test_hung_agent_is_restarted_long_before_its_app_would_be() -> None:
    named = containers()
    agent_s = seconds_until_restart(named["agent"]["livenessProbe"])
    app = named["app"]["livenessProbe"]
    assert agent_s + 20 < app["periodSeconds"] * app["failureThreshold"]


def test_agent_of_a_crashing_server_is_not_restarted_for_it() -> None:
    assert containers()["agent"]["livenessProbe"]["httpGet"]["path"] != "/livez"


def test_pull_secrets_of_the_installation_are_added_to_the_app_s_own() -> None:
    platform = replace(PLATFORM, prefork_pull_secrets=("mirror", "own"))
    app = make_app(imagePullSecrets=[{"name": "own"}])
    assert build_pod(app, platform)["imagePullSecrets"] == [{"name": "own"}, {"name": "mirror"}]
    assert "imagePullSecrets" not in build_pod(make_app(), PLATFORM)
