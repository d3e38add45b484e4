"""The CRD holds exactly the fields that work, each described and bounded, and says how to mend what it refuses."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from wsgiapp.schema import load_crd, load_spec_schema

from manifests.crd.pod_template import CRD, generate
from manifests.crd.reference import render_reference

ROOT = Path(__file__).parents[3]
NEGATIVE = sorted((ROOT / "tests" / "negative").glob("*.yaml"))
GOLDEN = ROOT / "tests" / "golden" / "wsgiapps"


def walk(schema: Mapping[str, Any], path: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield path, schema
    for name, resource in schema.get("properties", {}).items():
        yield from walk(resource, f"{path}.{name}")
    if "items" in schema:
        yield from walk(schema["items"], f"{path}[]")


def paths_of(value: Any, path: str) -> Iterator[str]:
    yield path
    if isinstance(value, dict):
        for name, item in value.items():
            yield from paths_of(item, f"{path}.{name}")
    elif isinstance(value, list):
        for item in value:
            yield from paths_of(item, f"{path}[]")


# Below podTemplate everything is Kubernetes' own.
FIELDS = {
    path: schema
    for path, schema in walk(load_spec_schema(), "spec")
    if not path.startswith("spec.podTemplate.")
}
# As in a pod; Kubernetes' own meaning, passed on as they are.
AS_IN_A_POD = re.compile(r"^spec\.(env|envFrom|resources|agent\.resources)\b")


def test_every_field_of_the_spec_is_in_a_golden_case() -> None:
    used: set[str] = set()
    for case in GOLDEN.glob("*.yaml"):
        if ".expected" not in case.name:
            used |= set(paths_of(yaml.safe_load(case.read_text("utf-8"))["spec"], "spec"))
    unused = {path for path in FIELDS if path not in used and not AS_IN_A_POD.match(path)}
    assert unused == set()


@pytest.mark.parametrize("path", [path for path in FIELDS if not path.endswith("[]")])
def test_every_field_is_described_and_bounded(path: str) -> None:
    schema = FIELDS[path]
    assert schema.get("description"), f"{path} has no description"
    if schema.get("type") == "string" and "enum" not in schema:
        assert "maxLength" in schema, f"{path} is an unbounded text"
    if schema.get("type") == "integer":
        assert {"minimum", "maximum"} <= schema.keys(), f"{path} is an unbounded number"
    if schema.get("type") == "array":
        assert "maxItems" in schema, f"{path} is an unbounded list"


def test_every_rule_has_a_message() -> None:
    for path, schema in FIELDS.items():
        for rule in schema.get("x-kubernetes-validations", ()):
            assert rule.get("message") or rule.get("messageExpression"), f"{path}: {rule['rule']}"


def test_columns_scale_and_status_are_declared() -> None:
    version = load_crd()["spec"]["versions"][0]
    columns = [
        column["name"] for column in version["additionalPrinterColumns"] if "priority" not in column
    ]
    assert columns == ["Ready", "Reason", "Replicas", "Workers", "URL", "Age"]
    columns = [
        column["name"] for column in version["additionalPrinterColumns"] if "priority" in column
    ]
    assert columns == ["Image", "App", "Updated", "Available", "Content"]
    assert version["subresources"]["status"] == {}
    assert version["subresources"]["scale"]["labelSelectorPath"] == ".status.selector"


@pytest.mark.parametrize("path", NEGATIVE, ids=lambda path: path.stem)
def test_negative_manifest_names_field_and_remedy_and_is_a_wsgiapp(path: Path) -> None:
    """What the API server answers to it is tested on a cluster."""
    text = path.read_text("utf-8")
    for wanted in ("refused", "remedy"):
        assert re.search(rf"^# {wanted}: \S", text, re.MULTILINE), (
            f"{path} has no comment '# {wanted}:'"
        )
    manifest = yaml.safe_load(text)
    assert manifest["kind"] == "WsgiApp"
    assert manifest["apiVersion"] == "wsgi.dev/v1alpha1"


def test_schema_of_the_pod_template_is_fresh() -> None:
    assert CRD.read_text("utf-8") == generate(), "run `make generate`"


def nodes(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield schema
    for item in schema.get("properties", {}).values():
        yield from nodes(item)
    for field in ("items", "additionalProperties"):
        if isinstance(schema.get(field), dict):
            yield from nodes(schema[field])


def test_schema_is_structural_as_an_api_server_demands() -> None:
    """https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/"""
    for node in nodes(load_spec_schema()):
        assert "type" in node or node.get("x-kubernetes-int-or-string"), node
        assert not {"$ref", "oneOf", "anyOf"} & node.keys()
        assert not {"properties", "additionalProperties"} <= node.keys()
        assert "items" in node or node.get("type") != "array"


def test_crd_fits_into_the_annotation_of_kubectl_apply() -> None:
    assert len(json.dumps(yaml.safe_load(CRD.read_text("utf-8")))) < 200_000


def test_reference_is_fresh() -> None:
    shown = (ROOT / "docs" / "wsgiapp.md").read_text("utf-8")
    assert shown == render_reference(), "run `make generate`"


def test_there_are_enough_negative_manifests() -> None:
    assert len(NEGATIVE) >= 20
