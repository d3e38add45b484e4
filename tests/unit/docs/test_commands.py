"""Every command and manifest that the pages show works, or says where it is tried."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from wsgiapp.check import check_manifest
from wsgiapp.parse import parse_app

from tests.support.site import ROOT, pages
from tests.unit.docs.commands import COMMANDS, HERE

# Pages for the people who use the product; the others are about its insides.
INSIDE = ("docs/decisions/", "docs/contracts.md", "CONTRIBUTING.md")
PAGES = [
    path
    for path in [ROOT / "README.md", *pages(), *sorted((ROOT / "operator").glob("*/README.md"))]
    if not path.relative_to(ROOT).as_posix().startswith(INSIDE)
]


def blocks(path: Path, languages: str) -> Iterator[str]:
    """The fenced blocks of a page in one of these languages."""
    pattern = rf"^( *)```(?:{languages})\n(.*?)^ *```"
    for match in re.finditer(pattern, path.read_text(), re.MULTILINE | re.DOTALL):
        yield textwrap.dedent(match[2])


def commands(block: str) -> Iterator[str]:
    """The commands of a block: those after `$` where it has such, else every line."""
    lines = block.replace("\\\n", " ").splitlines()
    prompted = [line[2:] for line in lines if line.startswith("$ ")]
    for line in prompted or lines:
        command = re.sub(r"\s+#\s.*$", "", line).strip().removesuffix("&").strip()
        if command:
            yield re.sub(r"  +", " ", command)


ALL = sorted({c for path in PAGES for block in blocks(path, "sh|console") for c in commands(block)})


def who_tries(command: str) -> list[str]:
    return [by for pattern, by in COMMANDS if re.fullmatch(pattern, command)]


@pytest.mark.parametrize("command", ALL)
def test_command_is_tried_somewhere(command: str) -> None:
    found = who_tries(command)
    assert found, f"{command!r} is on no line of tests/unit/docs/commands.py"
    assert found[0] == HERE or found[0].startswith("yours: ") or (ROOT / found[0]).exists()


def test_every_line_of_the_table_is_used() -> None:
    unused = [p for p, _ in COMMANDS if not any(re.fullmatch(p, command) for command in ALL)]
    assert unused == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with the names that the pages use."""
    (tmp_path / "shop").mkdir()
    app = "def application(environ, start_response): return []\napp = application\n"
    (tmp_path / "shop" / "wsgi.py").write_text(app)
    (tmp_path / "app.py").write_text(app)
    (tmp_path / "manifests").symlink_to(ROOT / "manifests")
    for name in ("flask", "shop", "wsgiapp"):
        shutil.copyfile(ROOT / "manifests/examples/flask.yaml", tmp_path / f"{name}.yaml")
    return tmp_path


@pytest.mark.parametrize("command", [c for c in ALL if who_tries(c)[:1] == [HERE]])
def test_command_works(command: str, folder: Path) -> None:
    program, *arguments = shlex.split(command)
    if program == "prefork":
        arguments.append("--check-config")
    local = ROOT / ".venv" / "bin" / program
    argv = [str(local) if local.exists() else program, *arguments]
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if program == "prefork":
        assert "ignor" not in done.stderr, done.stderr
    if program == "sed":
        assert 'VERSION = "2"' in (folder / "flask.yaml").read_text()


def test_plain_installation_takes_its_images_from_your_registry(folder: Path) -> None:
    (command,) = [each for each in ALL if each.startswith("sed 's#")]
    subprocess.run(["sh", "-ec", command], cwd=folder, check=True)
    plain, yours = (
        (ROOT / "manifests/install.yaml").read_text(),
        (folder / "install.yaml").read_text(),
    )
    names = re.findall(r"wsgiapp/(?:operator|prefork):\S+", plain)
    assert sorted(name.partition(":")[0] for name in names) == [
        "wsgiapp/operator",
        "wsgiapp/prefork",
    ]
    for name in names:
        plain = plain.replace(name, f"REGISTRY/{name}")
    assert yours == plain


UPGRADES = [command for command in ALL if command.startswith("helm upgrade ")]


@pytest.mark.parametrize("command", UPGRADES)
def test_upgrade_keeps_the_values_that_were_set_and_takes_new_defaults(command: str) -> None:
    """Without the option a `--set` drops all earlier ones; --reuse-values lacks what is new in the chart."""
    assert "--reset-then-reuse-values" in shlex.split(command)


APP: dict[str, Any] = {"image": "registry.example/shop:1.4", "app": "shop.wsgi:application"}
SPECS = [
    (f"{path.relative_to(ROOT)}-{number}", block)
    for path in PAGES
    for number, block in enumerate(blocks(path, "yaml"))
    if "kind: WsgiApp" in block or block.startswith("spec:")
]


OBJECTS = [
    pytest.param(document, id=f"{path.name}: {document['kind']}")
    for path in PAGES
    for block in blocks(path, "yaml")
    if "apiVersion:" in block
    for document in yaml.safe_load_all(block)
    if "." not in document["apiVersion"].partition("/")[0] or ".k8s.io/" in document["apiVersion"]
]


@pytest.mark.parametrize("document", OBJECTS)
def test_object_fits_the_schema_of_kubernetes(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.37", strict=True)


@pytest.mark.parametrize(("name", "block"), SPECS, ids=[name for name, _ in SPECS])
def test_manifest_is_valid(name: str, block: str) -> None:
    for document in yaml.safe_load_all(block):
        if document.get("kind", "WsgiApp") != "WsgiApp":
            continue
        manifest = {"metadata": {"name": "shop"}} | document
        manifest["spec"] = APP | manifest["spec"]
        parse_app(manifest)
        check_manifest(manifest)
