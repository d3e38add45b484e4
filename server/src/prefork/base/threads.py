"""Whether Python's threads are still threads, and not greenlets in their place."""

import _thread

from prefork.errors import Exit, StartupError

# As they are before any code of the app or of the config file has run: `cli` imports this first.
ORIGINALS = {
    name: getattr(_thread, name)
    for name in ("start_new_thread", "start_joinable_thread", "get_ident", "allocate_lock")
    if hasattr(_thread, name)
}


FOR_APPS = (
    "worker class threads cannot run such an app: use --worker-class gevent, or remove the patching"
)
FOR_CONFIG_FILES = "the arbiter cannot run with that: remove the patching from the config file; --worker-class gevent patches what imports the app"


def refuse_replaced(remedy: str = FOR_APPS) -> None:
    """Raise StartupError when Python's threads have been replaced, as gevent and eventlet do it.

    App threads would then be greenlets of one thread: they would stop each other, and no order of the
    arbiter would be read.
    """
    for name, original in ORIGINALS.items():
        found = getattr(_thread, name, None)
        if found is not original:
            by = getattr(found, "__module__", None) or type(found).__module__
            message = f"{by} has replaced Python's threads (_thread.{name}), as gevent's monkey.patch_all() does; {remedy}"
            raise StartupError(message, Exit.APP)
