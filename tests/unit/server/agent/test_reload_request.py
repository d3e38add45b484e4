"""The reload request of the Pod annotation."""

import pytest
from prefork.agent.reload_request import parse_wish


def test_reload_wish():
    wish = parse_wish('{"id": "00ff", "content": {"source": "ab"}}')
    assert wish is not None
    assert (wish.id, wish.content) == ("00ff", {"source": "ab"})
    assert parse_wish("") is None


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"id": 5, "content": {}}', '{"id": "a", "content": {"s": 1}}', "no"]
)
def test_reload_wish_that_is_none(text: str):
    with pytest.raises(ValueError, match=r"it is not|Expecting value"):
        parse_wish(text)
