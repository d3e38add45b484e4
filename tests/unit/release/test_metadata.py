"""Every distribution says what it is, under which licence, and that it is typed; one version holds for all."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.packages import PURE, ROOT

FOLDERS = ["server", *PURE]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
CHART = yaml.safe_load((ROOT / "charts/wsgiapp-operator/Chart.yaml").read_text())
CRD = yaml.safe_load((ROOT / "manifests/crd/wsgiapps.yaml").read_text())


def project(folder: str) -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"])


@pytest.mark.parametrize("folder", FOLDERS)
def test_distribution_has_what_an_index_shows(folder: str) -> None:
    about = project(folder)
    assert about["version"] == VERSION
    assert about["license"] == "Apache-2.0"
    assert about["license-files"] == ["LICENSE"]
    assert (ROOT / folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (ROOT / folder / about["readme"]).read_text().startswith(f"# {about['name']}\n")
    assert about["description"]
    assert {"Typing :: Typed", "Programming Language :: Python :: 3.14"} <= set(
        about["classifiers"]
    )


@pytest.mark.parametrize("folder", FOLDERS)
def test_package_is_marked_as_typed(folder: str) -> None:
    assert len(list((ROOT / folder / "src").glob("*/py.typed"))) == 1


def test_distributions_that_need_each_other_name_the_same_version() -> None:
    for folder in PURE:
        for needed in project(folder)["dependencies"]:
            if needed.startswith("wsgiapp"):
                assert needed == f"wsgiapp=={VERSION}"


def test_chart_has_the_version_and_shows_the_crd() -> None:
    assert (CHART["version"], CHART["appVersion"]) == (VERSION, VERSION)
    notes = CHART["annotations"]
    [shown] = yaml.safe_load(notes["artifacthub.io/crds"])
    assert shown["name"] == CRD["metadata"]["name"]
    assert shown["version"] in {version["name"] for version in CRD["spec"]["versions"]}
    [example] = yaml.safe_load(notes["artifacthub.io/crdsExamples"])
    assert example["kind"] == CRD["spec"]["names"]["kind"]


@pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/workflows").iterdir()), ids=lambda p: p.name
)
def test_workflow_pins_each_action_by_commit(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            if "uses" in step:
                _, commit = step["uses"].split("@")
                assert len(commit) == 40, step["uses"]
                assert set(commit) <= set("0123456789abcdef"), step["uses"]
