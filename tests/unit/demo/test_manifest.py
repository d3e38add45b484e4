"""The demo's changes of the example change exactly what the story says."""

from __future__ import annotations

import pytest
import yaml

from tests.demo import manifest


def _code(text: str) -> str:
    return str(next(iter(yaml.safe_load_all(text)))["data"]["app.py"])


def test_versions_differ_in_one_line() -> None:
    example = manifest.EXAMPLE.read_text()
    changed = manifest.change_version(example, "7")
    pairs = zip(_code(example).splitlines(), _code(changed).splitlines(), strict=True)
    assert [pair for pair in pairs if pair[0] != pair[1]] == [('VERSION = "1"', 'VERSION = "7"')]


def test_demo_has_a_host_of_its_own() -> None:
    *_, app = yaml.safe_load_all(manifest.change_host(manifest.EXAMPLE.read_text()))
    assert app["spec"]["ingress"]["hosts"] == [manifest.HOST] != ["flask.example.com"]


def test_broken_code_is_valid_python_that_misses_its_module() -> None:
    broken = _code(manifest.break_import(manifest.EXAMPLE.read_text()))
    compile(broken, "app.py", "exec")
    assert "from flsk import" in broken


def test_code_alone_is_the_configmap() -> None:
    kinds = [
        document["kind"]
        for document in yaml.safe_load_all(manifest.only_code(manifest.EXAMPLE.read_text()))
    ]
    assert kinds == ["ConfigMap"]


def test_an_example_that_the_demo_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="the demo needs one"):
        manifest.change_version("VERSION = 1\n", "2")


def test_unhealthy_code_starts_and_fails_where_its_health_is_asked() -> None:
    unhealthy = _code(manifest.break_health(manifest.EXAMPLE.read_text()))
    compile(unhealthy, "app.py", "exec")
    assert "from flask import" in unhealthy
    assert 'def healthz() -> str:\n    raise RuntimeError("no database")' in unhealthy
