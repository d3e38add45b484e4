"""The commands: serve, check, print the settings, be the agent, operate a running server. Imports everything; no other module imports it."""

import importlib
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import partial
from pathlib import Path

from prefork.base import bytecode, exit_functions, processes, threads
from prefork.base.log import Log, escape_controls
from prefork.base.python_start import explain_unsuited
from prefork.base.standard_output import write_out
from prefork.base.termination_log import write_termination_message
from prefork.base.versions import boot_version, is_pinned
from prefork.base.working_directory import current_directory, named_directory, working_in
from prefork.config.config_file import Move
from prefork.config.environment import replace_environment
from prefork.config.options import SETTINGS, Options
from prefork.config.sources import Configuration, configure
from prefork.errors import Exit, StartupError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    processes.open_standard_descriptors()
    try:
        if arguments[:1] == ["agent"]:
            # Imported here: what only the agent needs must not get into the server's processes.
            from prefork.agent.app import main as run_agent

            return run_agent(arguments[1:])
        if arguments and arguments[0] in ("status", "reload", "stop"):
            from prefork.operate import operate

            return operate(arguments, os.environ)
        return run_server(arguments)
    except StartupError as error:
        # The exit code says it too, also where the stream has no room for the sentence, or is closed.
        with suppress(OSError, ValueError):
            print(f"prefork: {escape_controls(str(error))}", file=sys.stderr, flush=True)
        write_termination_message(str(error))
        return error.code
    except KeyboardInterrupt:
        print(f"prefork: interrupted{describe_interrupted(arguments)}", file=sys.stderr)
        return Exit.INTERRUPTED


def describe_interrupted(arguments: Sequence[str]) -> str:
    """Return what goes on without this program; pure."""
    match arguments:
        case ["reload" | "stop" as operation, *_]:
            return f"; a {operation} that has been requested goes on, prefork status shows it"
        case _:
            return ""


def run_server(arguments: Sequence[str]) -> int:
    """Serve, or carry out `--check-config` or `--print-config`."""
    exit_functions.record()  # before the config file may register any
    environment = dict(os.environ)
    folder = named_directory(environment)
    bytecode.keep_settled_only()
    configure_again = partial(read_settings, arguments, environment, folder)
    configuration = configure_again(version_to_start_with)
    threads.refuse_replaced(threads.FOR_CONFIG_FILES)
    options = configuration.options
    log = Log(level=options.loglevel, style=options.log_format)
    for source in configuration.sources:
        log.info("settings read", source=source)
    for warning in configuration.warnings:
        log.warning("ignoring setting", what=warning)
    if unsuited := explain_unsuited(sys.modules):
        log.warning(unsuited)
    if options.print_config:
        write_out("\n".join(show_options(options)))
        return Exit.OK
    if not options.wsgi_app:
        raise StartupError(
            "no app is named; use prefork MODULE:CALLABLE, such as prefork shop.wsgi:application"
        )

    require_engine()
    # Imported here: they need the engine, and the agent needs neither.
    from prefork.arbiter.check import check
    from prefork.arbiter.start import run
    from prefork.worker.patching import require_gevent

    change_directory(options)
    replace_environment(configuration.environment)
    if options.worker_class == "gevent":
        require_gevent(options.pythonpath)
    if options.check_config:
        check(configuration, log)
    return run(configuration, log, reread=configure_again)


def read_settings(
    arguments: Sequence[str], environment: Mapping[str, str], folder: Path, move: Move
) -> Configuration:
    """As `configure`, in the directory that prefork was started in, as its name leads there now.

    The standard descriptors that a config file closes are open again afterwards.
    """
    here = current_directory(folder)
    with working_in(here), processes.keep_standard_descriptors() as closed:
        configuration = configure(arguments, environment, folder=here, move=move)
    warnings = tuple(
        f"a config file closed descriptor {number}, which is open again" for number in closed
    )
    warnings = (*configuration.warnings, *warnings)
    return replace(configuration, warnings=warnings, folder=folder)


def version_to_start_with(folder: Path) -> Path:
    return boot_version(folder) if is_pinned(folder) else folder


def require_engine() -> None:
    """Raise StartupError where this Python has no engine."""
    try:
        importlib.import_module("prefork._engine")
    except ImportError as error:
        if error.name != "prefork._engine":
            raise
        python = f"{sys.implementation.cache_tag} on {platform.machine()} {platform.libc_ver()[0] or 'without glibc'}"
        message = f"prefork has no engine for {python} ({error.msg}); it needs CPython 3.11 or newer on glibc"
        raise StartupError(message, Exit.ENVIRONMENT) from None


def change_directory(options: Options) -> None:
    """Change to the app's directory, before anything is started."""
    if options.chdir:
        try:
            os.chdir(options.chdir)
        except OSError as error:
            raise StartupError(f"chdir is {options.chdir}; {error.strerror}") from None


def show_options(options: Options) -> list[str]:
    """Return lines `name = value` of all settings that a config file could hold; pure."""
    commands = {setting.name for setting in SETTINGS if setting.is_command}
    return [
        f"{column.name} = {getattr(options, column.name)!r}"
        for column in fields(options)
        if column.name not in commands
    ]
