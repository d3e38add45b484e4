"""The reference of WsgiApp, made from the CRD: `python manifests/crd/reference.py > docs/wsgiapp.md`."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

from wsgiapp.schema import Schema, load_crd

HEAD = """\
# WsgiApp

Every field of `wsgi.dev/v1alpha1`, generated from `manifests/crd/wsgiapps.yaml`. Fields without a default
may be left out, unless they are required. `kubectl explain wsgiapp.spec` shows the same.
"""


def render_reference() -> str:
    """Return the reference in Markdown."""
    version = load_crd()["spec"]["versions"][0]
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    parts = [HEAD, *table("spec", properties["spec"]), "", *rules(properties["spec"])]
    parts += ["", "## Status", "", *table("status", properties["status"])]
    return "\n".join(parts) + "\n"


def table(name: str, schema: Schema) -> Iterator[str]:
    """Yield a Markdown table with a row for every field below `schema`."""
    yield "| field | type | default | meaning |"
    yield "|---|---|---|---|"
    for path, field, is_required in walk(schema, name):
        default = "**required**" if is_required else show_default(field)
        yield f"| `{path}` | {show_type(field)} | {default} | {field.get('description', '')} |"


def walk(schema: Schema, path: str) -> Iterator[tuple[str, Schema, bool]]:
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field, name in required
        if name == "podTemplate":  # Kubernetes' own reference has these fields
            continue
        yield from walk(field, f"{path}.{name}")
        if "items" in field:
            yield from walk(field["items"], f"{path}.{name}[]")


def show_type(field: Schema) -> str:
    if "enum" in field:
        return " \\| ".join(str(value) for value in field["enum"])
    if field.get("x-kubernetes-int-or-string"):
        return "number or text"
    kind = str(field["type"])
    if kind == "integer" and "minimum" in field:
        return f"{field['minimum']} to {field['maximum']}"
    if kind == "array":
        kind = f"list of {field['items']['type']}"
        return kind + (f", up to {field['maxItems']}" if "maxItems" in field else "")
    return kind


def show_default(field: Mapping[str, Any]) -> str:
    if "default" not in field or field["default"] == {}:
        return ""
    value = field["default"]
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def rules(spec: Schema) -> Iterator[str]:
    """Yield the rules between fields, in the words that the API server uses."""
    yield "Between fields:"
    yield ""
    for rule in spec["x-kubernetes-validations"]:
        if "message" in rule:
            yield f"- {rule['message']}"


if __name__ == "__main__":
    sys.stdout.write(render_reference())
