"""From argv, environment and config file to `Options`.

Order of precedence: command line, environment, config file, default. Of the environment the names of
our own come first, then gunicorn's `GUNICORN_CMD_ARGS`, then names that several servers read, as
WEB_CONCURRENCY: gunicorn takes its defaults from those.
"""

import difflib
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from re import fullmatch
from typing import Any

from prefork import __version__
from prefork.config import capacity
from prefork.config.command_line import parse_arguments
from prefork.config.config_file import ConfigFile, Move, read_config_file
from prefork.config.environment import borrowed_environment
from prefork.config.imports import Imports
from prefork.config.options import SETTINGS, Options
from prefork.config.settings import Setting
from prefork.errors import StartupError

GUNICORN_ARGUMENTS = "GUNICORN_CMD_ARGS"
# By this variable, which gunicorn sets, apps find out that they are served: then they start their scheduler, or borrow the
# server's handlers of `logging`. They look for the word, at its beginning or anywhere.
SERVER_SOFTWARE = f"gunicorn-compatible prefork/{__version__}"


@dataclass(frozen=True)
class Given:
    """What the sources say, as text; of the file also as values."""

    arguments: Mapping[str, Any]
    environment: Mapping[str, str]
    gunicorn_arguments: Mapping[str, Any]
    file: ConfigFile | None = None  # until it is read


@dataclass(frozen=True)
class Configuration:
    """All settings and hooks as configured, and the warnings about them."""

    options: Options
    hooks: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()  # what was read that a person may not have thought of
    environment: Mapping[str, str] = field(default_factory=dict)  # of the app
    imports: Imports = field(default_factory=Imports)  # of the config file
    folder: Path = Path()  # that prefork was started in, by its name


def configure(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    folder: Path,
    move: Move = lambda folder: folder,
) -> Configuration:
    """Put all sources together.

    `folder` is where relative paths of the config file begin: the directory prefork was started in.
    `move` leads from a folder to the version of it that is to be read.
    Raises StartupError with a message for a person for anything that is not right.
    """
    parsed, warnings = parse_arguments(arguments)
    gunicorn_parsed, more = parse_gunicorn_arguments(environment.get(GUNICORN_ARGUMENTS, ""))
    given = Given(parsed, environment, gunicorn_parsed)
    named, _ = pick(next(s for s in SETTINGS if s.name == "config"), given)
    # What the file changes in the environment belongs to the generation it configures, as raw_env does.
    with borrowed_environment(environment):
        file = read_config_file(named or "", folder=move(folder), move=move)
        variables = {"SERVER_SOFTWARE": SERVER_SOFTWARE} | dict(os.environ)
    given = replace(given, file=file)
    values = {}
    for setting in SETTINGS:
        value, source = pick(setting, given)
        if source:
            values[setting.name] = read(setting, value, source)
    if "bind" not in values and fullmatch("[0-9]{1,9}", environment.get("PORT", "")):
        values["bind"] = (f"0.0.0.0:{environment['PORT']}",)
    options = Options(**values)
    if options.workers == "auto":
        options = replace(options, workers=capacity.plan_workers(capacity.observe_capacity()))
    warnings += (*more, *find_misspelled(environment), *file.warnings, *find_pointless(options))
    variables |= dict(pair.split("=", 1) for pair in options.raw_env)
    variable = f"environment {GUNICORN_ARGUMENTS}" if gunicorn_parsed else ""
    read_file = f"config file {file.source}" if file.source else ""
    sources = tuple(source for source in (variable, read_file) if source)
    return Configuration(options, file.hooks, warnings, sources, variables, file.imports)


def parse_gunicorn_arguments(text: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return what `GUNICORN_CMD_ARGS` sets, and warnings; pure. As on the command line, but for an app's name."""
    try:
        given, warnings = parse_arguments(shlex.split(text))
    except (ValueError, StartupError) as error:
        raise StartupError(f"{GUNICORN_ARGUMENTS} in the environment: {error}") from None
    given.pop("wsgi_app", None)  # gunicorn does not look for one there
    return given, tuple(f"{warning} (from {GUNICORN_ARGUMENTS})" for warning in warnings)


def find_pointless(options: Options) -> tuple[str, ...]:
    """Return warnings about settings that others make meaningless; pure."""
    if options.worker_class == "gevent" and options.threads > 1:
        return (
            f"threads={options.threads} has no effect with worker class gevent: "
            "worker_connections bounds the requests that run at once",
        )
    return ()


def find_misspelled(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return warnings about variables that look like settings but are not; pure.

    Only near misses: a Kubernetes Service called "prefork" sets PREFORK_PORT and others.
    """
    known = [name for setting in SETTINGS for name in setting.environment]
    warnings = []
    for name in environment:
        if name.startswith("PREFORK_") and name not in known:
            close = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
            warnings += (
                [f"environment {name} is not a setting; did you mean {close[0]}?"] if close else []
            )
    return tuple(warnings)


def pick(setting: Setting, given: Given) -> tuple[Any, str]:
    """Return the value that wins and where it was set; ("", "") when it is not set."""
    option = f"option {setting.flags[-1] if setting.flags else 'APP'}"
    if setting.name in given.arguments:
        return given.arguments[setting.name], option
    own, others = setting.environment[:1], setting.environment[1:]
    if found := pick_variable(own, given.environment):
        return found
    if setting.name in given.gunicorn_arguments:
        return given.gunicorn_arguments[setting.name], f"{option} in {GUNICORN_ARGUMENTS}"
    if found := pick_variable(others, given.environment):
        return found
    if given.file is not None and setting.name in given.file.values:
        return given.file.values[setting.name], given.file.source
    return "", ""


def pick_variable(names: Sequence[str], environment: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the first variable that is set and not empty, and its source."""
    return next(
        ((environment[name], f"environment {name}") for name in names if environment.get(name)),
        None,
    )


def read(setting: Setting, value: Any, source: str) -> Any:
    try:
        return setting.read(value, source)
    except ValueError as error:
        raise StartupError(str(error)) from None
