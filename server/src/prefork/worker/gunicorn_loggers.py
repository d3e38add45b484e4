"""Gives the loggers `gunicorn.error` and `gunicorn.access` a handler and a level, as gunicorn does.

Apps borrow them (`app.logger.handlers = logging.getLogger("gunicorn.error").handlers`): what they log then goes to
the server's log, in its format. The root logger and all others stay the app's.
"""

import logging
import os

from prefork.base.log import Log
from prefork.config.options import Options


class LogHandler(logging.Handler):
    """Writes records to the server's log; their levels are judged by the logger that has the handler."""

    def __init__(self, log: Log) -> None:
        super().__init__()
        self.log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.log.put(record.levelname.lower(), self.format(record), self.keys_of(record))
        except Exception:
            self.handleError(record)

    def keys_of(self, record: logging.LogRecord) -> dict[str, object]:
        keys: dict[str, object] = {"logger": record.name, "pid": os.getpid()}
        if record.exc_text:
            keys["traceback"] = record.exc_text
        return keys


class Message(logging.Formatter):
    """The message alone; the traceback is kept for a key of its own."""

    def format(self, record: logging.LogRecord) -> str:
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        return record.getMessage()


def install(log: Log, options: Options, access_fd: int) -> None:
    """Set both loggers up; `access_fd` is the access log's, or -1 when there is none."""
    style = "json" if options.access_log_format == "json" else "text"
    lines = Log(access_fd, style=style) if access_fd >= 0 else log
    for name, target in (("gunicorn.error", log), ("gunicorn.access", lines)):
        logger = logging.getLogger(name)
        handler = LogHandler(target)
        handler.setFormatter(Message())
        logger.handlers[:] = [handler]
        logger.setLevel(log.threshold)
        logger.propagate = False
