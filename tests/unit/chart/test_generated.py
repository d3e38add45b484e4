"""No generated copy is stale, and what is generated says what its source says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from charts.generate import (
    CRD,
    INSTALL,
    RBAC,
    ROOT,
    build_crd_template,
    build_install,
    build_rbac_template,
    build_readme,
    build_schema,
    generated,
    render_chart,
)
from tests.unit.chart.conftest import Objects

VALUES = """\
# Not of the first key: a blank line lies between.

# Who is greeted.
# @ {minLength: 1}
name: world
nested:
  # How often.
  # @ {minimum: 0}
  times: 1
  # Any labels.
  # @ {additionalProperties: {type: string}}
  labels:
    a: b
on: true
"""


@pytest.mark.parametrize("path", sorted(generated(helm=None)), ids=lambda path: path.name)
def test_copy_is_what_its_source_gives(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generated(helm=None)[path], (
        f"{path.relative_to(ROOT)} is stale; run `make generate`"
    )


def test_plain_install_is_what_the_chart_renders(helm: str) -> None:
    assert INSTALL.read_text(encoding="utf-8") == build_install(render_chart(helm)), (
        "manifests/install.yaml is stale; run `make generate`"
    )


def test_schema_takes_types_from_defaults_and_bounds_from_comments() -> None:
    schema = json.loads(build_schema(VALUES))
    assert schema["additionalProperties"] is False
    assert schema["properties"] == {
        "name": {"type": "string", "description": "Who is greeted.", "minLength": 1},
        "nested": {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                "times": {"type": "integer", "description": "How often.", "minimum": 0},
                "labels": {
                    "type": "object",
                    "description": "Any labels.",
                    "additionalProperties": {"type": "string"},
                },
            },
        },
        "on": {"type": "boolean"},
    }


def test_readme_keeps_prose_and_lists_each_value_once() -> None:
    readme = "before\n<!-- values: generated from values.yaml -->\nold\n<!-- /values -->\nafter\n"
    renewed = build_readme(readme, VALUES)
    assert renewed.startswith("before\n")
    assert renewed.endswith("<!-- /values -->\nafter\n")
    assert "old" not in renewed
    rows = [line.split("|")[1].strip() for line in renewed.splitlines() if line.startswith("| `")]
    assert rows == ["`name`", "`nested.times`", "`nested.labels`", "`on`"]


def test_every_value_has_a_description() -> None:
    rows = [
        line
        for line in (ROOT / "charts/wsgiapp-operator/README.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    assert len(rows) > 10
    assert [row for row in rows if row.endswith("|  |")] == []


def test_braces_in_a_source_come_out_of_helm_unchanged(
    render: Callable[..., Objects], chart_copy: Path
) -> None:
    crd = yaml.safe_load(CRD.read_text())
    crd["spec"]["names"]["categories"] = ["{{ .Values.image }}"]
    (chart_copy / "templates/crd.yaml").write_text(build_crd_template(yaml.safe_dump(crd)))
    rbac = RBAC.read_text().replace("resources: [pods]", 'resources: ["{{pods}}"]')
    (chart_copy / "templates/rbac.yaml").write_text(build_rbac_template(rbac))
    objects = {each["kind"]: each for each in render(chart=chart_copy)}
    names = objects["CustomResourceDefinition"]["spec"]["names"]
    assert names["categories"] == ["{{ .Values.image }}"]
    assert ["{{pods}}"] in [rule["resources"] for rule in objects["ClusterRole"]["rules"]]


def test_plain_install_has_its_namespace_and_crd_first_and_no_trace_of_helm() -> None:
    text = INSTALL.read_text(encoding="utf-8")
    documents = list(yaml.safe_load_all(text))
    assert [each["kind"] for each in documents[:2]] == ["Namespace", "CustomResourceDefinition"]
    assert "helm" not in text.lower()
    named = documents[0]["metadata"]["name"]
    # The Leases are where every installation looks.
    namespaced = [each for each in documents if each["metadata"].get("namespace")]
    assert {each["metadata"]["namespace"] for each in namespaced} == {named, "kube-system"}
