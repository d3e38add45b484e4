"""Who may import what: kopf and kubernetes at one edge each, no I/O in the middle."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[3] / "operator" / "src" / "wsgiapp_operator"
IO = {"asyncio", "aiohttp", "kopf", "kubernetes", "socket", "subprocess", "time"}
PURE = [
    "api",
    "schema",
    "digest",
    "plan",
    "status",
    "events",
    "cache",
    *[f"build/{p.stem}" for p in (PACKAGE / "build").glob("*.py")],
]


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize(("library", "owner"), [("kopf", "main"), ("kubernetes", "cluster")])
def test_library_has_one_importer(library: str, owner: str) -> None:
    importers = {path.stem for path in PACKAGE.rglob("*.py") if library in imports_of(path)}
    assert importers == {owner}


@pytest.mark.parametrize("module", PURE)
def test_middle_does_no_io(module: str) -> None:
    assert imports_of(PACKAGE / f"{module}.py") & IO == set()
