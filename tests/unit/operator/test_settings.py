"""Settings come from flags or environment; a wrong one is refused with what is allowed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from wsgiapp_operator.settings import read_settings

ROOT = Path(__file__).resolve().parents[3]


def test_flag_wins_over_its_variable() -> None:
    environ = {
        "WSGIAPP_OPERATOR_NAMESPACES": "a,b",
        "WSGIAPP_OPERATOR_PREFORK_IMAGE": "mirror/prefork:1",
    }
    settings = read_settings(["--namespaces", "c"], environ)
    assert settings.namespaces == ("c",)
    assert settings.prefork_image == "mirror/prefork:1"


def test_empty_variable_is_none() -> None:
    settings = read_settings([], {"WSGIAPP_OPERATOR_NAMESPACES": "", "WSGIAPP_OPERATOR_LISTEN": ""})
    assert settings.namespaces == ()
    assert settings.listen == "0.0.0.0:8080"


@pytest.mark.parametrize(
    ("host", "expected"), [("10.96.0.1", "0.0.0.0"), ("fd00:10:96::1", "[::]"), (None, "0.0.0.0")]
)
def test_addresses_are_of_the_family_that_the_cluster_has_first(
    host: str | None, expected: str
) -> None:
    settings = read_settings([], {} if host is None else {"KUBERNETES_SERVICE_HOST": host})
    assert (settings.listen, settings.any_address) == (f"{expected}:8080", expected)


def test_namespaces_are_separated_by_commas() -> None:
    assert read_settings(["--namespaces", "a, b,"], {}).namespaces == ("a", "b")


@pytest.mark.parametrize("listen", ["8080", ":8080", "0.0.0.0:http", "0.0.0.0:99999"])
def test_wrong_address_is_refused(listen: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        read_settings(["--listen", listen], {})
    assert ended.value.code == 2
    assert "use HOST:PORT" in capsys.readouterr().err


def test_the_image_s_command_starts() -> None:
    command = [sys.executable, "-m", "wsgiapp_operator", "--help"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "--prefork-image" in shown


def test_every_option_is_in_the_readme_with_its_variable() -> None:
    command = [sys.executable, "-m", "wsgiapp_operator", "--help"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    options = set(re.findall(r"^  (--[a-z-]+)", shown, re.MULTILINE)) - {"--help"}
    variables = set(re.findall(r"\((WSGIAPP_OPERATOR_[A-Z_]+|POD_NAME);", " ".join(shown.split())))
    page = (ROOT / "operator" / "README.md").read_text()
    listed = re.findall(r"^\| `(--[a-z-]+)` \| `([A-Z_]+)` \|", page, re.MULTILINE)
    assert {option for option, _ in listed} == options
    assert {variable for _, variable in listed} == variables


def test_names_of_pull_secrets_are_read() -> None:
    settings = read_settings(["--prefork-pull-secrets", "a, b"], {})
    assert settings.prefork_pull_secrets == ("a", "b")
    assert read_settings([], {}).prefork_pull_secrets == ()


def test_two_operators_on_one_machine_are_two_holders() -> None:
    assert read_settings([], {}).identity != read_settings([], {}).identity


@pytest.mark.parametrize(("given", "read"), [("10001", 10001), ("1", 1), ("cluster", None)])
def test_ids_of_pods_are_a_number_or_the_clusters_own(given: str, read: int | None) -> None:
    assert read_settings(["--pod-id", given], {}).pod_id == read


@pytest.mark.parametrize("given", ["0", "-1", "root", "1.5"])
def test_pods_cannot_be_root(given: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        read_settings([f"--pod-id={given}"], {})
    assert "use a number from 1, or cluster" in capsys.readouterr().err


def test_a_bound_on_upgrades_is_a_number_from_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert read_settings(["--upgrades-at-a-time", "1"], {}).upgrades_at_a_time == 1
    for given in ("0", "-1", "all"):
        with pytest.raises(SystemExit):
            read_settings(["--upgrades-at-a-time", given], {})
        assert "use a number from 1" in capsys.readouterr().err
