"""What the import has set for its own thread, for the threads and greenlets that call the app.

`decimal.getcontext().prec = 50`, `numpy.seterr(…)`, `ContextVar.set`: gunicorn's sync worker calls the app in the thread
that has imported it, where all of that holds. Elsewhere an app would compute with the defaults, without a word.
"""

import contextvars
import sys
from types import ModuleType


class ImportContext:
    """The context of the thread that makes it; made in a worker's main thread, once the app is imported."""

    def __init__(self) -> None:
        self._context = contextvars.copy_context()

    def copy(self) -> contextvars.Context:
        """Return one for a single thread or greenlet, whose changes no other sees."""
        copied = self._context.copy()
        decimal = sys.modules.get("decimal")
        if decimal is not None:
            copied.run(_own_decimals, decimal)
        return copied


def _own_decimals(decimal: ModuleType) -> None:
    # A copied context still leads to the same object, and this one is changed in place.
    decimal.setcontext(decimal.getcontext().copy())
