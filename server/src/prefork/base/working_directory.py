"""The working directory by its name, so that each reload goes where the name leads then.

Releases are often kept side by side, with a link to the one that serves: `current -> releases/42`. The
kernel knows the directory only, and forgets the link by which a shell went there; the shell's $PWD has it.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from prefork.errors import Exit, StartupError


def named_directory(environment: Mapping[str, str]) -> Path:
    """Return the working directory by the name in $PWD, if that leads there.

    Raises StartupError where it has been removed, or where this user may not see it.
    """
    try:
        here = os.getcwd()
    except OSError as error:
        raise StartupError(
            f"the working directory is not there any more, or cannot be seen: {error.strerror}; start prefork in another one",
            Exit.ENVIRONMENT,
        ) from None
    named = environment.get("PWD", "")
    is_name = os.path.isabs(named) and os.path.realpath(named) == here
    return Path(named if is_name else here)


def current_directory(named: Path) -> Path:
    """Return where a name leads now, without links. Raises StartupError when that is not a directory."""
    path = Path(os.path.realpath(named))
    if not (is_here(path) or os.path.isdir(path)):
        raise StartupError(f"the working directory {named} is not there any more")
    return path


def is_here(path: Path) -> bool:
    """Whether this process works there: then it need not have the right to go there (`sudo -u app` in /root)."""
    try:
        return os.getcwd() == str(path)
    except OSError:  # removed
        return False


def go_to(directory: Path) -> None:
    """Make it the working directory. Raises StartupError when it is not there any more, or may not be entered."""
    if is_here(directory):
        return
    try:
        os.chdir(directory)
    except OSError as error:
        raise StartupError(f"the working directory is {directory}; {error.strerror}") from None


@contextmanager
def working_in(directory: Path) -> Iterator[None]:
    """Have it as the working directory for a while; the one before may have been removed."""
    before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        go_to(directory)
        yield
    finally:
        with suppress(OSError):  # closed with all others, or not to be entered any more
            os.fchdir(before)
        with suppress(OSError):
            os.close(before)


def move_paths(paths: Sequence[str], before: str, after: str) -> list[str]:
    """Return search paths in which what was in one directory is in another; pure."""
    return [
        after + path[len(before) :] if path == before or path.startswith(f"{before}/") else path
        for path in paths
    ]
