"""With `--log-format json`: what Python code prints to standard output and standard error becomes JSON objects too.

So whoever reads the container's log finds one object per line, also where the app prints, or logs through a handler
that it made itself. A line that is a JSON object already is passed on as it is. What does not go through `sys.stdout`
and `sys.stderr` (C code, child processes, faulthandler's stacks) is not seen here.
"""

import _thread
import io
import os
import sys
import time

# Functions, not the module: an app may put others in their place there.
from json import dumps, loads
from typing import Any, TextIO

from prefork.base.log import encode, format_time
from prefork.base.log_sink import Sink


class JsonStream(io.TextIOBase):
    """Stands for `sys.stdout` or `sys.stderr`; a record is what is written up to a line end at the end of a write.

    So a traceback that is written at once, as `logging` does, is one record, and `print` with several arguments too.
    """

    def __init__(self, stream: TextIO, name: str, sink: Sink) -> None:
        self._stream = stream
        self._name = name
        self._sink = sink
        self._begun = _thread._local()  # by thread: what has no line end so far

    # As the app finds them on the stream itself.
    @property
    def name(self) -> str:
        return f"<{self._name}>"

    @property
    def buffer(self) -> Any:
        return self._stream.buffer

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        return "backslashreplace"

    def fileno(self) -> int:
        return self._stream.fileno()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def writable(self) -> bool:
        return True

    def reconfigure(self, **_: object) -> None:
        """Nothing of it would change a record."""

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        begun = getattr(self._begun, "text", "") + text
        whole, end, rest = begun.rpartition("\n")
        self._begun.text = rest
        if end:
            self._emit(whole)
        return len(text)

    def flush(self) -> None:
        begun, self._begun.text = getattr(self._begun, "text", ""), ""
        if begun:
            self._emit(begun)

    def _emit(self, text: str) -> None:
        if text.strip():
            self._sink.write(encode(text + "\n" if is_json(text) else self._wrap(text)))

    def _wrap(self, text: str) -> str:
        record = {
            "time": format_time(time.time()),
            "stream": self._name,
            "message": text,
            "pid": os.getpid(),
        }
        return dumps(record, separators=(",", ":")) + "\n"


def is_json(text: str) -> bool:
    """Whether each line is a JSON object."""
    for line in text.split("\n"):
        if not (line.startswith("{") and line.rstrip().endswith("}")):
            return False
        try:
            loads(line)
        except ValueError:
            return False
    return True


def install(errors: Sink, patience_s: float) -> None:
    """Put such streams in the place of both; `errors` is the sink of the server's log."""

    def describe_lost(count: int) -> bytes:
        return encode(f'{{"time":"{format_time(time.time())}","lost_lines":{count}}}\n')

    out = Sink(1, describe_lost, patience_s)
    err = errors if errors.fd == 2 else Sink(2, describe_lost, patience_s)
    sys.stdout, sys.stderr = (
        JsonStream(sys.stdout, "stdout", out),
        JsonStream(sys.stderr, "stderr", err),
    )
