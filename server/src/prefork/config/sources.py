"""From argv, environment and config file to `Options`.

Order of precedence: command line, environment, config file, default.
"""

import difflib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prefork.config import capacity
from prefork.config.command_line import parse_arguments
from prefork.config.config_file import ConfigFile, read_config_file
from prefork.config.environment import borrowed_environment
from prefork.config.imports import Imports
from prefork.config.options import SETTINGS, Options
from prefork.config.settings import Setting
from prefork.errors import StartupError


@dataclass(frozen=True)
class Configuration:
    """All settings and hooks as configured, and the warnings about them."""

    options: Options
    hooks: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    config_file: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)  # of the app
    imports: Imports = field(default_factory=Imports)  # of the config file


def configure(
    arguments: Sequence[str], environment: Mapping[str, str], *, folder: Path
) -> Configuration:
    """Put all sources together.

    `folder` is where relative paths of the config file begin: the directory prefork was started in.
    Raises StartupError with a message for a person for anything that is not right.
    """
    given, warnings = parse_arguments(arguments)
    named, _ = pick(next(s for s in SETTINGS if s.name == "config"), given, environment)
    # What the file changes in the environment belongs to the generation it configures, as raw_env does.
    with borrowed_environment(environment):
        file = read_config_file(named or "", folder=folder)
        variables = dict(os.environ)
    values = {}
    for setting in SETTINGS:
        value, source = pick(setting, given, environment, file)
        if source:
            values[setting.name] = read(setting, value, source)
    if "bind" not in values and environment.get("PORT", "").isdigit():
        values["bind"] = (f"0.0.0.0:{environment['PORT']}",)
    options = Options(**values)
    if options.workers == "auto":
        options = replace(options, workers=capacity.plan_workers(capacity.observe_capacity()))
    warnings += (*find_misspelled(environment), *file.warnings, *find_pointless(options))
    variables |= dict(pair.split("=", 1) for pair in options.raw_env)
    return Configuration(options, file.hooks, warnings, file.source, variables, file.imports)


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


def pick(
    setting: Setting,
    given: Mapping[str, Any],
    environment: Mapping[str, str],
    file: ConfigFile | None = None,
) -> tuple[Any, str]:
    """Return the value that wins and where it was set; ("", "") when it is not set."""
    if setting.name in given:
        return given[setting.name], f"option {setting.flags[-1] if setting.flags else 'APP'}"
    for name in setting.environment:
        if environment.get(name):
            return environment[name], f"environment {name}"
    if file is not None and setting.name in file.values:
        return file.values[setting.name], file.source
    return "", ""


def read(setting: Setting, value: Any, source: str) -> Any:
    try:
        return setting.read(value, source)
    except ValueError as error:
        raise StartupError(str(error)) from None
