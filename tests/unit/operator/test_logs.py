"""The operator's log lines are like the server's, and their keys can be searched for."""

import json
import logging
import sys

from wsgiapp_operator.logs import make_formatter


def record(message: str, *arguments: object, failure: bool = False) -> logging.LogRecord:
    found = logging.LogRecord(
        "wsgiapp_operator.apply", logging.INFO, "", 0, message, arguments, None
    )
    found.created = 0.25
    if failure:
        try:
            raise ValueError("no")
        except ValueError:
            found.exc_info = sys.exc_info()
    return found


def test_json_lines_have_constant_messages_and_keys():
    line = make_formatter("json").format(
        record("operating: kubernetes=%d.%d namespaces=%s what=%r", 1, 35, "a,b", "x y")
    )
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:00.250Z", "level": "info", "message": "operating",
        "logger": "wsgiapp_operator.apply", "kubernetes": "1.35", "namespaces": "a,b", "what": "'x y'",
    }  # fmt: skip


def test_json_keeps_what_is_no_message_of_ours():
    line = make_formatter("json").format(record("100%% of %s\nlines", "x", failure=True))
    assert "\n" not in line
    found = json.loads(line)
    assert found["message"] == "100% of x\nlines"
    assert found["traceback"].endswith("ValueError: no")


def test_text_lines_are_like_the_servers():
    text = make_formatter("text").format(record("created: kind=%s", "Pod", failure=True))
    first, *rest = text.splitlines()
    assert (
        first == "1970-01-01T00:00:00.250Z INFO     created: kind=Pod logger=wsgiapp_operator.apply"
    )
    assert rest[0] == "  Traceback (most recent call last):"
    assert rest[-1] == "  ValueError: no"
