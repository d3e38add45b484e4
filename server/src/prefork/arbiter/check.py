"""`--check-config`: whether prefork would start; nothing is opened."""

from typing import NoReturn

from prefork._engine import Engine
from prefork.arbiter.file_check import check_files
from prefork.base.digest import parse_content
from prefork.base.log import Log
from prefork.base.stats import create_private_table
from prefork.base.tracebacks import describe_failure, last_line
from prefork.base.versions import boot_version
from prefork.config.options import Options
from prefork.config.sources import Configuration
from prefork.errors import Exit, StartupError
from prefork.worker import gunicorn_loggers
from prefork.worker.app_import import WsgiApp, enter_versions, extend_search_path
from prefork.worker.boot import engine_settings
from prefork.worker.error_report import ErrorReport
from prefork.worker.fork_safety import summarize
from prefork.worker.holdings import own_children
from prefork.worker.import_end import end_check
from prefork.worker.inspection import import_and_inspect
from prefork.worker.spool_report import report_unusable_spool


def check(configuration: Configuration, log: Log) -> NoReturn:
    """Import the app and say whether prefork would start; nothing is opened, and nothing of the import is left."""
    options = configuration.options
    check_files(options)
    configuration.imports.adopt()
    versions = {path: boot_version(path) for path in parse_content(options.content).values()}
    enter_versions(versions)
    extend_search_path(options.pythonpath, versions)
    gunicorn_loggers.install(log, options, -1)
    try:
        imported = import_and_inspect(options.wsgi_app, worker_class=options.worker_class)
    except BaseException as error:
        failure = describe_failure(error)
        log.error(
            "cannot import app", app=options.wsgi_app, error=last_line(failure), traceback=failure
        )
        end_check(own_children(), log.fd, Exit.APP)
    check_engine(imported.app, options, log)
    report_import(options.preload_app, imported.hazards, log)
    report_unusable_spool(options, log)
    log.info("configuration valid, app imports", app=options.wsgi_app)
    end_check(own_children(), log.fd)


def check_engine(app: WsgiApp, options: Options, log: Log) -> None:
    """Build an engine that no client can reach. Raises StartupError for settings that it does not take."""
    with create_private_table() as table:
        try:
            Engine(
                app,
                listeners=(),
                settings=engine_settings(options, slot=1, generation=1),
                stats_fd=table.fileno(),
                slot=1,
                report_error=ErrorReport(log, options),
            )
        except ValueError as error:
            raise StartupError(str(error)) from None


def report_import(preload: str, hazards: tuple[str, ...], log: Log) -> None:
    """Log whether workers can share the import."""
    found = summarize(hazards)
    if not hazards:
        log.info("the import can be shared by all workers", preload=preload)
    elif preload == "always":
        log.warning("the import holds what processes must not share", found=found, preload=preload)
    else:
        log.info("each worker imports for itself", found=found, preload=preload)
