"""Output of the commands that print what was asked for: the whole of it, or a sentence."""

import os

from prefork.errors import Exit, StartupError


def write_out(text: str) -> None:
    """Print to standard output. Raises StartupError where it cannot be written: its reader is gone, the disk is full."""
    try:
        print(text, flush=True)
    except OSError as error:
        # What is left in its buffer would fail again at the end of the program.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        raise StartupError(
            f"standard output cannot be written: {error.strerror}", Exit.ENVIRONMENT
        ) from None
