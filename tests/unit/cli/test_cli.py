"""The `wsgiapp` command: what it prints, and how it refuses."""

from __future__ import annotations

import socket
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from wsgiapp_cli.main import main

EXAMPLES = Path(__file__).resolve().parents[3] / "manifests" / "examples"


@pytest.mark.parametrize("name", ["flask.yaml", "django.yaml", "broken.yaml"])
def test_render_prints_valid_objects(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "-f", str(EXAMPLES / name)]) == 0
    printed = capsys.readouterr().out
    objects = list(yaml.safe_load_all(printed))
    assert {each["metadata"]["name"] for each in objects} == {name.removesuffix(".yaml")}
    assert "Deployment" in [each["kind"] for each in objects]
    for each in objects:
        kubernetes_validate.validate(each, "1.37", strict=True)
    assert "&id" not in printed


def test_render_takes_the_server_from_the_given_image(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["render", "-f", str(EXAMPLES / "flask.yaml"), "--prefork-image", "mine:1"]) == 0
    assert "reference: mine:1" in capsys.readouterr().out


def test_render_shows_that_a_restart_follows_changed_config(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def annotations(greeting: str) -> dict[str, str]:
        text = (EXAMPLES / "django.yaml").read_text().replace("Welcome", greeting)
        file = tmp_path / "django.yaml"
        file.write_text(text.replace("onChange: Reload", "onChange: Restart"))
        assert main(["render", "-f", str(file)]) == 0
        objects = yaml.safe_load_all(capsys.readouterr().out)
        (found,) = [each for each in objects if each["kind"] == "Deployment"]
        template: dict[str, str] = found["spec"]["template"]["metadata"]["annotations"]
        return template

    assert annotations("Welcome") == annotations("Welcome")
    assert annotations("Welcome") != annotations("Hello")


REFUSALS = [
    (["run", "-f", "absent.yaml"], "cannot read absent.yaml: No such file"),
    (["render", "-f", "absent.yaml"], "cannot read absent.yaml: No such file"),
    (["run", "-f", str(EXAMPLES / "flask.yaml"), "--app", "shop"], "--app is 'shop'"),
    (["run", "-f", str(EXAMPLES / "flask.yaml"), "--metrics=9000"], "--metrics is '9000'; use"),
]


@pytest.mark.parametrize(("arguments", "words"), REFUSALS)
def test_refusal_is_one_line_on_standard_error(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    free = ["--port=0", "--metrics=127.0.0.1:0"] if arguments[0] == "run" else []
    assert main([arguments[0], *free, *arguments[1:]]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"wsgiapp: {words}")
    assert printed.err.count("\n") == 1


MANY_MISSING = """\
apiVersion: wsgi.dev/v1alpha1
kind: WsgiApp
metadata: {name: shop}
spec:
  image: i
  app: shop:app
  source: {configMap: {name: code}}
  config:
    - {name: db, configMap: {name: db}, mountPath: /etc/db}
    - {name: keys, secret: {name: keys}, mountPath: /etc/keys}
  envFrom: [{configMapRef: {name: plain}}, {secretRef: {name: hidden}}]
  env:
    - {name: A, valueFrom: {configMapKeyRef: {name: one, key: a}}}
    - {name: B, valueFrom: {secretKeyRef: {name: two, key: b}}}
    - {name: C, valueFrom: {secretKeyRef: {name: three, key: c, optional: true}}}
---
kind: Secret
metadata: {name: two}
data: {other: "dGV4dA=="}
"""


def test_all_that_is_missing_is_reported_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "app.yaml"
    file.write_text(MANY_MISSING)
    assert main(["run", "--port=0", "--metrics=", "-f", str(file)]) == 2
    told = capsys.readouterr().err.splitlines()
    remedy = f"is not in {file}; add it there, or give its file with another -f"
    assert told == [
        f"wsgiapp: spec.source: ConfigMap 'code' {remedy}",
        f"wsgiapp: spec.config[db]: ConfigMap 'db' {remedy}",
        f"wsgiapp: spec.config[keys]: Secret 'keys' {remedy}",
        f"wsgiapp: spec.envFrom[0].configMapRef.name: ConfigMap 'plain' {remedy}",
        f"wsgiapp: spec.envFrom[1].secretRef.name: Secret 'hidden' {remedy}",
        f"wsgiapp: spec.env[A].valueFrom.configMapKeyRef.name: ConfigMap 'one' {remedy}",
        "wsgiapp: spec.env[B].valueFrom.secretKeyRef.key: is 'b'; Secret 'two' has other",
    ]


def test_all_files_and_keys_that_are_wrong_are_reported_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, wrong = tmp_path / "app.yaml", tmp_path / "keys.yaml"
    manifest.write_text(
        "apiVersion: wsgi.dev/v1alpha1\nkind: WsgiApp\nmetadata: {name: shop}\n"
        "spec:\n  image: i\n  app: shop:app\n  envFrom: [{secretRef: {name: keys}}]\n"
    )
    wrong.write_text("kind: Secret\nmetadata: {name: keys}\ndata: {a: pass word, b: 'an other'}\n")

    def refusals(*files: Path) -> list[str]:
        named = [part for file in files for part in ("-f", str(file))]
        assert main(["run", "--port=0", "--metrics=", *named]) == 2
        return capsys.readouterr().err.splitlines()

    assert refusals(tmp_path / "x.yaml", tmp_path / "y.yaml", manifest) == [
        f"wsgiapp: cannot read {tmp_path / name}.yaml: No such file or directory" for name in "xy"
    ]
    assert refusals(manifest, wrong) == [
        f"wsgiapp: Secret 'keys': data[{key!r}] is not base64; use stringData for plain text"
        for key in "ab"
    ]


WRONG = """\
apiVersion: wsgi.dev/v1alpha1
kind: WsgiApp
metadata: {name: shop}
spec:
  image: i
  app: shop
  colour: red
  replicas: 1001
  server: {threads: 0, workers: four, requestTimeoutSeconds: 60, maxRequests: "7", maxRequestsJitter: 5}
  config: [{name: source, mountPath: /etc/shop}]
  podTemplate: {spec: {containers: [{name: app, command: [sh], args: [-c]}]}}
"""


@pytest.mark.parametrize("command", ["render", "run"])
def test_everything_that_is_wrong_is_said_at_once(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "app.yaml"
    file.write_text(WRONG)
    options = ["--port=0", "--metrics="] if command == "run" else []
    assert main([command, *options, "-f", str(file)]) == 2
    said = capsys.readouterr().err.splitlines()
    for begin in (
        "spec.colour is unknown",
        "spec.app is 'shop'; write MODULE:CALLABLE",
        "spec.replicas is 1001; use 0 to 1000",
        "spec.server.threads is 0; use 1 to 128",
        "spec.server.workers is four; use 1 to 512, or auto",
        "spec.server.maxRequests is '7'; use a whole number",
        "spec.server.requestTimeoutSeconds is longer than gracefulTimeoutSeconds",
        "spec.config[0]",
        "spec.podTemplate.spec.containers[app].command cannot be changed",
        "spec.podTemplate.spec.containers[app].args cannot be changed",
    ):
        assert any(line.startswith(f"wsgiapp: {begin}") for line in said), (begin, said)
    assert len(set(said)) == len(said)


@pytest.mark.parametrize("option", ["--port={}", "--metrics=127.0.0.1:{}"])
def test_port_in_use_is_told_with_the_remedy(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        others = ["--port=0", "--metrics=", option.format(port)]
        assert main(["run", "-f", str(EXAMPLES / "flask.yaml"), *others]) == 2
    told = capsys.readouterr().err
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in told
    assert option.partition("=")[0] in told


@pytest.mark.parametrize("port", ["http", "-1", "70000"])
def test_bad_port_is_refused(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "-f", "x.yaml", f"--port={port}"])
    assert ended.value.code == 2
    assert f"is '{port}'; use 0 to 65535" in capsys.readouterr().err
