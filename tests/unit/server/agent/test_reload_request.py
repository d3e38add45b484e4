"""The reload request of the Pod annotation."""

import pytest
from prefork.agent.control import Rejected, parse_answer
from prefork.agent.reload_request import (
    Progress,
    parse_reload_request,
    parse_result,
    parse_status,
)


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


@pytest.mark.parametrize(
    "line", [b'{"error": "no"}\n', b"{\n", b"[]\n", b"\xff\n", b"null\n", b"[" * 100_000]
)
def test_answer_that_is_none_is_a_rejection(line: bytes):
    with pytest.raises(Rejected, match=r"rejects it: no|not a JSON object"):
        parse_answer(line)


LAST = {"id": "a", "result": "failed", "message": "no", "traceback": ""}


def test_status_of_the_server():
    status = parse_status({"state": "booting", "content": {"s": "1"}, "reload": None})
    assert (status.is_booting, status.content, status.last) == (True, {"s": "1"}, None)
    status = parse_status({"state": "serving", "content": {}, "reload": LAST})
    assert (status.is_booting, status.last) == (False, Progress("a", "failed", "no"))
    assert not status.is_reloading
    answer = {"state": "serving", "content": {}, "reload": None, "reloading": True}
    assert parse_status(answer).is_reloading


@pytest.mark.parametrize(
    "answer", [{}, {"state": 1, "content": {}, "reload": None}, {"state": "serving", "content": {}},
               {"state": "serving", "content": {}, "reload": {"id": "a"}}],
)  # fmt: skip
def test_status_that_cannot_be_read_is_a_rejection(answer: dict[str, object]):
    with pytest.raises(Rejected, match="cannot be read"):
        parse_status(answer)


@pytest.mark.parametrize("changes", [{"result": "maybe"}, {"message": None}, {"id": 5}])
def test_result_that_cannot_be_read_is_a_rejection(changes: dict[str, object]):
    with pytest.raises(Rejected, match="cannot be read"):
        parse_result({**LAST, **changes})
