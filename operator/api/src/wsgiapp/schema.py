"""The CRD's own schema, applied here: defaults and bounds of a WsgiApp's spec.

The API server does the same before the operator sees an object. It is done again for manifests that
never met an API server (`wsgiapp run`, tests), and because the cluster's CRD may be older than the
operator. The CEL rules stay with the API server; this file knows nothing of WsgiApp's meaning.
"""

import functools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from typing import Any

import yaml

from wsgiapp.unknown_field import find_meant

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

TYPE_NAMES = {
    "object": "an object (fields with values)",
    "array": "a list",
    "string": "a text, in quotes",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
}
SHOWN = 60  # characters of a wrong value


class Invalid(Exception):  # noqa: N818 -- named for what it says of the object
    """A WsgiApp that cannot be carried out until it is changed: the first fault, and all `others`."""

    def __init__(self, field: str, reason: str, others: Iterable["Invalid"] = ()) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason
        self.others = tuple(others)

    @property
    def lines(self) -> list[str]:
        """Every fault as a sentence without its full stop."""
        return [f"{fault.field} {fault.reason}" for fault in (self, *self.others)]

    def __str__(self) -> str:
        return ". ".join(self.lines)


def refuse(faults: Iterable[Invalid]) -> None:
    """Raise Invalid with all faults; do nothing where there are none."""
    found = list(faults)
    if found:
        raise Invalid(found[0].field, found[0].reason, found[1:])


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

    Raises Invalid, naming each field that breaks the schema and what is allowed.
    """
    refuse(find_spec_faults(spec))
    completed: dict[str, Any] = complete(spec, load_spec_schema())
    return completed


def complete(value: Any, schema: Schema) -> Any:
    """Return `value` with the schema's defaults; what does not fit the schema stays as it is."""
    if isinstance(value, dict):
        known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        given = {name: item for name, item in value.items() if item is not None}
        defaults = {name: child["default"] for name, child in known.items() if "default" in child}
        whole = {**dict.fromkeys(known), **defaults, **given}  # in the schema's order
        return {
            name: complete(item, known.get(name, others))
            for name, item in whole.items()
            if item is not None
        }
    if isinstance(value, list):
        return [complete(item, schema.get("items", {})) for item in value]
    return value


def find_spec_faults(spec: Any) -> Iterator[Invalid]:
    """Yield what of a WsgiApp's `spec` breaks the schema."""
    return find_faults(spec, load_spec_schema(), "spec")


def find_faults(value: Any, schema: Schema, path: str) -> Iterator[Invalid]:
    """Yield what of `value` breaks `schema`, the outer things first; `path` names it."""
    fault = find_type_fault(value, schema, path)
    if fault is not None:
        yield fault
    elif isinstance(value, dict):
        yield from find_object_faults(value, schema, path)
    elif isinstance(value, list):
        yield from find_list_faults(value, schema, path)
    else:
        yield from find_scalar_faults(value, schema, path)


def find_object_faults(value: Mapping[str, Any], schema: Schema, path: str) -> Iterator[Invalid]:
    known: Mapping[str, Schema] = schema.get("properties", {})
    others: Schema | None = schema.get("additionalProperties")
    given = {name: item for name, item in value.items() if item is not None}
    for name in schema.get("required", ()):
        if name not in given:
            yield Invalid(f"{path}.{name}", "is missing; it is required")
    low, high = schema.get("minProperties", 0), schema.get("maxProperties", len(given))
    if not low <= len(given) <= high:
        yield Invalid(path, f"has {len(given)} fields; use {low} to {high}")
    for name, item in given.items():
        child = known.get(name, others)
        if child is None:
            yield Invalid(f"{path}.{name}", describe_unknown(name, known, path))
        else:
            yield from find_faults(item, child, f"{path}.{name}")


def describe_unknown(name: str, known: Mapping[str, Schema], path: str) -> str:
    """Return what is wrong with an unknown field: what it was meant to be, or what there is."""
    meant = find_meant(str(name), path, known, load_spec_schema())
    return (
        f"is unknown; did you mean {join(meant)}?"
        if meant
        else f"is unknown; {path} has {join(known)}"
    )


def find_list_faults(value: list[Any], schema: Schema, path: str) -> Iterator[Invalid]:
    low, high = schema.get("minItems", 0), schema.get("maxItems", len(value))
    if not low <= len(value) <= high:
        yield Invalid(path, f"has {len(value)} items; use {low} to {high}")
    for index, item in enumerate(value):
        yield from find_faults(item, schema["items"], f"{path}[{index}]")
    for shown in find_twice(value, schema):
        yield Invalid(path, f"has '{shown}' more than once; use it once")


def find_twice(value: list[Any], schema: Schema) -> list[str]:
    """Return what names an item of a set, or of a list with keys, that another one has named."""
    keys = schema.get("x-kubernetes-list-map-keys")
    if not keys and schema.get("x-kubernetes-list-type") != "set":
        return []
    names = [
        ", ".join(str(part.get(key)) for key in keys) if keys else str(part)
        for part in value
        if isinstance(part, dict) or not keys
    ]
    return [name for name, count in Counter(names).items() if count > 1]


def without_defaults(value: Any, schema: Schema) -> Any:
    """Return a completed value without what `complete` fills in; pure."""
    if isinstance(value, list):
        return [without_defaults(item, schema["items"]) for item in value]
    if not isinstance(value, dict):
        return value
    kept = {}
    for name, item in value.items():
        child: Schema = schema.get("properties", {}).get(name, {})
        if "default" in child and item == complete(child["default"], child):
            continue
        kept[name] = without_defaults(item, child) if child.get("properties") else item
    return kept


def find_type_fault(value: Any, schema: Schema, path: str) -> Invalid | None:
    """Return what is wrong with the type of `value`. A YAML `on` is a boolean, not a text."""
    if schema.get("x-kubernetes-int-or-string"):
        wanted, name = (int, str), "a number or a text"
    else:
        wanted, name = TYPES[schema["type"]], TYPE_NAMES[schema["type"]]  # type: ignore[assignment]
    if "enum" in schema:
        name = join(schema["enum"])
    is_stray_bool = isinstance(value, bool) and schema.get("type") != "boolean"
    if is_stray_bool or not isinstance(value, wanted):
        return Invalid(path, f"is {show(value)}; use {name}")
    return None


def show(value: Any) -> str:
    """Return a value as its YAML might be, shortened."""
    text = f"'{value}'" if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def find_scalar_faults(value: Any, schema: Schema, path: str) -> Iterator[Invalid]:
    if "enum" in schema and value not in schema["enum"]:
        yield Invalid(path, f"is '{value}'; use {join(schema['enum'])}")
    elif isinstance(value, str):
        yield from find_text_faults(value, schema, path)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if not low <= value <= high:
            yield Invalid(path, f"is {value}; use {low} to {high}")


def find_text_faults(value: str, schema: Schema, path: str) -> Iterator[Invalid]:
    low, high = schema.get("minLength", 0), schema.get("maxLength", len(value))
    if not low <= len(value) <= high:
        yield Invalid(path, f"has {len(value)} characters; use {low} to {high}")
    elif "pattern" in schema and not re.search(schema["pattern"], value):
        yield Invalid(path, f"is '{value}'; it must match {schema['pattern']}")


def join(words: Iterable[Any]) -> str:
    """Return 'a, b or c'."""
    listed = [str(word) for word in words]
    return " or ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)
