"""Log lines of the server, on standard error or in one file: text (`time LEVEL message key=value …`) or JSON objects.

Messages are constant, values go in keys, so that a line can be searched for. The standard library's
logging is left alone: it belongs to the app, which configures it as it likes.
"""

import os
import sys
import time
import traceback as tracebacks
from collections.abc import Callable, Mapping

# Functions, not the module: an app may put others in their place there.
from json import dumps
from typing import TYPE_CHECKING, Any

from prefork.base.log_sink import PATIENCE_S, Sink
from prefork.errors import shorten

if TYPE_CHECKING:
    import logging

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
STYLES = ("text", "json")
LOST = "log lines were lost: their reader is too slow, or they cannot be written"


class Log:
    """Writes records of at least `level` to `fd`; the same object serves arbiter, mold and worker.

    The key `traceback` is the text of a traceback or a stack: below the line, indented, or a key of the object.
    """

    def __init__(
        self,
        fd: int = 2,
        level: str = "info",
        style: str = "text",
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.fd = fd
        self.style = style
        self.sink = Sink(fd, self._describe_lost, patience_s)
        # Gives the loggers of gunicorn's names their handlers, in the arbiter for hooks that ask for them.
        self.set_up_loggers: Callable[[], None] = lambda: None
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """From now on write records of at least `level`."""
        self.threshold = LEVELS[level]

    # `args` as in logging (%-style): gunicorn's server hooks call `server.log.info("%s", x)`.
    def debug(self, message: object, *args: Any, **keys: Any) -> None:
        self._write("debug", message, args, keys)

    def info(self, message: object, *args: Any, **keys: Any) -> None:
        self._write("info", message, args, keys)

    def warning(self, message: object, *args: Any, **keys: Any) -> None:
        self._write("warning", message, args, keys)

    def error(self, message: object, *args: Any, **keys: Any) -> None:
        self._write("error", message, args, keys)

    def critical(self, message: object, *args: Any, **keys: Any) -> None:
        self._write("critical", message, args, keys)

    def exception(self, message: object, *args: Any, **keys: Any) -> None:
        """As `error`, with the traceback of the exception that is being handled."""
        self._write("error", message, args, {"exc_info": True, **keys})

    def log(self, level: int | str, message: object, *args: Any, **keys: Any) -> None:
        """Write at a level by name, or by number as `logging` has them."""
        number = LEVELS.get(level.lower(), LEVELS["info"]) if isinstance(level, str) else level
        named = [name for name, least in LEVELS.items() if least <= number]
        self._write(named[-1] if named else "debug", message, args, keys)

    warn, fatal = warning, critical

    # gunicorn's logger has these, and hooks add handlers and filters to them.
    @property
    def error_log(self) -> "logging.Logger":
        return self._set_up("gunicorn.error")

    @property
    def access_log(self) -> "logging.Logger":
        return self._set_up("gunicorn.access")

    def _set_up(self, name: str) -> "logging.Logger":
        found = logger(name)
        if not found.handlers:
            self.set_up_loggers()
        return found

    @property
    def loglevel(self) -> int:
        return self.threshold

    def setup(self, *_: object) -> None:
        """Nothing to do, as in the next two: the files are the server's, and opened again by USR1."""

    reopen_files = close_on_exec = setup

    def put(self, level: str, message: str, keys: Mapping[str, Any]) -> None:
        """Write one record, whatever the threshold."""
        format_record = format_json if self.style == "json" else format_text
        bounded = {key: shorten(v) if isinstance(v, str) else v for key, v in keys.items()}
        self.sink.write(encode(format_record(time.time(), level, shorten(message), bounded)))

    def _write(
        self, level: str, message: object, args: tuple[Any, ...], keys: dict[str, Any]
    ) -> None:
        if LEVELS[level] < self.threshold:
            return
        # Keywords that mean something to `logging`; all others are keys of the record.
        failure = find_failure(keys.pop("exc_info", None))
        for ignored in ("extra", "stack_info", "stacklevel"):
            keys.pop(ignored, None)
        if failure is not None:
            keys["traceback"] = "".join(tracebacks.format_exception(failure))
        self.put(level, fill_in(message, args), keys)

    def _describe_lost(self, count: int) -> bytes:
        format_record = format_json if self.style == "json" else format_text
        keys = {"pid": os.getpid(), "lines": count}
        return encode(format_record(time.time(), "warning", LOST, keys))


def logger(name: str) -> "logging.Logger":
    # Imported when it is asked for: most processes of the server do without.
    import logging

    return logging.getLogger(name)


def encode(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")


def fill_in(message: object, args: tuple[Any, ...]) -> str:
    """Return the message with its arguments, as `logging` merges them; what does not fit is shown as it is."""
    text = str(message)
    if not args:
        return text
    try:
        return text % (args[0] if len(args) == 1 and isinstance(args[0], Mapping) else args)
    except (TypeError, ValueError, KeyError):
        return f"{text} {args!r}"


def find_failure(exc_info: object) -> BaseException | None:
    """Return the exception that `exc_info` means: one, a triple as of sys.exc_info(), or true for the current one."""
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1]
    if isinstance(exc_info, BaseException):
        return exc_info
    return sys.exception() if exc_info else None


def format_time(now: float) -> str:
    """Return seconds since the epoch in UTC, with milliseconds."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    return f"{stamp}.{int(now * 1000) % 1000:03d}Z"


def format_text(now: float, level: str, message: str, keys: Mapping[str, Any]) -> str:
    """Return one record as text; pure. What has lines of its own follows the line, indented by two blanks.

    So whoever can put a line end into a message cannot make a line that looks like one of ours, and whoever can put
    control characters into one does not reach the terminal that shows the log.
    """
    first, *rest = escape_controls(message).splitlines() or [""]
    stack = str(keys.get("traceback", "")).strip("\n")
    if stack == keys.get("error"):
        stack = ""  # one sentence, which the line itself has
    block = [*rest, *escape_controls(stack).rstrip().splitlines()]
    pairs = "".join(f" {key}={quote(value)}" for key, value in keys.items() if key != "traceback")
    lines = "".join(f"  {line}\n" for line in block)
    return f"{format_time(now)} {level.upper():8} {first}{pairs}\n{lines}"


def format_json(now: float, level: str, message: str, keys: Mapping[str, Any]) -> str:
    """Return one record as a JSON object on one line; pure."""
    record: dict[str, Any] = {"time": format_time(now), "level": level, "message": message}
    for key, value in keys.items():
        record[f"{key}_" if key in record else key] = plain(value)
    return dumps(record, separators=(",", ":")) + "\n"


def plain(value: Any) -> Any:
    """Return a value as JSON has it: numbers stay numbers, lists lists, all else is text."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int)) else str(value)


def escape_controls(text: str) -> str:
    """Return the text with all that is not printable written as Python would; line ends and tabs stay. Pure."""
    if text.isprintable():
        return text
    return "".join(map(escape_control, text))


def escape_control(character: str) -> str:
    if character.isprintable() or character in "\n\t":
        return character
    return character.encode("unicode_escape").decode()


def quote(value: Any) -> str:
    """Return `value` as it is written after `key=`: quoted where blanks would hide its end."""
    if isinstance(value, float):
        return f"{value:.3f}"
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    if text and not any(c in ' "=\n\r\t\\' or not c.isprintable() for c in text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    printable = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in escaped)
    return '"' + "".join(printable) + '"'
