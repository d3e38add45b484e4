"""What the API server says no with is passed on in its own words."""

import json

import pytest
from wsgiapp_operator.client import (
    ApiError,
    path_of,
    read_body,
    read_error,
    read_kubelet_version,
)


def refuse(status: int, body: object) -> ApiError:
    text = body if isinstance(body, str) else json.dumps(body)
    return read_error(status, "Some Reason", text.encode())


@pytest.mark.parametrize(
    ("named", "path"),
    [
        (("Pod", None), "/api/v1/pods"),
        (("Deployment", "web"), "/apis/apps/v1/namespaces/web/deployments"),
        (("Service", "web", "shop"), "/api/v1/namespaces/web/services/shop"),
        (("WsgiApp", "web", "shop"), "/apis/wsgi.dev/v1alpha1/namespaces/web/wsgiapps/shop"),
    ],
)
def test_path_names_group_namespace_and_object(named: tuple[str, ...], path: str) -> None:
    assert path_of(*named) == path


def test_message_and_causes_of_the_status_object_are_kept() -> None:
    causes = [{"reason": "NamespaceTerminating", "message": "namespace x is being terminated"}]
    error = refuse(403, {"message": "forbidden: x", "details": {"causes": causes}})
    assert (error.status, error.message, error.causes) == (
        403,
        "forbidden: x",
        ("NamespaceTerminating",),
    )
    assert error.is_refusal


@pytest.mark.parametrize("body", ["", "upstream away", "[]", "{}"])
def test_answer_without_a_status_object_is_passed_on(body: str) -> None:
    error = refuse(503, body)
    assert error.message == (body or "Some Reason")
    assert not error.is_refusal


@pytest.mark.parametrize("text", ["<html>upstream is away</html>", "", "[]", '{"items": ['])
def test_answer_without_an_object_is_an_error_that_may_pass(text: str) -> None:
    with pytest.raises(ApiError, match="not a JSON object") as raised:
        read_body(200, text.encode())
    assert not raised.value.is_refusal


def test_object_in_an_answer_is_read() -> None:
    assert read_body(200, b'{"items": []}') == {"items": []}


@pytest.mark.parametrize(
    ("status", "expected"), [(400, True), (403, True), (422, True), (409, False), (500, False)]
)
def test_refusal_is_what_repeating_does_not_mend(status: int, expected: bool) -> None:
    assert ApiError(status, "").is_refusal is expected


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("v1.35.2", (1, 35)),
        ("v1.34.1-gke.100", (1, 34)),
        ("v1.33.0+k3s1", (1, 33)),
        ("1.36.0", (1, 36)),
        ("", None),
        ("unknown", None),
    ],
)
def test_kubelet_s_version_is_read_where_it_is_known(
    text: str, version: tuple[int, int] | None
) -> None:
    assert read_kubelet_version({"status": {"nodeInfo": {"kubeletVersion": text}}}) == version


def test_node_that_has_just_joined_has_no_version() -> None:
    assert read_kubelet_version({"metadata": {"name": "new"}}) is None
