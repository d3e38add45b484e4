"""Formats of the access log are compiled once, or refused."""

import pytest
from prefork.config.access_log import compile_format, read_format

NUMBERS = {"pid": 7, "worker": 1, "generation": 2}


def test_json_has_its_time_first_and_what_never_changes_last():
    fields = ("pid", "status", "time", "generation", "header:x-own", "status")
    assert compile_format("json", fields, NUMBERS) == (
        "json",
        [('{"time":', "time"), (',"status":', "status"), (',"x-own":', "header:x-own")],
        ',"pid":7,"generation":2}',
    )


def test_text_keeps_literals_and_has_its_own_numbers_in_them():
    assert compile_format('<%(l)s|%(p)s> %(h)s 5%% "%({X-A}i)s"', (), NUMBERS) == (
        "text",
        [("<-|<7>> ", "client"), (' 5% "', "header:X-A")],
        '"',
    )


@pytest.mark.parametrize("text", ["json", "common", "combined", "%(s)s", "%%%(s)s%%"])
def test_formats_that_are_taken(text: str):
    assert read_format(text) == text


@pytest.mark.parametrize(
    "value",
    [
        "",
        "text",
        "%(x)s",
        "%(h)",
        "%(h)s %",
        "%s",
        "%({x}o)s",
        "%({a\nb}i)s",
        "%(h)s\n",
        5,
        None,
        "%(h)s" + "x" * 1000,
    ],
)
def test_formats_that_are_refused(value: object):
    with pytest.raises(ValueError):  # noqa: PT011 - `Setting.read` makes the message
        read_format(value)
