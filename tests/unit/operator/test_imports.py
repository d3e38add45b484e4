"""Who may import what inside a distribution; between them the import contracts decide (pyproject.toml)."""

import ast
from pathlib import Path

import pytest

OPERATOR = Path(__file__).parents[3] / "operator"
API = OPERATOR / "api" / "src" / "wsgiapp"
CONTROLLER = OPERATOR / "controller" / "src" / "wsgiapp_operator"
IO = {"asyncio", "aiohttp", "kopf", "kubernetes", "socket", "subprocess", "time"}
PURE = [
    *sorted(API.rglob("*.py")),
    *(
        CONTROLLER / f"{name}.py"
        for name in ("reload", "status", "events", "cache", "state", "pods", "diff", "ownership")
    ),
]


def imports_of(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize(("library", "owner"), [("kopf", "watch"), ("kubernetes", "client")])
def test_library_has_one_importer(library: str, owner: str) -> None:
    importers = {path.stem for path in OPERATOR.rglob("*.py") if library in imports_of(path)}
    assert importers == {owner}


@pytest.mark.parametrize("path", PURE, ids=lambda path: path.stem)
def test_middle_does_no_io(path: Path) -> None:
    assert imports_of(path) & IO == set()
