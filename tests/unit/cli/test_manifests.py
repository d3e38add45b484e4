"""Manifests on this machine: what is found in them, and how each mistake is told."""

from __future__ import annotations

import base64

import pytest
from wsgiapp.parse import parse_app
from wsgiapp.types import App
from wsgiapp_cli.manifests import (
    Documents,
    ManifestError,
    choose_app,
    read_documents,
    read_environment,
    read_folder,
)

APP = """\
apiVersion: wsgi.dev/v1alpha1
kind: WsgiApp
metadata: {name: shop}
spec:
  image: i
  app: app:app
"""
SECRET = f"""\
apiVersion: v1
kind: Secret
metadata: {{name: keys}}
data: {{a: {base64.b64encode(b"from data").decode()}, b: "{base64.b64encode(b"hidden").decode()}"}}
stringData: {{b: from stringData}}
"""
CONFIG_MAP = f"""\
apiVersion: v1
kind: ConfigMap
metadata: {{name: code}}
data: {{app.py: "print(1)"}}
binaryData: {{logo.png: {base64.b64encode(bytes([137, 0, 255])).decode()}}}
"""


def with_spec(lines: str, *texts: str) -> tuple[Documents, App]:
    documents = read_documents({"app.yaml": "---\n".join([APP + lines, *texts])})
    return documents, parse_app(choose_app(documents))


def test_config_map_gives_text_and_binary_files() -> None:
    documents, app = with_spec("  source: {configMap: {name: code}}\n", CONFIG_MAP)
    assert app.source is not None
    assert read_folder(documents, app, app.source) == {
        "app.py": b"print(1)",
        "logo.png": bytes([137, 0, 255]),
    }


def test_date_is_text_as_kubectl_reads_it() -> None:
    documents, app = with_spec(
        "  source: {configMap: {name: code}}\n", CONFIG_MAP.replace('"print(1)"', "2026-11-22")
    )
    assert app.source is not None
    assert read_folder(documents, app, app.source)["app.py"] == b"2026-11-22"


def test_string_data_of_a_secret_wins_over_data() -> None:
    documents, app = with_spec(
        "  config: [{name: keys, secret: {name: keys}, mountPath: /etc/keys}]\n", SECRET
    )
    assert read_folder(documents, app, app.config[0]) == {
        "a": b"from data",
        "b": b"from stringData",
    }


def test_list_is_read_as_its_items() -> None:
    text = "kind: List\napiVersion: v1\nitems:\n- " + APP.replace("\n", "\n  ")
    assert choose_app(read_documents({"app.yaml": text}))["metadata"]["name"] == "shop"


def test_anchors_and_merges_are_understood() -> None:
    text = APP.replace("image: i", "image: &i image") + "  env: [{name: IMAGE, value: *i}]\n"
    text += "  resources:\n    requests: &r {cpu: 1, memory: 1Gi}\n    limits: {<<: *r, cpu: 2}\n"
    app = parse_app(choose_app(read_documents({"app.yaml": text})))
    assert app.env[0]["value"] == "image"
    assert app.resources["limits"] == {"cpu": 2, "memory": "1Gi"}


def test_environment_is_resolved_in_the_kubelets_order() -> None:
    documents, app = with_spec(
        """\
  envFrom: [{secretRef: {name: keys}, prefix: KEY_}, {configMapRef: {name: absent, optional: true}}]
  env:
    - {name: KEY_a, value: own}
    - {name: both, value: "$(KEY_a) and $(KEY_b), not $(later) nor $$(KEY_a)"}
    - {name: later, value: x}
    - {name: one, valueFrom: {secretKeyRef: {name: keys, key: a}}}
    - {name: gone, valueFrom: {configMapKeyRef: {name: absent, key: a, optional: true}}}
    - {name: ip, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
""",
        SECRET,
    )
    environment = read_environment(documents, app)
    assert environment.values == {
        "KEY_a": "own",
        "KEY_b": "from stringData",
        "both": "own and from stringData, not $(later) nor $(KEY_a)",
        "later": "x",
        "one": "from data",
    }
    assert environment.left_out == ("ip",)


BAD_FILES = [
    ("a: [1", ["app.yaml: line 1:", "expected ',' or ']'"]),
    (APP + "  replicas: 2\n  replicas: 3\n", ["app.yaml: line 8:", "replicas is there twice"]),
    ("? [a, b]\n: c\n", ["app.yaml: line 1:", "a key is a list"]),
    ("kind: List\nitems: [text]\n", ["app.yaml", "str", "apiVersion"]),
    ("kind: ConfigMap\nmetadata: text\n", ["app.yaml", "metadata.name"]),
    ("just text", ["app.yaml", "str", "apiVersion"]),
    ("kind: ConfigMap\n", ["app.yaml", "metadata.name"]),
    ("kind: ConfigMap\nmetadata: {name: x}\n", ["app.yaml", "no WsgiApp", "-f"]),
    (
        APP.replace("/v1alpha1", "/v1"),
        ["kind WsgiApp and apiVersion wsgi.dev/v1;", "wsgi.dev/v1alpha1"],
    ),
    (APP.replace("WsgiApp", "WSGIApp"), ["kind WSGIApp and apiVersion", "use kind WsgiApp"]),
    (APP + "---\n" + APP, ["WsgiApp 'shop'", "also in app.yaml", "keep one"]),
    (APP + "---\n" + APP.replace("shop", "blog"), ["--app", "blog, shop"]),
]


@pytest.mark.parametrize(("text", "words"), BAD_FILES, ids=lambda part: str(part)[:30])
def test_bad_file_is_told_with_place_and_remedy(text: str, words: list[str]) -> None:
    with pytest.raises(ManifestError) as told:
        choose_app(read_documents({"app.yaml": text}))
    for word in words:
        assert word in str(told.value)


def test_unknown_app_is_told_with_the_known_ones() -> None:
    with pytest.raises(ManifestError, match=r"--app is 'blog'; app\.yaml has shop"):
        choose_app(read_documents({"app.yaml": APP}), name="blog")


BAD_REFERENCES = [
    (
        "  source: {configMap: {name: nope}}\n",
        ["spec.source", "ConfigMap 'nope' is not in app.yaml", "another -f"],
    ),
    (
        "  env: [{name: A, valueFrom: {secretKeyRef: {name: keys, key: c}}}]\n",
        ["spec.env[A].valueFrom.secretKeyRef.key", "'c'", "Secret 'keys' has a, b"],
    ),
    (
        "  envFrom: [{secretRef: {name: nope}}]\n",
        ["spec.envFrom[0].secretRef.name", "Secret 'nope'"],
    ),
    (
        "  config: [{name: x, configMap: {name: numbers}, mountPath: /x}]\n",
        ["ConfigMap 'numbers'", "data['port'] is 80", "quotes"],
    ),
    (
        "  config: [{name: x, configMap: {name: paths}, mountPath: /x}]\n",
        ["ConfigMap 'paths'", "data has the key '../x'", "use letters"],
    ),
    (
        "  config: [{name: x, secret: {name: plain}, mountPath: /x}]\n",
        ["Secret 'plain'", "data['a'] is not base64", "stringData"],
    ),
]
BAD_OBJECTS = """\
kind: ConfigMap
metadata: {name: numbers}
data: {port: 80}
---
kind: ConfigMap
metadata: {name: paths}
data: {../x: text}
---
kind: Secret
metadata: {name: plain}
data: {a: "pass word!"}
"""


@pytest.mark.parametrize(("lines", "words"), BAD_REFERENCES, ids=lambda part: str(part)[:40])
def test_bad_reference_is_told_with_field_value_and_remedy(lines: str, words: list[str]) -> None:
    documents, app = with_spec(lines, SECRET, BAD_OBJECTS)

    def read_all() -> None:
        for content in app.contents:
            read_folder(documents, app, content)
        read_environment(documents, app)

    with pytest.raises(ManifestError) as told:
        read_all()
    for word in words:
        assert word in str(told.value)


def test_objects_of_another_namespace_are_not_taken() -> None:
    documents, app = with_spec(
        "  source: {configMap: {name: code}}\n",
        CONFIG_MAP.replace("{name: code}", "{name: code, namespace: other}"),
    )
    assert app.source is not None
    with pytest.raises(ManifestError, match=r"ConfigMap 'code' is not in app\.yaml"):
        read_folder(documents, app, app.source)
