"""How a start can fail: the exit codes, and the one exception that carries a message for a person."""

import enum


class Exit(enum.IntEnum):
    """Exit codes of every prefork command."""

    OK = 0
    BUG = 1
    USAGE = 2  # a setting, an option or the config file
    APP = 3  # the app does not import, or its workers never get ready
    LISTEN = 4  # an address cannot be bound
    ENVIRONMENT = 5  # run directory, engine, log file


class StartupError(Exception):
    """Something outside this program has to change first; `str()` says what, and to what."""

    def __init__(self, message: str, code: Exit = Exit.USAGE) -> None:
        super().__init__(message)
        self.code = code
