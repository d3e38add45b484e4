"""Imports the app: MODULE:CALLABLE or MODULE:FACTORY(arguments)."""

import ast
import importlib
import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from prefork.base.versions import follow
from prefork.base.working_directory import go_to, move_paths
from prefork.errors import Exit, StartupError

DEFAULT_NAME = "application"
# Of a module that has not what is named: so many names that look like an app, or else of what can be called.
SUGGESTED = 3
SHOWN = 8
WsgiApp = Callable[..., Any]


@dataclass(frozen=True)
class AppName:
    """A parsed `MODULE:EXPRESSION`."""

    module: str
    attribute: str  # may be dotted
    is_factory: bool = False
    arguments: tuple[Any, ...] = ()
    keywords: tuple[tuple[str, Any], ...] = ()


def parse_app_name(text: str) -> AppName:
    """Return the parts of an app's name; pure. Raises StartupError when it is not one."""
    module, _, expression = text.partition(":")
    expression = expression or DEFAULT_NAME
    if module.endswith(".py") or not all(part.isidentifier() for part in module.split(".")):
        hint = " (leave .py out)" if module.endswith(".py") else ""
        raise invalid_name(
            text, f"{module or 'the part before the colon'} is not a module name{hint}"
        )
    try:
        node = ast.parse(expression, mode="eval").body
        if isinstance(node, ast.Call):
            arguments = tuple(ast.literal_eval(argument) for argument in node.args)
            keywords = tuple(
                (str(k.arg), ast.literal_eval(k.value)) for k in node.keywords if k.arg
            )
            return AppName(module, dotted(node.func), True, arguments, keywords)
        return AppName(module, dotted(node))
    except (SyntaxError, ValueError):
        raise invalid_name(
            text, f"{expression} is neither a name nor a call with plain values"
        ) from None


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    raise ValueError


def invalid_name(text: str, why: str) -> StartupError:
    return StartupError(
        f"the app is {text}; {why}; use MODULE:CALLABLE, such as shop.wsgi:application"
    )


def enter_directory(directory: Path, before: Path) -> None:
    """Work in `directory`, and search there what was searched in the one `before`, as by PYTHONPATH=lib.

    Raises StartupError when it is not there any more.
    """
    go_to(directory)
    sys.path[:] = move_paths(sys.path, str(before), str(directory))


def enter_versions(versions: Mapping[Path, Path]) -> None:
    """Have the versions of this generation for the content folders, as working directory and in sys.path.

    A content folder itself leads to what serves, which is another version before and after. The real path
    of a version stays, so whatever is imported or opened later is what belongs to this code.
    """
    here = os.getcwd()
    if (there := follow(here, versions)) != here:
        os.chdir(there)
    sys.path[:] = [follow(entry, versions) for entry in sys.path]


def extend_search_path(pythonpath: Sequence[str], versions: Mapping[Path, Path]) -> None:
    """Put the working directory and `pythonpath` before everything else in sys.path."""
    paths = [follow(os.path.abspath(path), versions) for path in pythonpath]
    for folder in (os.getcwd(), *reversed(paths)):
        sys.path[:] = [folder, *(entry for entry in sys.path if entry != folder)]


def import_app(text: str) -> WsgiApp:
    """Import the app and return its callable.

    Raises StartupError when the name does not lead to a WSGI app; whatever the import raises.
    """
    name = parse_app_name(text)
    module = importlib.import_module(name.module)
    found = find_attribute(module, name, text)
    if name.is_factory:
        found = found(*name.arguments, **dict(name.keywords))
    if not callable(found):
        what = "returned" if name.is_factory else "is"
        message = f"{name.attribute} {what} {type(found).__name__}, which cannot be called"
        raise StartupError(f"the app is {text}; {message}", Exit.APP)
    what = f"what {name.attribute}(…) returns" if name.is_factory else name.attribute
    if why := explain_unlike_wsgi(found, what, f"{name.module}:{name.attribute}"):
        raise StartupError(f"the app is {text}; {why}", Exit.APP)
    return found  # type: ignore[no-any-return]


def explain_unlike_wsgi(app: WsgiApp, what: str, path: str) -> str:
    """Return why `app` cannot be called with (environ, start_response); "" when it can, or when that is unknown.

    `what` names it in the sentence, `path` on the command line.
    """
    signature = read_signature(app)
    if signature is None or accepts(signature, 2):
        return ""
    names = ", ".join(signature.parameters)
    why = f"{what} takes ({names}), but a WSGI app is called with (environ, start_response)"
    if accepts(signature, 3):
        return f"{why}; for an ASGI app use an ASGI server"
    if accepts(signature, 0):
        return f"{why}; if it returns the app, write {path}()"
    if accepts(signature, 1):
        return f"{why}; if it returns the app, write {path}(VALUE) with its argument"
    return why


def read_signature(app: WsgiApp) -> inspect.Signature | None:
    """Return how `app` is called; None where that is unknown, as of many callables in C.

    What a decorator has copied from the function it wraps (`__wrapped__`, `__signature__`) says nothing of its own.
    """
    try:
        if hasattr(app, "__signature__") or hasattr(type(app).__call__, "__signature__"):
            return None
        return inspect.signature(app, follow_wrapped=False)
    except Exception:  # whatever a proxy raises when it is looked at
        return None


def accepts(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def find_attribute(module: ModuleType, name: AppName, text: str) -> Any:
    found: Any = module
    for part in name.attribute.split("."):
        if not hasattr(found, part):
            message = (
                f"module {name.module} has no {name.attribute!r}{suggest(module, name.module)}"
            )
            raise StartupError(f"the app is {text}; {message}", Exit.APP)
        found = getattr(found, part)
    return found


def suggest(module: ModuleType, path: str) -> str:
    """Return what of `module` may be meant, as it is to be written; "" where there is nothing to call."""
    callables = {
        key: value
        for key, value in sorted(vars(module).items())
        if callable(value) and not key.startswith("_") and not isinstance(value, type)
    }
    likely = [text for key, value in callables.items() if (text := write(path, key, value))]
    if likely:
        return f"; did you mean {' or '.join(likely[:SUGGESTED])}?"
    return f"; it has {', '.join(list(callables)[:SHOWN])}" if callables else ""


def write(path: str, key: str, value: Any) -> str:
    """Return how a callable is written if it looks like an app or like a factory of one; else ""."""
    signature, is_function = read_signature(value), inspect.isfunction(value)
    is_named_so = "app" in key.lower()
    if signature is None:
        return ""
    if accepts(signature, 2):
        return f"{path}:{key}" if is_named_so or not is_function else ""
    return f"{path}:{key}()" if is_named_so and is_function and accepts(signature, 0) else ""
