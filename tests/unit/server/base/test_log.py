"""Log lines can be searched and split."""

from prefork.base.log import format_line


def test_log_values_are_quoted_where_their_end_would_not_be_seen():
    line = format_line(
        0.5,
        "info",
        "worker ready",
        {"pid": 7, "how": "exit code 1", "q": 'a"b\n', "s": 0.25, "e": ""},
    )
    assert line == (
        '1970-01-01T00:00:00.500Z INFO     worker ready pid=7 how="exit code 1" q="a\\"b\\n" s=0.250 e=""\n'
    )
