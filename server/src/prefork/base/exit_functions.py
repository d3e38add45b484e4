"""What happens at the end of the process: `atexit`, `weakref.finalize`, `multiprocessing`, `__del__`.

A forked process inherits its parent's registrations, and would carry them out a second time: remove
a folder that others still use, end another process's children. Each process of the server therefore
forgets what its parent has registered; what it registers itself runs at its own end. The import's registrations
belong to the process that imported, so a mold carries them out when its last worker is gone. So do the
destructors of its objects: a closed `NamedTemporaryFile` removes its file in `__del__`.

What was registered before the server began (`record`) is not forgotten: `sitecustomize` has done that, by which
opentelemetry-instrument, ddtrace-run, newrelic-admin and coverage work. Each process has something of its own to send or
to write at its end, as under any server that forks.
"""

import atexit
import contextlib
import gc
import os
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple


class Registration(NamedTuple):
    """A call of `atexit.register`."""

    function: Callable[..., Any]
    module: str  # that called it
    line: str  # as `shop.py:12`
    arguments: tuple[object, ...]


# The classes of a class; a metaclass cannot come between.
mro_of: Callable[[type], tuple[type, ...]] = vars(type)["__mro__"].__get__

# Bound before anything else may put its own in the place of it.
_register = atexit.register
_registered: list[Registration] = []
# Of parents: what only a registration refers to would be destroyed with it, and is theirs to destroy.
_inherited: list[Registration] = []
_is_recorded = False
# What the standard library had registered when the record began.
_standard_at_start: frozenset[Callable[..., Any]] = frozenset()

# Objects of the parent that have a `__del__` written in Python.
_with_destructor: list[weakref.ref[Any]] = []
# The addresses of those that no weak reference can point to (`__slots__`).
_without_reference: set[int] = set()
# Those of this process, at its end.
_own: list[Any] = []


def record() -> None:
    """From now on, keep a record of what is registered: a forked process forgets it, and no more than that."""
    global _is_recorded, _standard_at_start
    if not _is_recorded:
        _is_recorded = True
        _standard_at_start = frozenset(_standard_functions())
        atexit.register = _register_and_record


def end_record() -> None:
    """In a process that forks no other of the server: an app may register functions as long as it runs."""
    global _is_recorded
    _is_recorded = False
    _registered.clear()
    if atexit.register is _register_and_record:
        atexit.register = _register


def registered() -> tuple[Registration, ...]:
    """Return what this process has registered since the record began."""
    return tuple(_registered)


def _register_and_record(
    function: Callable[..., Any], /, *arguments: Any, **keywords: Any
) -> Callable[..., Any]:
    if _is_recorded:
        caller = sys._getframe(1)
        line = f"{os.path.basename(caller.f_code.co_filename)}:{caller.f_lineno}"
        module = str(caller.f_globals.get("__name__", ""))
        _registered.append(Registration(function, module, line, (arguments, keywords)))
    return _register(function, *arguments, **keywords)


def forget_inherited() -> None:
    """In a process that was just forked: what its parent registered is not done at its end."""
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        finalizer.atexit = False
    for registration in _registered:
        # It is compared with all others, which may be objects of any kind.
        with contextlib.suppress(Exception):
            atexit.unregister(registration.function)
    _inherited.extend(_registered)
    _registered.clear()
    _register_and_record(_run_own_destructors)  # after all others of this process
    if "multiprocessing.util" in sys.modules:
        from multiprocessing import process, util

        util._finalizer_registry.clear()  # type: ignore[attr-defined]
        process._children.clear()  # type: ignore[attr-defined]
    for function in _standard_functions():
        if function not in _standard_at_start:
            _register_and_record(function)


def _standard_functions() -> Iterator[Callable[..., Any]]:
    """What the standard library does at the end of every process, as far as its modules have been imported."""
    if "logging" in sys.modules:
        yield sys.modules["logging"].shutdown
    # Also without finalizers of its own: it keeps those of the parent from running while the interpreter is torn down.
    if weakref.finalize._registered_with_atexit:  # type: ignore[attr-defined]
        yield weakref.finalize._exitfunc  # type: ignore[attr-defined]
    if "multiprocessing.util" in sys.modules:
        yield sys.modules["multiprocessing.util"]._exit_function


def run() -> None:
    """Carry out what is registered, in the order of a process' end; threads are not waited for.

    First what `threading` keeps for executors (`concurrent.futures` ends its threads and processes by it).
    """
    for function in reversed(getattr(threading, "_threading_atexits", [])):
        function()
    atexit._run_exitfuncs()


def note_destructors() -> None:
    """Before forking: remember the objects that do something when they are destroyed, but for frozen ones."""
    for found in _find_destructible():
        if type(found).__weakrefoffset__:
            _with_destructor.append(weakref.ref(found))
        else:
            _without_reference.add(id(found))


def _find_destructible() -> Iterator[Any]:
    """The objects with a `__del__` written in Python, but for frozen ones."""
    # By address: a class may be one that cannot be hashed, or that says it is equal to another.
    has_destructor: dict[int, bool] = {}
    for candidate in gc.get_objects():
        kind = type(candidate)
        if id(kind) not in has_destructor:
            methods = (vars(base).get("__del__") for base in mro_of(kind))
            has_destructor[id(kind)] = any(isinstance(m, types.FunctionType) for m in methods)
        if has_destructor[id(kind)]:
            yield candidate


def run_destructors() -> None:
    """Carry out what those objects do when they are destroyed, while the modules they use are whole.

    The interpreter would clear these first, as classes and functions that are immortal keep it from finding garbage.
    """
    _destroy(alive for found in _with_destructor if (alive := found()) is not None)


def _destroy(objects: Iterable[Any]) -> None:
    """Carry out what these objects do when they are destroyed; that is done once, so not again when they are."""
    # A process without an engine forks nothing, and has none of them.
    from prefork._engine import call_finalizer

    for found in objects:
        call_finalizer(found)


def _run_own_destructors() -> None:
    _destroy(_own)


def _has_ended(found: object) -> bool:
    """Whether exit functions have ended it by then: those of `multiprocessing` end a pool, whose destructor then fails."""
    return type(found).__module__.partition(".")[0] == "multiprocessing"


def spare_inherited() -> None:
    """At the end of a forked process: do not destroy what is its parent's.

    What the process has let go of before is gone. A ring of references that the garbage collector
    does not see is never taken apart. Destructors of the process' own objects run after its exit functions: the
    interpreter would not come to them, as the engine and frozen objects still hold the app.
    """
    ring: list[Any] = [alive for found in _with_destructor if (alive := found()) is not None]
    gc.unfreeze()
    destructible = list(_find_destructible())
    ring.extend(found for found in destructible if id(found) in _without_reference)
    inherited = {id(spared) for spared in ring}
    _own.extend(
        found for found in destructible if id(found) not in inherited and not _has_ended(found)
    )
    ring.append(ring)
    gc.freeze()


def run_all() -> None:
    """As `run`, after the threads that a process waits for at its end (not daemon threads)."""
    threading._shutdown()  # type: ignore[attr-defined]  # carries out `_threading_atexits` as well
    atexit._run_exitfuncs()
