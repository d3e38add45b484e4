"""What is registered for the end of the process: `atexit`, `weakref.finalize`, `multiprocessing`.

A forked process inherits its parent's registrations, and would carry them out a second time: remove
a folder that others still use, end another process's children. Each process of the server therefore
begins with none; what it registers itself runs at its own end. The import's registrations belong to
the process that imported, so a mold carries them out when its last worker is gone.
"""

import atexit
import sys
import threading
import weakref


def forget_inherited() -> None:
    """In a process that was just forked: what its parent registered is not done at its end."""
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False
    atexit._clear()
    # What the standard library does at the end of every process, as registered by its modules on import.
    if "logging" in sys.modules:
        atexit.register(sys.modules["logging"].shutdown)
    # Also without finalizers of its own: it keeps those of the parent from running while the interpreter is torn down.
    atexit.register(weakref.finalize._exitfunc)  # type: ignore[attr-defined]
    if "multiprocessing.util" in sys.modules:
        from multiprocessing import process, util

        util._finalizer_registry.clear()  # type: ignore[attr-defined]
        process._children.clear()  # type: ignore[attr-defined]
        atexit.register(util._exit_function)  # type: ignore[attr-defined]


def run() -> None:
    """Carry out what is registered, in the order of a process' end; threads are not waited for.

    First what `threading` keeps for executors (`concurrent.futures` ends its threads and processes by it).
    """
    for function in reversed(getattr(threading, "_threading_atexits", [])):
        function()
    atexit._run_exitfuncs()
