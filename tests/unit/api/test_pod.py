"""What the pod's parts may do to each other."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from wsgiapp.resources.pod import build_pod

from tests.unit.operator.samples import PLATFORM, make_app

GOLDEN = Path(__file__).parents[2] / "golden" / "wsgiapps"


def containers(**spec: Any) -> dict[str, Any]:
    pod = build_pod(make_app(**spec), PLATFORM, "revision")
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
    assert build_pod(app, platform, "revision")["imagePullSecrets"] == [
        {"name": "own"},
        {"name": "mirror"},
    ]
    assert "imagePullSecrets" not in build_pod(make_app(), PLATFORM, "revision")


@pytest.mark.parametrize(
    ("ingress", "path", "host"),
    [
        (None, "/healthz", "127.0.0.1:8000"),
        ({"hosts": ["*.example.com"], "path": "/shop"}, "/shop/healthz", "probe.example.com"),
    ],
)
def test_server_and_agent_ask_the_app_the_same_question(
    ingress: dict[str, Any] | None, path: str, host: str
) -> None:
    named = containers(ingress=ingress, healthCheck={"path": "/healthz"})
    assert f"--health-path={path}" in named["app"]["args"]
    assert f"--health-host={host}" in named["app"]["args"]
    assert f"--probe=http://127.0.0.1:8000{path}" in named["agent"]["args"]
    assert (f"--probe-host={host}" in named["agent"]["args"]) == (ingress is not None)
    assert not any("--health" in argument for argument in containers()["app"]["args"])


def test_server_understands_the_arguments_that_it_is_given(tmp_path: Path) -> None:
    everything = yaml.safe_load((GOLDEN / "every-field.yaml").read_text("utf-8"))["spec"]
    arguments = containers(**everything)["app"]["args"]
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "gunicorn.conf.py").write_text("threads = 2\n")
    command = [sys.executable, "-m", "prefork", "--check-config", *arguments]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    # The options are taken, and the app is looked for: there is none.
    assert "No module named 'shop'" in checked.stderr
    assert 'settings read source="config file deploy/gunicorn.conf.py"' in checked.stderr
    assert checked.returncode == 3, checked.stderr


def test_ids_are_left_to_a_cluster_that_assigns_them() -> None:
    platform = replace(PLATFORM, pod_id=None)
    security = build_pod(make_app(), platform, "revision")["securityContext"]
    assert security == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    named = build_pod(make_app(securityContext={"fsGroup": 2000}), platform, "revision")[
        "securityContext"
    ]
    assert named["fsGroup"] == 2000
    assert "runAsUser" not in named


def test_user_of_the_pod_has_a_name_without_an_entry_in_passwd() -> None:
    """`getpass.getuser()` raises without one."""
    env = {each["name"]: each["value"] for each in containers()["app"]["env"]}
    code = "import getpass; print(getpass.getuser())"
    shown = subprocess.run(
        ["unshare", "--user", "--map-user=54321", sys.executable, "-c", code],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "unshare" in shown.stderr:
        pytest.skip("no user namespaces here")
    assert shown.stdout.strip() == "app", shown.stderr


# What every version of server and agent knows, from 0.1.0 on (docs/contracts.md §5): an image that an app pins may be
# as old, and does not start with an argument that it does not know.
AGENT_OPTIONS = {
    "listen", "run-dir", "reload-file", "content", "last-good", "versions", "revision", "probe", "probe-host",
}  # fmt: skip
SERVER_OPTIONS = {
    "bind", "run-dir", "config", "workers", "threads", "timeout", "graceful-timeout", "keep-alive", "boot-timeout",
    "max-request-body", "log-format", "access-logfile", "health-path", "health-host", "content", "script-name",
    "forwarded-allow-ips",
}  # fmt: skip


def test_arguments_are_those_that_every_version_knows() -> None:
    secret = {"name": "db", "secret": {"name": "db"}, "mountPath": "/etc/db"}
    ingress = {"hosts": ["shop.example.com"], "path": "/shop"}
    app = make_app(config=[secret], ingress=ingress, healthCheck={"path": "/healthz"})
    pod = build_pod(app, PLATFORM, "r")
    (agent,), (server,) = pod["initContainers"], pod["containers"]
    assert option_names(agent["args"]) <= AGENT_OPTIONS
    assert option_names(server["args"]) <= SERVER_OPTIONS
    (given,) = agent["env"]
    assert json.loads(given["value"]) == {
        "digest-key": "/digest-key/key",
        "log-format": "json",
        "secret": ["db"],
    }


def option_names(arguments: list[str]) -> set[str]:
    return {text.removeprefix("--").partition("=")[0] for text in arguments if text[:2] == "--"}


def test_server_and_agent_listen_where_an_ipv6_cluster_asks_them() -> None:
    pod = build_pod(make_app(), replace(PLATFORM, any_address="[::]"), "r")
    (app,), (agent,) = pod["containers"], pod["initContainers"]
    assert "--bind=[::]:8000" in app["args"]
    assert "--listen=[::]:9000" in agent["args"]
