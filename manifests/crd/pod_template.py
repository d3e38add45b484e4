"""The schema of `spec.podTemplate`, cut from Kubernetes' own OpenAPI: `python manifests/crd/pod_template.py`.

Written into wsgiapps.yaml between its two markers. What belongs to the operator is left out, so that an API
server refuses it as an unknown field; so is what makes no sense in a pod that a Deployment makes. Types and
required fields are Kubernetes' own, without its descriptions: they would make the CRD ten times as large.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate

VERSION = "v1.37.0-local"
CRD = Path(__file__).with_name("wsgiapps.yaml")
START, END = "# podTemplate: written by manifests/crd/pod_template.py", "# /podTemplate"
INDENT = " " * 16
WIDTH = 118
POD_FIELDS = (
    "affinity", "automountServiceAccountToken", "containers", "dnsConfig", "dnsPolicy", "hostAliases", "hostUsers",
    "initContainers", "nodeSelector", "preemptionPolicy", "priorityClassName", "readinessGates", "resourceClaims",
    "runtimeClassName", "schedulerName", "securityContext", "serviceAccountName", "tolerations",
    "topologySpreadConstraints", "volumes",
)  # fmt: skip
TEXTS = {"type": "object", "additionalProperties": {"type": "string"}}
METADATA = {"type": "object", "properties": {"labels": TEXTS, "annotations": TEXTS}}
DESCRIPTION = (
    "Laid over the pods' template by strategic merge, as kubectl patch does it: containers, volumes and env by name. "
    "The app's container is called app, the sidecar agent. Commands, ports and volumes of the operator cannot be changed."
)

Schema = dict[str, Any]


def build_schema(definitions: Mapping[str, Any]) -> Schema:
    """Return the structural schema of `spec.podTemplate`; `definitions` are Kubernetes' own by name."""
    pod = definitions["io.k8s.api.core.v1.PodSpec"]["properties"]
    spec = {name: convert(pod[name], definitions) for name in POD_FIELDS}
    return {
        "type": "object",
        "description": DESCRIPTION,
        "properties": {"metadata": METADATA, "spec": {"type": "object", "properties": spec}},
    }


def convert(node: Mapping[str, Any], definitions: Mapping[str, Any]) -> Schema:
    """Return a node of the OpenAPI as a structural schema, references resolved."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return (
            dict(METADATA)
            if name.endswith(".ObjectMeta")
            else convert(definitions[name], definitions)
        )
    if "oneOf" in node:  # quantities, and numbers or names of ports
        return {"x-kubernetes-int-or-string": True}
    kinds = node["type"] if isinstance(node["type"], list) else [node["type"]]
    schema: Schema = {"type": next(kind for kind in kinds if kind != "null")}
    if node.get("format") in ("int32", "int64"):
        schema["format"] = node["format"]
    if "items" in node:
        schema["items"] = convert(node["items"], definitions)
    if "properties" in node:
        schema["properties"] = {
            name: convert(item, definitions) for name, item in sorted(node["properties"].items())
        }
    elif isinstance(node.get("additionalProperties"), dict):
        schema["additionalProperties"] = convert(node["additionalProperties"], definitions)
    if node.get("required"):
        schema["required"] = sorted(node["required"])
    return schema


def render(schema: Schema) -> str:
    """Return the block between the markers: JSON, which is YAML, in lines of a bearable length."""
    text = json.dumps(schema, separators=(", ", ": "))
    lines, line = [], ""
    for word in text.split(" "):
        if line and len(INDENT) + 2 + len(line) + 1 + len(word) > WIDTH:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}" if line else word
    body = "\n".join(f"{INDENT}  {each}" for each in [*lines, line])
    return f"{INDENT}{START}\n{INDENT}podTemplate:\n{body}\n{INDENT}{END}\n"


def splice(crd: str, block: str) -> str:
    """Return the CRD with the block in the place of the one between the markers."""
    pattern = re.compile(rf"{INDENT}{re.escape(START)}\n.*?{INDENT}{re.escape(END)}\n", re.DOTALL)
    spliced, count = pattern.subn(lambda _: block, crd)
    if count != 1:
        raise SystemExit(f"{CRD.name} has {count} places for podTemplate; it needs one")
    return spliced


def read_definitions() -> Mapping[str, Any]:
    folder = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / VERSION
    definitions: Mapping[str, Any] = json.loads((folder / "_definitions.json").read_text("utf-8"))[
        "$defs"
    ]
    return definitions


def generate() -> str:
    """Return the CRD as it is to be."""
    return splice(CRD.read_text("utf-8"), render(build_schema(read_definitions())))


if __name__ == "__main__":
    CRD.write_text(generate(), "utf-8")
