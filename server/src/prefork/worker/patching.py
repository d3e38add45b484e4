"""gevent in a process that imports the app: whether it is installed, and its changes to the standard library.

gevent is imported only here and in `gevent_loop`, and only for worker class gevent.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import PathFinder

from prefork.errors import StartupError


def require_gevent(pythonpath: Sequence[str]) -> None:
    """Raise StartupError where the app's process could not import gevent; it is not imported."""
    extra = [os.getcwd(), *(os.path.abspath(path) for path in pythonpath)]
    if importlib.util.find_spec("gevent") is None and PathFinder.find_spec("gevent", extra) is None:
        raise gevent_missing()


def gevent_missing() -> StartupError:
    return StartupError(
        f"worker_class is gevent, but gevent is not installed for {sys.executable}; "
        "install it (pip install gevent), or use --worker-class threads"
    )


def patch() -> None:
    """Have the standard library wait in gevent's hub; before the app's first import, as gevent needs it."""
    try:
        from gevent import monkey
    except ModuleNotFoundError as error:
        if error.name != "gevent":
            raise
        raise gevent_missing() from None
    monkey.patch_all()
