"""The command line: a parser made from the table of settings, and messages that name the remedy."""

import argparse
import difflib
from collections.abc import Sequence
from typing import Any, NoReturn

from prefork import __version__
from prefork.config.gunicorn import UNSUPPORTED, is_so_already
from prefork.config.options import PRELOAD_VALUES, SETTINGS
from prefork.config.settings import show_value
from prefork.errors import StartupError

DESCRIPTION = "Serve a WSGI app with pre-forked workers, ready-gated reloads and metrics."
EPILOG = """\
commands:
  prefork status, reload, stop   ask a running prefork over its control socket ([--run-dir DIR])
  prefork agent …                metrics, probes and reload requests next to a running prefork (prefork agent --help)

signals to the arbiter:
  HUP reload · TERM stop gracefully · INT, QUIT stop at once · TTIN, TTOU one worker more, less · USR1 reopen log files

Each option can be set in the environment (PREFORK_MAX_REQUESTS=1000) and in the config file (max_requests = 1000).
"""


class Parser(argparse.ArgumentParser):
    """argparse with our error messages and without exits of its own."""

    def error(self, message: str) -> NoReturn:
        raise StartupError(f"{message}; prefork --help lists the options")


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
    parser.add_argument("-v", "--version", action="version", version=f"prefork {__version__}")
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
    for unsupported in UNSUPPORTED:
        if unsupported.flags:
            action: dict[str, Any] = (
                {} if unsupported.takes_value else {"action": "store_const", "const": True}
            )
            parser.add_argument(
                *unsupported.flags,
                dest=f"unsupported {unsupported.name}",
                help=argparse.SUPPRESS,
                **action,
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
    known, unknown = parser.parse_known_args(spell_preload(arguments))
    if unknown:
        raise StartupError(explain_unknown(unknown[0], parser))
    given = {
        name: value for name, value in vars(known).items() if not name.startswith("unsupported ")
    }
    warnings = []
    for unsupported in UNSUPPORTED:
        key = f"unsupported {unsupported.name}"
        if key in vars(known) and not is_so_already(unsupported.name, vars(known)[key]):
            if unsupported.is_unsafe_to_ignore:
                raise StartupError(
                    f"{unsupported.flags[-1]} is not supported; {unsupported.remedy}"
                )
            warnings.append(f"{unsupported.flags[-1]} is not supported: {unsupported.remedy}")
    return given, tuple(warnings)


def spell_preload(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with a value for each `--preload`; pure.

    An option with an optional value would swallow the app's name after it: only a word that is a
    value of it is taken for one.
    """
    spelled: list[str] = []
    for argument in arguments:
        if spelled and spelled[-1] == "--preload" and argument in PRELOAD_VALUES:
            spelled[-1] = f"--preload={argument}"
        else:
            spelled.append("--preload=never" if argument == "--no-preload" else argument)
    return ["--preload=always" if argument == "--preload" else argument for argument in spelled]


def explain_unknown(argument: str, parser: argparse.ArgumentParser) -> str:
    """Return what to say about an unknown argument; pure."""
    if not argument.startswith("-"):
        return f"unexpected argument {argument}; name one app, as in prefork shop.wsgi:application"
    named = argument.partition("=")[0]
    options = [flag for action in parser._actions for flag in action.option_strings]
    close = difflib.get_close_matches(named, options, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]}?" if close else "prefork --help lists the options"
    return f"unknown option {named}; {hint}"
