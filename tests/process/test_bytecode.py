"""Reloads of code that changes twice in one second, where Python would take its old bytecode for it."""

import os
import time
from pathlib import Path

import pytest

from tests.process.harness import Prefork, write_app

APP = """
    import os
    def app(environ, start_response):
        from number import NUMBER
        body = f"{NUMBER} {os.environ['OF_CONFIG']}".encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
"""
BYTECODE = {"PYTHONDONTWRITEBYTECODE": ""}


def write_number(folder: Path, number: int, *, changed: float) -> None:
    """Write a module of always the same size and time."""
    source = folder / "number.py"
    source.write_text(f"NUMBER = {number}\n")
    os.utime(source, (changed, changed))


@pytest.mark.parametrize("preload", ["auto", "never"])
def test_code_that_changes_twice_in_a_second_is_loaded_anew(folder: Path, preload: str):
    write_app(folder, APP)
    (folder / "gunicorn.conf.py").write_text(
        "import number\nraw_env = [f'OF_CONFIG={number.NUMBER}']\n"
    )
    now = time.time() + 3600  # however slowly the server starts, the change is a recent one
    write_number(folder, 1, changed=now)
    with Prefork(f"--preload={preload}", cwd=folder, environment=BYTECODE) as server:
        assert server.get() == (200, "1 1")
        write_number(folder, 2, changed=now)
        assert server.reload()["result"] == "succeeded"
        assert server.get() == (200, "2 2")


def test_bytecode_of_code_that_is_settled_is_kept(folder: Path):
    write_app(folder, "import number\n" + "def app(environ, start_response): ...\n")
    soon = time.time() + 3600  # however slowly the server starts, that one is not settled
    os.utime(folder / "app.py", (soon, soon))
    write_number(folder, 1, changed=time.time() - 3600)
    with Prefork(cwd=folder, environment=BYTECODE):
        assert [path.name.partition(".")[0] for path in (folder / "__pycache__").iterdir()] == [
            "number"
        ]
