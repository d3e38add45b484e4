"""The operator's content digest is the server's, by the vectors that both sides check."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from wsgiapp.digest import digest_files, digest_object, with_key

VECTORS = json.loads(
    (Path(__file__).parents[2] / "golden" / "content_digest.json").read_text("utf-8")
)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_configmap_has_the_digest_of_its_files(case: dict[str, Any]) -> None:
    manifest = {"kind": "ConfigMap", "data": case["data"], "binaryData": case["binaryData"]}
    assert digest_object(manifest) == case["digest"]


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_secret_of_the_same_content_has_the_same_digest(case: dict[str, Any]) -> None:
    encoded = {
        name: base64.b64encode(text.encode()).decode() for name, text in case["data"].items()
    }
    manifest = {"kind": "Secret", "data": encoded | case["binaryData"]}
    assert digest_object(manifest) == case["digest"]


@pytest.mark.parametrize("case", VECTORS["keyed"], ids=lambda case: case["key"][:8])
def test_keyed_digest_is_the_one_of_the_server(case: dict[str, Any]) -> None:
    assert with_key(case["digest"], bytes.fromhex(case["key"])) == case["keyed"]


def test_object_without_data_is_an_empty_folder() -> None:
    assert digest_object({"kind": "ConfigMap"}) == digest_files({})


def test_links_of_the_kubelet_and_compiled_files_do_not_count() -> None:
    assert digest_files({b"..data": b"x", b"__pycache__": b"y"}) == digest_files({})


def test_last_good_copy_has_the_digest_of_its_content() -> None:
    config_map = {"kind": "ConfigMap", "data": {"a": "1"}}
    copy = {"kind": "ConfigMap", "data": {"a": "1", "wsgi.dev.last-good": "{}"}}
    assert digest_object(copy) == digest_object(config_map)
