"""Every distribution says what it is, under which licence, and that it is typed; one version holds for all."""

from __future__ import annotations

import re
import subprocess
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


WORKFLOWS = pytest.mark.parametrize(
    "path", sorted((ROOT / ".github/workflows").iterdir()), ids=lambda p: p.name
)


@WORKFLOWS
def test_workflow_pins_each_action_by_commit(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            if "uses" in step:
                _, commit = step["uses"].split("@")
                assert len(commit) == 40, step["uses"]
                assert set(commit) <= set("0123456789abcdef"), step["uses"]


@WORKFLOWS
def test_steps_call_what_there_is(path: Path) -> None:
    """Targets of make, our modules, files of the tree, and what an earlier job has left."""
    jobs = yaml.safe_load(path.read_text())["jobs"]
    steps = [step for job in jobs.values() for step in job["steps"]]
    script = "\n".join(step["run"] for step in steps if "run" in step)
    targets = re.findall(r"^([\w./-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    called = " ".join(re.findall(r"\bmake ([\w./ -]+)", script)).split()
    assert called
    assert set(called) <= set(targets)
    for module in re.findall(r"-m (tests\.[\w.]+)", script):
        assert (ROOT / f"{module.replace('.', '/')}.py").is_file(), module
    for file in re.findall(r"(?<![\w/])(?:charts|manifests|server|operator)/[\w./-]+", script):
        assert (ROOT / file).exists(), file
    left, taken = (
        {
            step["with"]["name"]
            for step in steps
            if f"actions/{what}-artifact" in step.get("uses", "")
        }
        for what in ("upload", "download")
    )
    assert taken <= left


def test_release_fails_where_a_command_before_a_pipe_fails() -> None:
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    assert release["defaults"]["run"]["shell"] == "bash"


def test_published_chart_and_manifest_name_the_published_images(tmp_path: Path) -> None:
    """The release's own `sed` commands, on copies."""
    text = (ROOT / ".github/workflows/release.yml").read_text()
    in_place, through = re.findall(r"^ *(sed .*(?:values|install)\.yaml)", text, re.MULTILINE)
    values, install = tmp_path / "values.yaml", tmp_path / "install.yaml"
    values.write_text((ROOT / "charts/wsgiapp-operator/values.yaml").read_text())
    in_place = in_place.replace("charts/wsgiapp-operator/values.yaml", str(values))
    through = re.sub(r">\S+$", f">{install}", through)
    subprocess.run(
        [
            "bash",
            "-ec",
            f"registry=ghcr.io/acme GITHUB_REPOSITORY_OWNER=Acme\n{in_place}\n{through}",
        ],
        cwd=ROOT,
        check=True,
    )
    chosen = yaml.safe_load(values.read_text())
    assert chosen["image"]["repository"] == "ghcr.io/acme/operator"
    assert chosen["prefork"]["image"]["repository"] == "ghcr.io/acme/prefork"
    images = re.findall(r"[\w./-]+/(?:operator|prefork):[\w.]+", install.read_text())
    assert images == [f"ghcr.io/acme/{name}:{VERSION}" for name in ("operator", "prefork")]
