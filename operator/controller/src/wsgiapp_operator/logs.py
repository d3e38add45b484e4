"""The operator's log lines, as prefork writes its own: text (`time LEVEL message key=value …`), or a JSON object each.

Code logs as the standard library has it, with constant messages and keys in them: `logger.info("created: kind=%s", kind)`.
"""

import json
import logging
import re
import time

# `key=%s` in a message, and the directives of `%`.
KEY = re.compile(r"[ :]*\b(\w+)=")
DIRECTIVE = re.compile(r"%(?:%|[-+ #0-9.]*[a-zA-Z])")


def make_formatter(name: str) -> logging.Formatter:
    """Return the formatter of that format: text or json."""
    return JsonFormatter() if name == "json" else TextFormatter()


class TextFormatter(logging.Formatter):
    """One line, and an indented traceback below it."""

    def format(self, record: logging.LogRecord) -> str:
        first, *rest = record.getMessage().splitlines() or [""]
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        line = f"{show_time(record.created)} {record.levelname:8} {first} logger={record.name}"
        return "\n".join([line, *(f"  {more}" for more in (*rest, *trace.splitlines()))])


class JsonFormatter(logging.Formatter):
    """One object: the message without its keys, and the keys by themselves."""

    def format(self, record: logging.LogRecord) -> str:
        message, keys = split_message(record)
        found = {
            "time": show_time(record.created), "level": record.levelname.lower(), "message": message,
            "logger": record.name,
        }  # fmt: skip
        found |= {key: value for key, value in keys.items() if key not in found}
        if record.exc_info:
            found["traceback"] = self.formatException(record.exc_info)
        return json.dumps(found, separators=(",", ":"))


def show_time(created: float) -> str:
    """Return seconds since the epoch in UTC, with milliseconds."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created))
    return f"{stamp}.{int(created * 1000) % 1000:03d}Z"


def split_message(record: logging.LogRecord) -> tuple[str, dict[str, str]]:
    """Return the constant part of a message and its keys; all of it is the message where it has none."""
    template, given = str(record.msg), record.args
    if not isinstance(given, tuple) or not KEY.search(template):
        return record.getMessage(), {}
    values = list(given)

    def fill(part: str) -> str:
        wanted = [d for d in DIRECTIVE.findall(part) if d != "%%"]
        taken = tuple(values.pop(0) for _ in wanted)
        return part % taken

    try:
        message, *pairs = KEY.split(template)
        filled = fill(message)
        keys = {
            key: fill(value).strip(" ,") for key, value in zip(pairs[::2], pairs[1::2], strict=True)
        }
    except (TypeError, ValueError, IndexError):
        return record.getMessage(), {}
    return filled, keys
