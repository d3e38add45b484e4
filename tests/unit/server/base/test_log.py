"""Log records can be searched and split, in both formats."""

import json
import os
from pathlib import Path

from prefork.base.log import Log, format_json, format_text


def test_log_values_are_quoted_where_their_end_would_not_be_seen():
    line = format_text(
        0.5,
        "info",
        "worker ready",
        {"pid": 7, "how": "exit code 1", "q": 'a"b\n', "s": 0.25, "e": "", "l": ["GET /", "x"]},
    )
    assert line == (
        "1970-01-01T00:00:00.500Z INFO     worker ready "
        'pid=7 how="exit code 1" q="a\\"b\\n" s=0.250 e="" l="GET /, x"\n'
    )


def test_no_message_or_traceback_can_begin_a_line_of_its_own():
    text = format_text(0, "error", "a\nb", {"traceback": "Traceback\n  File\n"})
    assert text == "1970-01-01T00:00:00.000Z ERROR    a\n  b\n  Traceback\n    File\n"


def test_an_error_of_one_sentence_is_said_once():
    keys = {"error": "no module a", "traceback": "no module a\n"}
    assert format_text(0, "error", "m", keys).endswith('ERROR    m error="no module a"\n')
    assert '"traceback":"no module a\\n"' in format_json(0, "error", "m", keys)


def test_control_characters_do_not_reach_the_terminal_that_shows_the_log():
    text = format_text(
        0, "error", "a\x1b[2Jb\r\x9b\u202e\udc80c\td", {"traceback": "T\x1b]0;x\x07\n\tF\x00\n"}
    )
    assert text == (
        "1970-01-01T00:00:00.000Z ERROR    a\\x1b[2Jb\\r\\x9b\\u202e\\udc80c\td\n"
        "  T\\x1b]0;x\\x07\n  \tF\\x00\n"
    )


def test_json_record_is_one_line_whose_first_keys_are_its_own():
    keys = {
        "level": "mine",
        "n": 3,
        "s": 0.12345,
        "path": Path("/x"),
        "traceback": "a\nb",
        "z": None,
    }
    line = format_json(1.25, "warning", "m\u2028\udc80", keys)
    assert line.count("\n") == 1
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.250Z", "level": "warning", "message": "m\u2028\udc80", "level_": "mine",
        "n": 3, "s": 0.123, "path": "/x", "traceback": "a\nb", "z": None,
    }  # fmt: skip


def test_record_waits_for_a_reader_once_and_is_reported_when_lost():
    reader, writer = os.pipe()
    try:
        os.set_blocking(writer, False)
        while True:
            try:
                os.write(writer, b"x" * 4096)
            except BlockingIOError:
                break
        os.set_blocking(writer, True)
        log = Log(writer, patience_s=0.05)
        for _ in range(30):
            log.info("y" * 10_000)
        os.set_blocking(reader, False)
        while True:
            try:
                os.read(reader, 1 << 20)
            except BlockingIOError:
                break
        log.info("again")
        found = os.read(reader, 1 << 20).decode()
    finally:
        os.close(reader)
        os.close(writer)
    # Some were kept; with them comes the count of the others.
    kept = sum(line.endswith("y" * 10_000) for line in found.splitlines())
    assert kept > 0
    assert "INFO     again\n" in found
    assert kept + int(found.split("lines=")[1].split()[0]) == 30
