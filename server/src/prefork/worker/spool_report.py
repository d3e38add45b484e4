"""Says what workers will have to do without where there can be no spool."""

from prefork.base import spool_dir
from prefork.base.log import Log
from prefork.config.options import Options


def report_unusable_spool(options: Options, log: Log, **keys: object) -> None:
    """Log a warning, with `keys`, where no file can be made in the directory of the spool."""
    directory = spool_dir.resolve(options.spool_dir)
    why = spool_dir.explain_unusable(directory) if options.spool_size else None
    if why:
        log.warning(
            "request bodies above 1 MiB cannot be spooled, a slow upload will occupy an app thread: set --spool-dir",
            **keys,
            why=why,
        )
