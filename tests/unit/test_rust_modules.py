"""Modules of the engine's crates form layers: none of them needs, by way of others, itself.

Counted are paths in code (`use`, `crate::…`, `super::…`), between the parts of a crate and between the files of one
folder. A folder's own `mod.rs` is left out there: it holds the type whose methods its files share out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ENGINE = Path(__file__).parents[2] / "server" / "engine"

Module = tuple[str, ...]


def modules(source: Path) -> dict[Module, str]:
    """Path of each module → its code without comments and unit tests."""
    found = {}
    for file in source.rglob("*.rs"):
        parts = file.relative_to(source).with_suffix("").parts
        name = parts[:-1] if parts[-1] in ("mod", "lib") else parts
        code = file.read_text().split("#[cfg(test)]\nmod ")[0].partition("#[cfg(test)]\n#[allow")[0]
        found[name] = re.sub(r"//.*", "", code)
    return found


def flat(path: str) -> Iterator[str]:
    """`a::{b, c::{d}}` → `a::b`, `a::c::d`."""
    before, brace, rest = path.strip().partition("{")
    if not brace:
        yield before
        return
    depth, start = 0, 0
    rest = rest.rstrip().removesuffix("}")
    for at, letter in enumerate(rest + ","):
        depth += (letter == "{") - (letter == "}")
        if letter == "," and depth == 0:
            if part := rest[start:at].strip():
                yield from flat(before + part)
            start = at + 1


def needs(me: Module, code: str) -> Iterator[Module]:
    """What a module names, as paths from the root of its crate."""
    paths = [path for use in re.findall(r"\buse\s+([^;]+);", code) for path in flat(use)]
    paths += re.findall(r"\b(?:crate|super)(?:::\w+)+", code)
    for path in paths:
        parts = path.split(" as ")[0].split("::")
        base = () if parts[0] == "crate" else me
        while parts and parts[0] in ("crate", "self", "super"):
            base = base[:-1] if parts.pop(0) == "super" else base
        yield (*base, *parts)


def graph(source: Path) -> dict[Module, set[Module]]:
    """Each module → the modules it needs."""
    known = modules(source)
    needed: dict[Module, set[Module]] = {}
    for me, code in known.items():
        for path in needs(me, code):
            target = path
            while target not in known:
                target = target[:-1]
            needed.setdefault(me, set()).add(target)
    return needed


def siblings(needed: Mapping[Module, set[Module]], folder: Module) -> dict[str, set[str]]:
    """The same between the parts of one folder."""
    depth = len(folder)
    between: dict[str, set[str]] = {}
    for me, targets in needed.items():
        for target in targets:
            is_inside = all(len(one) > depth and one[:depth] == folder for one in (me, target))
            if is_inside and me[depth] != target[depth]:
                between.setdefault(me[depth], set()).add(target[depth])
    return between


def circle(between: Mapping[str, set[str]]) -> str | None:
    try:
        TopologicalSorter(between).prepare()
    except CycleError as error:
        return " → ".join(error.args[1])
    return None


@pytest.mark.parametrize("crate", ["core", "io", "py"])
def test_modules_of_a_crate_have_no_circle(crate: str) -> None:
    needed = graph(ENGINE / crate / "src")
    assert len(needed) > 5
    folders = {me[:at] for me in needed for at in range(len(me))}
    circles = {folder: circle(siblings(needed, folder)) for folder in folders}
    assert {folder: found for folder, found in circles.items() if found} == {}


def test_a_circle_is_found(tmp_path: Path) -> None:
    (tmp_path / "lib.rs").write_text("mod a;\nmod b;\nmod c;\n")
    (tmp_path / "a.rs").write_text("use crate::{b::{self, B}, c};\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mod.rs").write_text("mod inner;\n")
    (tmp_path / "b" / "inner.rs").write_text("fn f() { super::super::c::g() }\n")
    (tmp_path / "c.rs").write_text("// use crate::a;\n")
    assert circle(siblings(graph(tmp_path), ())) is None
    (tmp_path / "c.rs").write_text("pub fn g() { crate::a::f() }\n")
    assert circle(siblings(graph(tmp_path), ())) in ("a → c → b → a", "a → b → c → a", "a → c → a")
