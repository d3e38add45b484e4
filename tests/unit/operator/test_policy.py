"""What an installation does not allow, although every API server takes it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from wsgiapp.schema import Invalid
from wsgiapp_operator.policy import check_policy
from wsgiapp_operator.settings import read_settings

from tests.unit.operator.samples import PLATFORM, make_app

SNIPPET = {"nginx.org/server-snippets": "return 418;"}


def check(annotations: dict[str, str], *allowed: str) -> None:
    app = make_app(ingress={"hosts": ["shop.example.com"], "annotations": annotations})
    check_policy(app, replace(PLATFORM, ingress_annotations=allowed))


def test_without_a_list_every_annotation_is_allowed() -> None:
    check(SNIPPET)


def test_annotations_that_fit_a_pattern_are_allowed() -> None:
    check({"nginx.org/proxy-buffers": "8 8k", "cert-manager.io/issuer": "a"}, "nginx.org/proxy-*", "cert-manager.io/issuer")  # fmt: skip


def test_each_annotation_that_fits_none_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(Invalid) as refused:
        check({**SNIPPET, "nginx.org/proxy-buffers": "8 8k", "other": ""}, "nginx.org/proxy-*", "a")
    assert refused.value.lines == [
        f"spec.ingress.annotations has '{name}', which this installation does not allow;"
        " use nginx.org/proxy-* or a"
        for name in ("nginx.org/server-snippets", "other")
    ]


def test_app_without_ingress_has_nothing_to_refuse() -> None:
    check_policy(make_app(), replace(PLATFORM, ingress_annotations=("a",)))


def test_list_is_read_from_the_command_line() -> None:
    settings = read_settings(["--ingress-annotations=nginx.org/proxy-*,a"], {})
    assert settings.ingress_annotations == ("nginx.org/proxy-*", "a")
    assert read_settings([], {}).ingress_annotations == ()
