"""Whether a start could use the files and folders that settings name, without making any of them."""

import errno
import os
from pathlib import Path

from prefork.base.addresses import parse_addresses
from prefork.config.options import Options
from prefork.errors import Exit, StartupError


def check_files(options: Options) -> None:
    """Raise StartupError, with the sentence of a start, for the first one that could not be used."""
    for setting, path in files_to_write(options):
        if why := explain_unwritable_file(Path(path)):
            raise StartupError(
                f"{setting} is {path}; it cannot be written: {why}", Exit.ENVIRONMENT
            )
    for address in parse_addresses(options.bind):
        if address.path and (why := explain_unwritable_folder(Path(address.path).parent)):
            raise StartupError(f"cannot listen on {address.text}: {why}", Exit.LISTEN)
    if options.run_dir and (why := explain_unusable_run_dir(Path(options.run_dir))):
        raise StartupError(f"run_dir is {options.run_dir}; {why}", Exit.ENVIRONMENT)


def files_to_write(options: Options) -> list[tuple[str, str]]:
    """Return setting and path of each file that a start opens; pure."""
    named = [
        ("errorlog", options.errorlog),
        ("accesslog", options.accesslog),
        ("pidfile", options.pidfile),
    ]
    return [(setting, path) for setting, path in named if path not in ("", "-")]


def explain_unwritable_file(path: Path) -> str:
    """Return why this file cannot be opened for writing, or made; "" when it can."""
    if path.is_dir():
        return os.strerror(errno.EISDIR)
    if path.exists():
        return "" if os.access(path, os.W_OK) else os.strerror(errno.EACCES)
    return explain_unwritable_folder(path.parent)


def explain_unwritable_folder(path: Path) -> str:
    """Return why no file can be made in this folder; "" when one can."""
    if not path.exists():
        return os.strerror(errno.ENOENT)
    if not path.is_dir():
        return os.strerror(errno.ENOTDIR)
    return "" if os.access(path, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)


def explain_unusable_run_dir(path: Path) -> str:
    """Return why this folder cannot be used; where there is none, why none can be made. "" when it can."""
    if path.is_dir():
        return "" if os.access(path, os.W_OK | os.X_OK) else "it cannot be written"
    if path.exists():
        return os.strerror(errno.EEXIST)
    above = next(folder for folder in path.absolute().parents if folder.exists())
    return explain_unwritable_folder(above)
