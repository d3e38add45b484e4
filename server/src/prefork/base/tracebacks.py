"""Tracebacks and stacks as the app's author wants them: without the server's own frames."""

import importlib
import os
import traceback

import prefork
from prefork.errors import StartupError

OWN_FOLDER = os.path.join(os.path.dirname(os.path.abspath(prefork.__file__)), "")


def describe_failure(error: BaseException) -> str:
    """Return the traceback of a failed import as the app's author wants it: from the app's code on.

    A StartupError is a sentence already.
    """
    if isinstance(error, StartupError):
        return str(error)
    trace = error.__traceback__
    while trace is not None and is_machinery(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)).rstrip()


def is_machinery(filename: str) -> bool:
    if filename.startswith(("<frozen importlib", OWN_FOLDER)):
        return True
    return filename == importlib.__file__


def clean_stack(text: str) -> str:
    """Return a stack as faulthandler writes it, without the frames below the app's own."""
    named = (
        (line, line.strip().removeprefix('File "').partition('"')[0]) for line in text.splitlines()
    )
    return "\n".join(line for line, filename in named if not is_machinery(filename))


def last_line(text: str) -> str:
    """Return the line of a traceback that says what happened; "" for an empty text."""
    lines = text.rstrip().splitlines()
    return lines[-1] if lines else ""
