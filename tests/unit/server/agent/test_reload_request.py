"""The reload request of the Pod annotation."""

import pytest
from prefork.agent.reload_request import parse_reload_request


def test_reload_request():
    request = parse_reload_request('{"id": "00ff", "content": {"source": "ab"}}')
    assert request is not None
    assert (request.id, request.content) == ("00ff", {"source": "ab"})
    assert parse_reload_request("") is None


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"id": 5, "content": {}}', '{"id": "a", "content": {"s": 1}}', "no"]
)
def test_reload_request_that_is_none(text: str):
    with pytest.raises(ValueError, match=r"it is not|Expecting value"):
        parse_reload_request(text)
