"""From argv, environment and config file to `Options`; the commands; exit codes.

Order of precedence: command line, environment, config file, default.
"""

import argparse
import difflib
import importlib
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import prefork
from prefork.base.log import Log
from prefork.base.termination_log import write_termination_message
from prefork.config import capacity
from prefork.config.config_file import ConfigFile, read_config_file
from prefork.config.options import FOREIGN, SETTINGS, Options, Setting
from prefork.errors import Exit, Refusal

DESCRIPTION = "Serve a WSGI app with pre-forked workers, ready-gated reloads and metrics."
EPILOG = """\
commands:
  prefork agent …     metrics, probes and reload wishes beside a running prefork (prefork agent --help)

signals to the arbiter:
  HUP reload · TERM stop gracefully · INT, QUIT stop at once · TTIN, TTOU one worker more, less · USR1 reopen log files

Each option can be set in the environment (PREFORK_MAX_REQUESTS=1000) and in the config file (max_requests = 1000).
"""


@dataclass(frozen=True)
class Configuration:
    """Everything that was asked for: settings, hooks, and what to say about it."""

    options: Options
    hooks: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    config_file: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        if arguments[:1] == ["agent"]:
            # Imported here: what only the agent needs must not get into the server's processes.
            from prefork.agent import main as run_agent

            return run_agent(arguments[1:])
        return run_server(arguments)
    except Refusal as refusal:
        print(f"prefork: {refusal}", file=sys.stderr)
        write_termination_message(str(refusal))
        return refusal.code


def run_server(arguments: Sequence[str]) -> int:
    """Serve, or carry out `--check-config` or `--print-config`."""
    folder = Path.cwd()
    environment = dict(os.environ)
    configuration = configure(arguments, environment, folder=folder)
    options = configuration.options
    log = Log(level=options.loglevel)
    for warning in configuration.warnings:
        log.warning("setting ignored", what=warning)
    if options.print_config:
        print("\n".join(show_options(options)))
        return Exit.OK
    if not options.wsgi_app:
        raise Refusal(
            "no app is named; use prefork MODULE:CALLABLE, as in prefork shop.wsgi:application"
        )

    server = import_server()
    enter_environment(options)
    if options.check_config:
        code: int = server.check(configuration, log)
    else:
        code = server.run(
            configuration, log, reread=lambda: configure(arguments, environment, folder=folder)
        )
    return code


def import_server() -> ModuleType:
    """Return the part that needs the engine. Raises Refusal where there is none for this Python."""
    try:
        return importlib.import_module("prefork.arbiter.start")
    except ImportError as error:
        if error.name != "prefork._engine":
            raise
        python = f"{sys.implementation.cache_tag} on {platform.machine()} {platform.libc_ver()[0] or 'without glibc'}"
        message = f"prefork has no engine for {python} ({error.msg}); it has them for CPython 3.11 and newer on glibc"
        raise Refusal(message, Exit.ENVIRONMENT) from None


def enter_environment(options: Options) -> None:
    """Change to the app's directory and set its variables, before anything is started."""
    if options.chdir:
        try:
            os.chdir(options.chdir)
        except OSError as error:
            raise Refusal(f"chdir is {options.chdir}; {error.strerror}") from None
    for pair in options.raw_env:
        name, _, value = pair.partition("=")
        os.environ[name] = value


def configure(
    arguments: Sequence[str], environment: Mapping[str, str], *, folder: Path
) -> Configuration:
    """Put all sources together.

    `folder` is where relative paths of the config file begin: the directory prefork was started in.
    Raises Refusal with a message for a person for anything that is not right.
    """
    given, warnings = parse_arguments(arguments)
    named, _ = pick(next(s for s in SETTINGS if s.name == "config"), given, environment)
    file = read_config_file(named or "", folder=folder)
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
    warnings += (*find_misspelled(environment), *file.warnings)
    return Configuration(options, file.hooks, warnings, file.source)


def find_misspelled(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return warnings about variables that look like settings and are none; pure.

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
    """Return the value that wins and where it stood; ("", "") when nobody set it."""
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
        raise Refusal(str(error)) from None


# -- command line -----------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """argparse with our error messages and without exits of its own."""

    def error(self, message: str) -> NoReturn:
        raise Refusal(f"{message}; prefork --help lists the options")


def build_parser() -> Parser:
    """Return the parser of the table of settings."""
    parser = Parser(
        prog="prefork",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        usage="prefork [options] MODULE:CALLABLE",
    )
    parser.add_argument("wsgi_app", nargs="?", metavar="APP", help=help_of("wsgi_app"))
    parser.add_argument(
        "-v", "--version", action="version", version=f"prefork {prefork.__version__}"
    )
    groups: dict[str, Any] = {}
    for setting in SETTINGS:
        if not setting.flags:
            continue
        if setting.section not in groups:
            groups[setting.section] = parser.add_argument_group(setting.section)
        keys: dict[str, Any] = {"dest": setting.name, "help": help_of(setting.name)}
        if setting.kind.is_flag:
            keys |= {"action": "store_const", "const": True}
        else:
            keys |= {"metavar": setting.kind.metavar}
            keys |= {"action": "append"} if setting.kind.repeatable else {}
        groups[setting.section].add_argument(*setting.flags, **keys)
    for foreign in FOREIGN:
        if foreign.flags:
            action: dict[str, Any] = (
                {} if foreign.takes_value else {"action": "store_const", "const": True}
            )
            parser.add_argument(
                *foreign.flags, dest=f"foreign {foreign.name}", help=argparse.SUPPRESS, **action
            )
    return parser


def help_of(name: str) -> str:
    """Return a setting's line of help, with its default."""
    setting = next(setting for setting in SETTINGS if setting.name == name)
    default = show_value(setting.default)
    shown = f"{setting.help} [{default}]" if default and not setting.kind.is_flag else setting.help
    return shown.replace("%", "%%")


def parse_arguments(arguments: Sequence[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the settings given on the command line, as text, and warnings."""
    parser = build_parser()
    spelled = [SPELLINGS.get(argument, argument) for argument in arguments]
    known, unknown = parser.parse_known_args(spelled)
    if unknown:
        raise Refusal(explain_unknown(unknown[0], parser))
    given = {name: value for name, value in vars(known).items() if not name.startswith("foreign ")}
    warnings = []
    for foreign in FOREIGN:
        if f"foreign {foreign.name}" in vars(known):
            if foreign.is_refused:
                raise Refusal(f"{foreign.flags[-1]} is not supported; {foreign.remedy}")
            warnings.append(f"{foreign.flags[-1]} is not supported: {foreign.remedy}")
    return given, tuple(warnings)


# An option with an optional value would swallow the app's name behind it.
SPELLINGS = {"--preload": "--preload=always", "--no-preload": "--preload=never"}


def explain_unknown(argument: str, parser: argparse.ArgumentParser) -> str:
    """Return what to say about an argument nobody knows; pure."""
    if not argument.startswith("-"):
        return f"unexpected argument {argument}; name one app, as in prefork shop.wsgi:application"
    named = argument.partition("=")[0]
    options = [flag for action in parser._actions for flag in action.option_strings]
    close = difflib.get_close_matches(named, options, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}?" if close else "prefork --help lists the options"
    return f"unknown option {named}; {hint}"


# -- showing ----------------------------------------------------------------------------------


def show_value(value: Any) -> str:
    """Return a value as one would write it."""
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def show_options(options: Options) -> list[str]:
    """Return lines `name = value` of all settings that a config file could hold; pure."""
    commands = {setting.name for setting in SETTINGS if setting.is_command}
    return [
        f"{column.name} = {getattr(options, column.name)!r}"
        for column in fields(options)
        if column.name not in commands
    ]
