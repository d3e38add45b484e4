"""How a start can fail: the exit codes, and the exceptions that carry a message for a person."""

import enum

# Of a text that is logged or shown, in bytes of UTF-8.
TEXT_LIMIT = 64 * 1024


def shorten(text: str, limit: int = TEXT_LIMIT) -> str:
    """Return the text, or where it has more bytes than `limit` its head and tail, with the size between them; pure.

    What an app or a config file raises has a text of any size, and what happened may be at either end.
    """
    encoded = text.encode("utf-8", "backslashreplace")
    if (left_out := len(encoded) - limit) <= 0:
        return encoded.decode()
    head, tail = encoded[: limit // 2], encoded[-(limit // 2) :]
    between = f"\n... {left_out} of {len(encoded)} bytes are left out ...\n"
    return head.decode("utf-8", "ignore") + between + tail.decode("utf-8", "ignore")


class Exit(enum.IntEnum):
    """Exit codes of every prefork command."""

    OK = 0
    BUG = 1
    USAGE = 2  # a setting, an option or the config file
    APP = 3  # the app does not import, or its workers never get ready
    LISTEN = 4  # an address cannot be bound
    ENVIRONMENT = 5  # run directory, engine, log file
    INTERRUPTED = 130  # Ctrl-C before a server runs, or while one is waited for; as shells have it


class StartupError(Exception):
    """Something outside this program has to change first; `str()` says what, and to what."""

    def __init__(self, message: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(shorten(message))
        self.code = code


class InUseError(StartupError):
    """An address that another process holds; perhaps not for long. `where` is the TCP port or the socket's path."""

    def __init__(self, message: str, where: int | str) -> None:
        super().__init__(message, Exit.LISTEN)
        self.where = where


class TimeLimitError(BaseException):
    """Raised in code of the app's owner that occupies the arbiter for too long; `str()` says for how long, and where.

    Not an Exception: it would be caught where that code tries something again.
    """
