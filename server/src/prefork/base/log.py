"""Log lines: `time LEVEL message key=value …` on standard error or in one file.

Messages are constant, values go in keys, so that a line can be searched for. The standard library's
logging is left alone: it belongs to the app, which configures it as it likes. One `write` per line,
so lines of several processes do not mix (POSIX: an append is atomic).
"""

import os
import sys
import time
import traceback
from collections.abc import Mapping
from typing import Any

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


class Log:
    """Writes lines of at least `level` to `fd`; the same object serves arbiter, mold and worker."""

    def __init__(self, fd: int = 2, level: str = "info") -> None:
        self.fd = fd
        self.set_level(level)

    def set_level(self, level: str) -> None:
        """From now on write lines of at least `level`."""
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

    def block(self, text: str) -> None:
        """Write lines of a traceback or a stack as they are, indented by two blanks."""
        lines = "".join(f"  {line}\n" for line in text.rstrip().splitlines())
        self._put(lines)

    def _write(
        self, level: str, message: object, args: tuple[Any, ...], keys: dict[str, Any]
    ) -> None:
        if LEVELS[level] < self.threshold:
            return
        # Keywords that mean something to `logging`; all others are keys of the line.
        failure = find_failure(keys.pop("exc_info", None))
        for ignored in ("extra", "stack_info", "stacklevel"):
            keys.pop(ignored, None)
        self._put(format_line(time.time(), level, fill_in(message, args), keys))
        if failure is not None:
            self.block("".join(traceback.format_exception(failure)))

    def _put(self, text: str) -> None:
        try:
            os.write(self.fd, text.encode("utf-8", "backslashreplace"))
        except OSError:
            # A full disk or a closed pipe must not stop the server; there is nowhere to say so.
            return


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


def format_line(now: float, level: str, message: str, keys: dict[str, Any]) -> str:
    """Return one log line; pure. `now` in seconds since the epoch, shown in UTC with milliseconds."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
    pairs = "".join(f" {key}={quote(value)}" for key, value in keys.items())
    return f"{stamp}.{int(now * 1000) % 1000:03d}Z {level.upper():8} {message}{pairs}\n"


def quote(value: Any) -> str:
    """Return `value` as it is written after `key=`: quoted where blanks would hide its end."""
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    if text and not any(c in ' "=\n\r\t\\' or not c.isprintable() for c in text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    printable = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in escaped)
    return '"' + "".join(printable) + '"'
