"""Reports what the app raises: one record in the server's log, next to everything else that went wrong."""

import os

from prefork.base.log import Log
from prefork.config.options import Options


class ErrorReport:
    """Called by the engine for each exception that leaves the app; what is not known of the request is None."""

    def __init__(self, log: Log, options: Options) -> None:
        self.log = log
        self.hides_queries = options.hide_query_strings

    def __call__(
        self, error: BaseException, method: str | None, target: str | None, request_id: str | None
    ) -> None:
        if target is not None and self.hides_queries:
            target = target.partition("?")[0]
        known = {"method": method, "target": target, "request_id": request_id}
        keys = {name: value for name, value in known.items() if value is not None}
        self.log.error("error while answering", pid=os.getpid(), **keys, exc_info=error)
