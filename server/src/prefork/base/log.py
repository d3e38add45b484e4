"""Log lines: `time LEVEL message key=value …` on standard error or in one file.

Messages are constant, values go in keys, so that a line can be searched for. The standard library's
logging is left alone: it belongs to the app, which configures it as it likes. One `write` per line,
so lines of several processes do not mix (POSIX: an append is atomic).
"""

import os
import time
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
    def debug(self, message: str, *args: Any, **keys: Any) -> None:
        self._write("debug", message, args, keys)

    def info(self, message: str, *args: Any, **keys: Any) -> None:
        self._write("info", message, args, keys)

    def warning(self, message: str, *args: Any, **keys: Any) -> None:
        self._write("warning", message, args, keys)

    def error(self, message: str, *args: Any, **keys: Any) -> None:
        self._write("error", message, args, keys)

    def critical(self, message: str, *args: Any, **keys: Any) -> None:
        self._write("critical", message, args, keys)

    def block(self, text: str) -> None:
        """Write lines of a traceback or a stack as they are, indented by two blanks."""
        lines = "".join(f"  {line}\n" for line in text.rstrip().splitlines())
        self._put(lines)

    def _write(self, level: str, message: str, args: tuple[Any, ...], keys: dict[str, Any]) -> None:
        if LEVELS[level] < self.threshold:
            return
        if args:
            message = message % args
        self._put(format_line(time.time(), level, message, keys))

    def _put(self, text: str) -> None:
        try:
            os.write(self.fd, text.encode("utf-8", "backslashreplace"))
        except OSError:
            # A full disk or a closed pipe must not stop the server; there is nowhere to say so.
            return


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
