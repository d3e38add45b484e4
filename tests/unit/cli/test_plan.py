"""What `wsgiapp run` makes of a manifest, and what a change of it asks for; no process is started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from wsgiapp.schema import Invalid
from wsgiapp_cli.manifests import ManifestError
from wsgiapp_cli.run.plan import Place, Plan, Step, decide, make_plan

EXAMPLES = Path(__file__).resolve().parents[3] / "manifests" / "examples"
PLACE = Place(
    root=Path("/tmp/place"),
    here=Path("/home/shop"),
    bind="fd://7",
    metrics="127.0.0.1:9000",
    environment={"PATH": "/bin"},
)
MANIFEST = """\
apiVersion: wsgi.dev/v1alpha1
kind: WsgiApp
metadata: {name: shop}
spec:
  image: shop:1
  app: app:app
  replicas: 3
  server: {workers: 2, extraArgs: [--limit-request-line=4096]}
  source: {configMap: {name: files}}
  env: [{name: COLOUR, value: red}]
  config:
    - {name: prod-db, configMap: {name: db}, mountPath: /etc/db, onChange: Reload}
    - {name: keys, configMap: {name: keys}, mountPath: /etc/keys, onChange: Restart}
    - {name: flags, configMap: {name: flags}, mountPath: /etc/flags, onChange: Ignore}
  ingress: {hosts: [shop.example.com], path: /shop}
"""


def plan(edit: Callable[[str], str] = lambda text: text, **changed: str) -> Plan:
    texts = {"app.yaml": plan_text(edit, **changed)}
    return make_plan(texts, name=None, place=PLACE)


def plan_text(edit: Callable[[str], str] = lambda text: text, **changed: str) -> str:
    data = {"files": "a", "db": "a", "keys": "a", "flags": "a"} | changed
    objects = [
        f"kind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{file: {text}}}\n"
        for name, text in data.items()
    ]
    return "---\n".join([edit(MANIFEST), *objects])


def test_server_gets_the_manifests_settings_and_this_machines_places() -> None:
    arguments = plan().launch.arguments
    assert arguments[-1] == "app:app"
    assert {
        "--bind=fd://7",
        "--run-dir=/tmp/place/run",
        "--metrics=127.0.0.1:9000",
        "--workers=2",
        "--limit-request-line=4096",
        "--content=source=/tmp/place/source",
        "--content=prod-db=/tmp/place/config/prod-db",
    } <= set(arguments)


def test_ingress_leaves_no_trace_where_there_is_none() -> None:
    """No SCRIPT_NAME, and X-Forwarded-* is not believed from everybody."""
    assert not [
        a for a in plan().launch.arguments if a.startswith(("--script-name", "--forwarded"))
    ]


def test_reload_asks_for_the_health_path_as_in_a_pod_but_where_the_app_lives_here() -> None:
    checked = plan(
        lambda text: text + "  healthCheck: {path: /healthz, startupTimeoutSeconds: 9}\n"
    )
    assert {
        "--health-path=/healthz",
        "--health-host=shop.example.com",
        "--boot-timeout=9",
    } <= set(checked.launch.arguments)
    assert "healthCheck" not in checked.left_out
    assert not [a for a in plan().launch.arguments if a.startswith("--health")]


def test_app_finds_its_config_by_the_same_variables_as_in_a_pod() -> None:
    environment = plan().launch.environment
    assert environment["WSGIAPP_CONFIG_PROD_DB"] == "/tmp/place/config/prod-db"
    assert environment["WSGIAPP_CONFIG_FLAGS"] == "/tmp/place/config/flags"
    assert environment["COLOUR"] == "red"
    assert environment["PATH"] == "/bin"


def test_app_runs_in_its_source_or_where_it_was_called() -> None:
    assert plan().launch.directory == Path("/tmp/place/source")
    without = plan(lambda text: text.replace("  source: {configMap: {name: files}}\n", ""))
    assert without.launch.directory == Path("/home/shop")


def test_what_a_pod_alone_has_is_named() -> None:
    edited = plan(
        lambda text: text.replace(
            "env: [", "env: [{name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}, "
        )
    )
    assert set(edited.left_out) == {"image", "ingress", "replicas", "env IP"}


CHANGES = [
    (plan(), Step.NOTHING),
    (plan(files="b"), Step.RELOAD),
    (plan(db="b"), Step.RELOAD),
    (plan(keys="b"), Step.RESTART),
    (plan(flags="b"), Step.NOTHING),
    (plan(files="b", keys="b"), Step.RESTART),
    (plan(lambda text: text.replace("workers: 2", "workers: 3")), Step.RESTART),
    (plan(lambda text: text.replace("red", "blue")), Step.RESTART),
    (plan(lambda text: text.replace("replicas: 3", "replicas: 4")), Step.NOTHING),
    (plan(lambda text: text.replace("shop:1", "shop:2")), Step.NOTHING),
    (plan(lambda text: text.replace("name: flags", "name: toggles", 1)), Step.RESTART),
]


@pytest.mark.parametrize(("new", "step"), CHANGES)
def test_change_takes_the_least_step(new: Plan, step: Step) -> None:
    assert decide(plan(), new) is step


def test_changed_code_is_reloaded() -> None:
    """Code that has no `source` lies in a folder, and is seen by time, size and inode."""
    old, new = ({Path("/home/shop/app.py"): (time, 2, 3)} for time in (1, 2))
    serving = replace(plan(), code=old)
    assert decide(serving, replace(plan(), code=dict(old))) is Step.NOTHING
    assert decide(serving, replace(plan(), code=new)) is Step.RELOAD
    assert decide(serving, replace(plan(), code={})) is Step.RELOAD


@pytest.mark.parametrize("name", ["flask.yaml", "django.yaml", "broken.yaml"])
def test_examples_can_be_planned(name: str) -> None:
    texts = {name: (EXAMPLES / name).read_text()}
    assert make_plan(texts, name=None, place=PLACE).app.name == name.removesuffix(".yaml")


def test_bad_spec_is_refused_with_field_value_and_remedy() -> None:
    with pytest.raises(Invalid, match=r"spec\.server\.threads is 0; use 1 to 128"):
        plan(lambda text: text.replace("workers: 2", "workers: 2, threads: 0"))


def test_example_flask_changes_its_version_in_one_line() -> None:
    documents = list(yaml.safe_load_all((EXAMPLES / "flask.yaml").read_text()))
    assert documents[0]["data"]["app.py"].count('VERSION = "1"') == 1


JUNK: tuple[Any, ...] = (None, 0, True, "x", [], [1], {"name": 1})


@pytest.mark.parametrize("name", ["flask.yaml", "django.yaml"])
def test_whatever_stands_anywhere_is_planned_or_refused_with_a_reason(name: str) -> None:
    """Every node of an example, replaced by each junk value: never a crash."""
    documents = list(yaml.safe_load_all((EXAMPLES / name).read_text()))
    refused = 0
    for path in paths_of(documents):
        for junk in JUNK:
            text = yaml.safe_dump_all(replaced(documents, path, junk))
            try:
                make_plan({name: text}, name=None, place=PLACE)
            except (ManifestError, Invalid):
                refused += 1
    assert refused > 200


def paths_of(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every node below `value`."""
    if not isinstance(value, dict | list):
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        yield (*path, key)
        yield from paths_of(item, (*path, key))


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """Return `value` with the node at `path` replaced."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:], new)
    return copy
