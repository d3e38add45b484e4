"""WsgiApp YAML in, expected objects or refusal out: the operator's pure middle, case by case.

`wsgiapps/NAME.yaml` becomes `wsgiapps/NAME.expected.yaml`; a comment `# kubernetes: 1.34` names the
version where it matters. `refused/NAME.yaml` says in a comment `# error:` what a person is told.
UPDATE_GOLDEN=1 rewrites the expected objects; the difference is reviewed like code.
"""

import os
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from wsgiapp.parse import parse_app
from wsgiapp.resources import Platform, build_resources
from wsgiapp.schema import Invalid
from wsgiapp.types import OnChange

HERE = Path(__file__).parent
CASES = sorted(path for path in (HERE / "wsgiapps").glob("*.yaml") if ".expected" not in path.name)
REFUSED = sorted((HERE / "refused").glob("*.yaml"))


class PlainDumper(yaml.SafeDumper):
    """Writes equal parts out instead of referring to them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def build(path: Path) -> list[dict[str, Any]]:
    text = path.read_text("utf-8")
    version = re.search(r"^# kubernetes: (\d+)\.(\d+)$", text, re.MULTILINE)
    manifest = yaml.safe_load(text)
    manifest["metadata"] |= {"uid": "0f8fad5b-d9cb-469f-a165-70867728950e", "namespace": "shop"}
    platform = Platform(
        prefork_image="wsgiapp/prefork:0.1.0",
        prefork_pull_policy="IfNotPresent",
        image_volumes=version is None or (int(version[1]), int(version[2])) >= (1, 35),
    )
    app = parse_app(manifest)
    digests = {c.name: f"digest-{c.name}" for c in app.config if c.on_change is OnChange.RESTART}
    return build_resources(app, platform, digests)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_wsgiapp_becomes_the_expected_objects(path: Path) -> None:
    expected = path.with_suffix(".expected.yaml")
    owned = build(path)
    if os.environ.get("UPDATE_GOLDEN"):
        text = yaml.dump_all(owned, Dumper=PlainDumper, sort_keys=True, width=110)
        expected.write_text(text, "utf-8")
    assert list(yaml.safe_load_all(expected.read_text("utf-8"))) == owned


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_expected_objects_fit_the_schemas_of_kubernetes(path: Path) -> None:
    for resource in build(path):
        kubernetes_validate.validate(resource, "1.37", strict=True)


@pytest.mark.parametrize("path", REFUSED, ids=lambda path: path.stem)
def test_refused_manifest_is_told_by_field_value_and_remedy(path: Path) -> None:
    text = path.read_text("utf-8")
    told = re.search(r"^# error: (.+)$", text, re.MULTILINE)
    assert told is not None, f"{path} has no comment '# error:'"
    with pytest.raises(Invalid) as raised:
        parse_app(yaml.safe_load(text))
    assert str(raised.value) == told[1]
