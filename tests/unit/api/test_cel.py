"""The CRD's CEL rules here: what an API server refuses is refused with the same field and remedy.

What the API server itself says of the same manifests is in tests/e2e/test_refused_manifests.py.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from wsgiapp.cel import UnknownCel, read_cel
from wsgiapp.check import check_manifest
from wsgiapp.parse import parse_app
from wsgiapp.schema import Invalid, load_crd
from wsgiapp_cli.manifests import read_app

ROOT = Path(__file__).resolve().parents[3]
NEGATIVE = sorted((ROOT / "tests" / "negative").glob("*.yaml"))
GOOD = [
    *sorted((ROOT / "manifests" / "examples").glob("*.yaml")),
    *sorted(
        file
        for file in (ROOT / "tests" / "golden" / "wsgiapps").glob("*.yaml")
        if not file.stem.endswith(".expected")
    ),
]


def rules_of(schema: Any) -> list[dict[str, str]]:
    """Return all rules that stand anywhere in a schema."""
    if isinstance(schema, list):
        return [rule for item in schema for rule in rules_of(item)]
    if not isinstance(schema, dict):
        return []
    found: list[dict[str, str]] = list(schema.get("x-kubernetes-validations", []))
    return found + [rule for item in schema.values() for rule in rules_of(item)]


def test_every_rule_of_the_crd_can_be_read() -> None:
    rules = rules_of(load_crd())
    assert len(rules) > 20
    for rule in rules:
        read_cel(rule["rule"])
        if "messageExpression" in rule:
            read_cel(rule["messageExpression"])


def fits_schema(file: Path) -> bool:
    try:
        parse_app(yaml.safe_load(file.read_text()))
    except Invalid:
        return False
    return True


def refusal(file: Path) -> tuple[Invalid, dict[str, str]]:
    """Return how a manifest is refused here, and what it says of the API server's refusal."""
    text = file.read_text()
    with pytest.raises(Invalid) as refused:
        read_app(yaml.safe_load(text))
    return refused.value, dict(re.findall(r"^# (refused|remedy): (.+)$", text, re.MULTILINE))


@pytest.mark.parametrize("file", NEGATIVE, ids=lambda file: file.stem)
def test_what_an_api_server_refuses_is_refused_here(file: Path) -> None:
    refused, wanted = refusal(file)
    # Of an item that is there twice, an API server names the item, and this package the list.
    is_field = bool(refused.field) and wanted["refused"].startswith(refused.field)
    assert is_field or wanted["refused"] in str(refused)


@pytest.mark.parametrize(
    "file", [file for file in NEGATIVE if fits_schema(file)], ids=lambda file: file.stem
)
def test_broken_rule_is_told_in_the_api_servers_words(file: Path) -> None:
    refused, wanted = refusal(file)
    assert wanted["remedy"] in str(refused)


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.stem)
def test_good_manifest_breaks_no_rule(file: Path) -> None:
    apps = [each for each in yaml.safe_load_all(file.read_text()) if each["kind"] == "WsgiApp"]
    assert apps
    for manifest in apps:
        check_manifest(manifest)


def test_refusal_names_the_field_once() -> None:
    manifest = {"metadata": {"name": "shop"}, "spec": {"image": "i", "app": "shop"}}
    with pytest.raises(Invalid) as broken:
        check_manifest(manifest)
    assert str(broken.value).startswith("spec.app is 'shop'; write MODULE:CALLABLE")


EXPRESSIONS = [
    ("1 + 2 - 3 == 0", True),
    ("!(1 > 2) && 2 >= 2 || false", True),
    ("false || false", False),
    ("true && (false || 1 < 2)", True),
    ("self.list.all(x, x != 'c')", True),
    ("self.list.all(x, x == 'a')", False),
    ("'a' in self.list && !('c' in ['a', \"b\"])", True),
    ("self.list.exists_one(x, x == 'a') && !self.list.exists_one(x, x != 'c')", True),
    ("self.list.isSorted() && ['a', 'a'].isSorted() && !['b', 'a'].isSorted()", True),
    ("0.5 < 0.51 && 1.5 - 1 == 0.5", True),
    ("has(self.gone)", False),
    ("has(self.gone.deeper)", False),
    ("!has(self.gone) || self.gone == 1", True),
    ("type(self.number) == int ? 'number ' + string(self.number) : 'text'", "number 7"),
    ("type(self.text) == string", True),
    ("self.text.startsWith('sh')", True),
    (r"self.text.matches('^s\\w+$')", True),
    ("self.text.matches('o')", True),
    ("self.line.matches('^a$')", False),
    (r"'it\'s'", "it's"),
]


@pytest.mark.parametrize(("source", "value"), EXPRESSIONS)
def test_cel_means_what_it_means_to_an_api_server(source: str, value: object) -> None:
    scope = {"self": {"list": ["a", "b"], "number": 7, "text": "shop", "line": "a\n"}}
    assert read_cel(source)(scope) == value


@pytest.mark.parametrize(
    "source", ["self.size()", "1 +", "a ? b", "{}", "self.a[0]", "1 1", "~a", ")"]
)
def test_cel_that_is_not_here_is_not_guessed(source: str) -> None:
    with pytest.raises(UnknownCel):
        read_cel(source)
