"""Imports the app and looks at what that left in this process. Called by molds, by workers, by `--check-config`."""

import contextlib
import gc
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from prefork.base import exit_functions
from prefork.base.exit_functions import Registration
from prefork.base.threads import refuse_replaced
from prefork.worker.app_import import WsgiApp, import_app
from prefork.worker.fork_safety import SHOWN, find_hazards
from prefork.worker.holdings import holder_of_descriptor, observe
from prefork.worker.patching import patch
from prefork.worker.warm_up import warm_up

# Registers the way out of a context that does nothing for files on disk, whenever `requests` is imported.
_HARMLESS = ("certifi",)


@dataclass(frozen=True)
class Imported:
    """The app, and what its import left that processes must not share, a phrase each."""

    app: WsgiApp
    hazards: tuple[str, ...]
    children: tuple[int, ...]  # pids of processes that the import started and that still run


def import_and_inspect(name: str, *, worker_class: str) -> Imported:
    """Import `name`, MODULE:CALLABLE, as `worker_class` needs it.

    Raises StartupError when it cannot serve; whatever the import raises.
    """
    if worker_class == "gevent":
        patch()
    before, known = observe(), len(exit_functions.registered())
    app = import_app(name)
    # What cannot be loaded is the business of the request that needs it.
    with contextlib.suppress(Exception, SystemExit):
        warm_up()
    registered = filter(None, map(describe, exit_functions.registered()[known:]))
    if worker_class == "threads":
        refuse_replaced()
    with every_object_visible():
        gc.collect()  # what is no longer referenced is closed by now, and not found
        after = observe(objects=True, shown=SHOWN)
        hazards = find_hazards(before, after, holder_of_descriptor)
    old = {pid for pid, _ in before.children}
    children = tuple(pid for pid, _ in after.children if pid not in old)
    return Imported(app, (*hazards, *registered), children)


@contextlib.contextmanager
def every_object_visible() -> Iterator[None]:
    """Let the garbage collector see what the app has frozen, as apps do for a server that forks."""
    was_frozen = gc.get_freeze_count() > 0
    if was_frozen:
        gc.unfreeze()
    try:
        yield
    finally:
        if was_frozen:
            gc.freeze()


def describe(registration: Registration) -> str:
    """Return what to say of an exit function, "" for one of the standard library's own; pure.

    Each process has to do it at its own end (flush its telemetry) or none may but the last (remove a
    folder): which, only the app knows, so such an import is not shared.
    """
    root = registration.module.partition(".")[0]
    if root in sys.stdlib_module_names or root in _HARMLESS:
        return ""
    named = getattr(registration.function, "__qualname__", None) or repr(registration.function)
    return f"exit function {named} registered by {registration.module} ({registration.line})"
