"""Reads a config file: Python, with gunicorn's names for settings and server hooks.

The file runs in the arbiter, as in gunicorn, with the working directory first in sys.path. What it
imports goes to its generation (`imports`).
"""

import ast
import difflib
import importlib
import inspect
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from prefork.config import exit_guard
from prefork.config.gunicorn import HOOKS, UNSUPPORTED, UNSUPPORTED_HOOKS, is_so_already
from prefork.config.imports import Imports
from prefork.config.options import SETTINGS
from prefork.errors import StartupError, TimeLimitError

NO_FILE = "none"
DEFAULT_FILES = ("prefork.conf.py", "gunicorn.conf.py")

# From a folder to the version of it that is to be read (docs/contracts.md, section 4).
Move = Callable[[Path], Path]


@dataclass(frozen=True)
class ConfigFile:
    """What one config file says."""

    source: str
    values: Mapping[str, Any] = field(default_factory=dict)
    hooks: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    imports: Imports = field(default_factory=Imports)


def read_config_file(named: str, *, folder: Path, move: Move) -> ConfigFile:
    """Return what the file `named` says; without a name, of the default file in `folder`, if any.

    Raises StartupError when the file is missing, raises, or sets something that would be unsafe to leave
    out.
    """
    if named == NO_FILE:
        return ConfigFile(source="")
    if not named:
        default = next((folder / name for name in DEFAULT_FILES if (folder / name).is_file()), None)
        if default is None:
            return ConfigFile(source="")
        named = str(default)
    imports = Imports()
    with imports.lent():
        sys.path[:] = [str(folder), *(entry for entry in sys.path if entry != str(folder))]
        names, assigned = run_file(named, folder=folder, move=move)
    return sort_names(names, assigned, source=named, imports=imports)


def run_file(named: str, *, folder: Path, move: Move) -> tuple[dict[str, Any], frozenset[str]]:
    """Run the file; return the names it defines, and which of them it assigns itself."""
    try:
        if named.startswith("python:"):
            module = load_module(named.removeprefix("python:"))
            source = module.__file__ or ""
            tree = ast.parse(Path(source).read_bytes() if source.endswith(".py") else "")
            return load_hooks(dict(vars(module)), named), assigned_names(tree)
        path = folder / named.removeprefix("file:")
        path = move(path.parent) / path.name
        tree = ast.parse(read_source(path, named, folder), str(path))
        module = ModuleType("__config__")
        module.__file__ = str(path)
        sys.modules[module.__name__] = module
        exec(compile(tree, str(path), "exec"), vars(module))
        return load_hooks(dict(vars(module)), named), assigned_names(tree)
    except StartupError:
        raise
    except SyntaxError as error:
        raise StartupError(
            f"config file {error.filename or named}, line {error.lineno or 1}: {error.msg}"
        ) from None
    except TimeLimitError as error:
        raise StartupError(f"config file {named}: {error}") from None
    except BaseException as error:  # SystemExit too: it must not end a server that reloads
        if isinstance(error, KeyboardInterrupt) and is_ctrl_c_heard():
            raise
        where = innermost_line(error)
        raise StartupError(
            f"config file {named}{where}: {type(error).__name__}: {error}"
        ) from error


def read_source(path: Path, named: str, folder: Path) -> bytes:
    """Return the text of the config file. Raises StartupError when it is not there or cannot be read."""
    try:
        if path.exists() and not path.is_dir():
            return path.read_bytes()
    except OSError as error:
        raise StartupError(
            f"config file {path} cannot be read: {error.strerror}; the user that runs prefork (uid {os.geteuid()}) needs the right to"
        ) from None
    raise StartupError(f"config is {named}; there is no such file in {folder}")


def is_ctrl_c_heard() -> bool:
    """Return whether Ctrl-C may be where a KeyboardInterrupt comes from: not in an arbiter that serves."""
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


def load_module(name: str) -> ModuleType:
    """Return the module as it is on disk now."""
    loaded = sys.modules.get(name)
    return importlib.reload(loaded) if loaded is not None else importlib.import_module(name)


def load_hooks(names: dict[str, Any], source: str) -> dict[str, Any]:
    """Return the names with a function for each hook that is a text, `shop.hooks.post_fork`, as gunicorn takes it."""
    texts = {name: text for name in HOOKS if type(text := names.get(name)) is str and text}
    return names | {name: load_hook(name, text, source) for name, text in texts.items()}


def load_hook(name: str, text: str, source: str) -> Any:
    module, _, attribute = text.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise StartupError(
            f"{name} is {text!r}: {error}; use a function, or its MODULE.NAME as text (from {source})"
        ) from error


def assigned_names(tree: ast.AST) -> frozenset[str]:
    """Return the names that a file binds by assignment, not by an import; pure."""
    return frozenset(
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    )


def innermost_line(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        if trace.tb_next.tb_frame.f_code.co_filename == exit_guard.__file__:
            break  # the line before has called `os._exit`
        trace = trace.tb_next
    return f" ({trace.tb_frame.f_code.co_filename}, line {trace.tb_lineno})" if trace else ""


def sort_names(
    names: Mapping[str, Any], assigned: frozenset[str], *, source: str, imports: Imports
) -> ConfigFile:
    """Sort the file's names into settings, hooks and warnings; pure."""
    known = {setting.name: setting for setting in SETTINGS if not setting.is_command}
    unsupported = {entry.name: entry for entry in UNSUPPORTED}
    values: dict[str, Any] = {}
    hooks: dict[str, Callable[..., Any]] = {}
    warnings: list[str] = []
    for name, value in names.items():
        if name in known and name != "config":
            values[name] = value
        elif name in HOOKS and callable(value):
            hooks[name] = value
        elif name in HOOKS and not (value is None or inspect.ismodule(value)):
            raise StartupError(f"{name} is {value!r}; it is called: use a function (from {source})")
        elif name in UNSUPPORTED_HOOKS and callable(value):
            warnings.append(f"{name} is not called by prefork (from {source})")
        elif name in unsupported and not is_unset(value):
            if is_so_already(name, value):
                continue
            if unsupported[name].is_unsafe_to_ignore:
                raise StartupError(
                    f"{name} is not supported; {unsupported[name].remedy} (from {source})"
                )
            warnings.append(f"{name} is not supported: {unsupported[name].remedy} (from {source})")
        elif name in assigned and (close := find_close(name, value, known.keys() - names.keys())):
            warnings.append(f"{name} is not a setting; did you mean {close}? (from {source})")
    return ConfigFile(source, values, hooks, tuple(warnings), imports)


def find_close(name: str, value: Any, known: Iterable[str]) -> str:
    """Return the setting that a plain value was probably meant for; "" when nothing is close."""
    if name.startswith("_") or not isinstance(value, bool | int | float | str | list | tuple):
        return ""
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.85)
    return close[0] if close else ""


def is_unset(value: Any) -> bool:
    """Tell values by which a file switches a thing off, and modules that merely share a name."""
    if type(value) in (str, int, float):
        return not value
    return value is None or value is False or inspect.ismodule(value)
