"""The CRD's own schema, applied here: defaults and bounds of a WsgiApp's spec.

The API server does the same before the operator sees an object. It is done again for manifests that
never met an API server (`wsgiapp run`, tests), and because the cluster's CRD may be older than the
operator. The CEL rules stay with the API server; this file knows nothing of WsgiApp's meaning.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

import yaml

Schema = Mapping[str, Any]
# libyaml's is ten times as fast, and not in every build of PyYAML.
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
}


class Invalid(Exception):  # noqa: N818 -- named for what it says of the object
    """A WsgiApp that cannot be carried out until it is changed."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason


@functools.cache
def load_crd() -> Schema:
    """Return the CustomResourceDefinition that belongs to this operator."""
    text = resources.files(__package__).joinpath("crd.yaml").read_text("utf-8")
    crd: Schema = yaml.load(text, Loader=Loader)
    return crd


@functools.cache
def load_spec_schema() -> Schema:
    """Return the OpenAPI schema of `spec`."""
    version = load_crd()["spec"]["versions"][0]
    schema: Schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return schema


def complete_spec(spec: Any) -> dict[str, Any]:
    """Return a copy of a WsgiApp's `spec` with the CRD's defaults filled in.

    Raises Invalid, naming the first field that breaks the schema and what is allowed.
    """
    completed: dict[str, Any] = complete(spec, load_spec_schema(), "spec")
    return completed


def complete(value: Any, schema: Schema, path: str) -> Any:
    """Check `value` against `schema` and return it with defaults; `path` names it in errors."""
    check_type(value, schema, path)
    if isinstance(value, dict):
        return complete_object(value, schema, path)
    if isinstance(value, list):
        return complete_list(value, schema, path)
    check_scalar(value, schema, path)
    return value


def complete_object(value: Mapping[str, Any], schema: Schema, path: str) -> dict[str, Any]:
    known: Mapping[str, Schema] = schema.get("properties", {})
    others: Schema | None = schema.get("additionalProperties")
    given = {name: item for name, item in value.items() if item is not None}
    for name in schema.get("required", ()):
        if name not in given:
            raise Invalid(f"{path}.{name}", "is missing; it is required")
    bounds = (schema.get("minProperties", 0), schema.get("maxProperties", len(given)))
    if not bounds[0] <= len(given) <= bounds[1]:
        raise Invalid(path, f"has {len(given)} fields; use {bounds[0]} to {bounds[1]}")
    completed: dict[str, Any] = {}
    for name, child in known.items():
        if name in given:
            completed[name] = complete(given[name], child, f"{path}.{name}")
        elif "default" in child:
            completed[name] = complete(child["default"], child, f"{path}.{name}")
    for name in given.keys() - known.keys():
        if others is None:
            raise Invalid(f"{path}.{name}", f"is unknown; {path} has {join(known)}")
        completed[name] = complete(given[name], others, f"{path}.{name}")
    return completed


def complete_list(value: list[Any], schema: Schema, path: str) -> list[Any]:
    low, high = schema.get("minItems", 0), schema.get("maxItems", len(value))
    if not low <= len(value) <= high:
        raise Invalid(path, f"has {len(value)} items; use {low} to {high}")
    items = [complete(item, schema["items"], f"{path}[{i}]") for i, item in enumerate(value)]
    keys = schema.get("x-kubernetes-list-map-keys")
    if keys or schema.get("x-kubernetes-list-type") == "set":
        seen = set()
        for item in items:
            key = tuple(item.get(k) for k in keys) if keys else item
            if key in seen:
                shown = ", ".join(str(part) for part in key) if keys else key
                raise Invalid(path, f"has '{shown}' more than once; use it once")
            seen.add(key)
    return items


def without_defaults(value: Any, schema: Schema) -> Any:
    """Return a completed value without what `complete` fills in; pure."""
    if isinstance(value, list):
        return [without_defaults(item, schema["items"]) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for name, item in value.items():
        child: Schema = schema.get("properties", {}).get(name, {})
        if "default" in child and item == complete(child["default"], child, name):
            continue
        kept[name] = without_defaults(item, child) if child.get("properties") else item
    return kept


def check_type(value: Any, schema: Schema, path: str) -> None:
    """Raise Invalid unless `value` has the schema's type. A YAML `on` is a boolean, not a text."""
    if schema.get("x-kubernetes-int-or-string"):
        wanted, name = (int, str), "a number or a text"
    else:
        wanted, name = TYPES[schema["type"]], schema["type"]  # type: ignore[assignment]
    is_stray_bool = isinstance(value, bool) and schema.get("type") != "boolean"
    if is_stray_bool or not isinstance(value, wanted):
        raise Invalid(path, f"is {value!r}; use {name}")


def check_scalar(value: Any, schema: Schema, path: str) -> None:
    if "enum" in schema and value not in schema["enum"]:
        raise Invalid(path, f"is '{value}'; use {join(schema['enum'])}")
    if isinstance(value, str):
        check_text(value, schema, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if not low <= value <= high:
            raise Invalid(path, f"is {value}; use {low} to {high}")


def check_text(value: str, schema: Schema, path: str) -> None:
    low, high = schema.get("minLength", 0), schema.get("maxLength", len(value))
    if not low <= len(value) <= high:
        raise Invalid(path, f"has {len(value)} characters; use {low} to {high}")
    if "pattern" in schema and not re.search(schema["pattern"], value):
        raise Invalid(path, f"is '{value}'; it must match {schema['pattern']}")


def join(words: Iterable[Any]) -> str:
    """Return 'a, b or c'."""
    listed = [str(word) for word in words]
    return " or ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)
