"""WsgiApp YAML in, expected objects or refusal out: the operator's pure middle, case by case.

`wsgiapps/NAME.yaml` becomes `wsgiapps/NAME.expected.yaml`; a comment `# kubernetes: 1.34` names the
version where it matters. `every-field` is compared as a whole; the others name the fields that they are
about: list items by their `name` (mounts by their path), other lists as a whole, null for a field that must not be there.
`refused/NAME.yaml` says in a comment `# error:` what a person is told. UPDATE_GOLDEN=1 rewrites the
whole one; the difference is reviewed like code.
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
    digests = {name: f"digest-{name}" for name in app.restart_refs}
    return build_resources(app, platform, digests)


def test_every_field_becomes_exactly_the_expected_objects() -> None:
    path = HERE / "wsgiapps" / "every-field.yaml"
    expected = path.with_suffix(".expected.yaml")
    owned = build(path)
    if os.environ.get("UPDATE_GOLDEN"):
        text = yaml.dump_all(owned, Dumper=PlainDumper, sort_keys=True, width=110)
        expected.write_text(text, "utf-8")
    assert list(yaml.safe_load_all(expected.read_text("utf-8"))) == owned


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_wsgiapp_becomes_objects_with_the_expected_fields(path: Path) -> None:
    owned = {manifest["kind"]: manifest for manifest in build(path)}
    differences: list[str] = []
    for wanted in yaml.safe_load_all(path.with_suffix(".expected.yaml").read_text("utf-8")):
        kind = wanted["kind"]
        if wanted.get("absent"):
            assert kind not in owned
        else:
            differences += compare(owned[kind], wanted, kind)
    assert differences == []


def compare(found: Any, wanted: Any, path: str) -> list[str]:
    """Return where `found` lacks what `wanted` names."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [
            difference
            for name, value in wanted.items()
            for difference in compare(found.get(name), value, f"{path}.{name}")
        ]
    key = "mountPath" if path.endswith(".volumeMounts") else "name"
    is_named = isinstance(wanted, list) and all(isinstance(i, dict) and key in i for i in wanted)
    if is_named and isinstance(found, list):
        by_name = {item[key]: item for item in found}
        return [
            difference
            for item in wanted
            for difference in compare(by_name.get(item[key]), item, f"{path}[{item[key]}]")
        ]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = enumerate(zip(found, wanted, strict=True))
        return [d for i, (f, w) in pairs for d in compare(f, w, f"{path}[{i}]")]
    return [] if found == wanted else [f"{path} is {found!r}, not {wanted!r}"]


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
