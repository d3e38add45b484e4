"""What this process holds that a fork would share or lose, as values, read from /proc and the garbage collector."""

import ast
import contextlib
import fcntl
import gc
import io
import os
import random
import signal
import socket
import stat
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefork.base.exit_functions import mro_of
from prefork.worker.own_code import is_own

# How far from a module's names an object is looked for: file → buffer → attribute → instance → module.
_HOLDER_DEPTH = 6
_HOLDER_OBJECTS = 60
# A thread that was joined is in /proc for a moment longer, and as long as it gets no processor on a busy machine.
_THREAD_GONE_S = 0.1
_RUNNING_THREAD_GONE_S = 2.0


@dataclass(frozen=True)
class Descriptor:
    """An open descriptor."""

    number: int
    target: str  # as /proc shows it
    mode: int  # st_mode
    flags: int  # O_…
    identity: tuple[int, int]  # device, inode
    is_locked: bool = False
    is_log: bool = False  # of a handler of `logging` that is made for several processes


@dataclass(frozen=True)
class Mapping:
    """Memory that is shared and writable."""

    path: str
    identity: tuple[str, str]  # device, inode


@dataclass(frozen=True)
class Holdings:
    """All that matters for a fork; `threads` and `children` besides this thread's own."""

    descriptors: tuple[Descriptor, ...] = ()
    mappings: tuple[Mapping, ...] = ()
    children: tuple[tuple[int, str], ...] = ()  # pid, command
    threads: tuple[str, ...] = ()
    timers: tuple[str, ...] = ()  # that send this process a signal
    interpreters: int = (
        1  # with one more than the main one, a child that is forked crashes in CPython
    )
    generators: tuple[
        str, ...
    ] = ()  # of random numbers, each with who holds it, as far as they are shown
    finalizers: tuple[
        str, ...
    ] = ()  # of `weakref.finalize`, to be called at the end of the process
    # Objects of the app's own classes that do something when they are destroyed, as `generators`.
    destructors: tuple[str, ...] = ()


def observe(*, objects: bool = False, shown: int = 3) -> Holdings:
    """Return what this process holds now; what the garbage collector has to be asked for only with `objects`.

    That takes some milliseconds; to find out who holds an object takes more, and is done for the first `shown`.
    """
    return Holdings(
        descriptors=tuple(_descriptors()),
        mappings=tuple(_mappings()),
        children=tuple(_children()),
        threads=tuple(_threads()),
        timers=tuple(_timers()),
        interpreters=_count_interpreters(),
        generators=_generators(shown) if objects else (),
        finalizers=tuple(_finalizers()) if objects else (),
        destructors=_destructors(shown) if objects else (),
    )


def own_children() -> tuple[int, ...]:
    """Return the pids of this process' children that run."""
    return tuple(pid for pid, _ in _children())


def holder_of_descriptor(number: int) -> str:
    """Return the name that leads to the object with this descriptor, as `store.LOG (store.py:3)`; "" if unknown."""
    for candidate in gc.get_objects():
        kind = type(candidate)
        is_it = (issubclass(kind, io.FileIO) and not candidate.closed and io.FileIO.fileno(candidate) == number) or (
            issubclass(kind, socket.socket) and socket.socket.fileno(candidate) == number
        )  # fmt: skip
        if is_it:
            return holder_of(candidate)
    return ""


def holder_of(wanted: object) -> str:
    """Return the module's name that leads to an object, with the line that assigns it; "" if there is none."""
    modules = {id(vars(m)): m for m in list(sys.modules.values()) if type(m) is type(sys)}
    seen = {id(wanted), id(modules)}
    layer: list[Any] = [wanted]
    for _ in range(_HOLDER_DEPTH):
        outers = [o for o in gc.get_referrers(*layer) if type(o) is not _FRAME and o is not layer]
        for outer in outers:
            module = modules.get(id(outer))
            if module is not None and module.__name__ != __name__:
                inner = {id(i) for i in layer}
                names = [name for name, value in list(vars(module).items()) if id(value) in inner]
                if names:
                    return _assignment(module, names[0])
        # Each further object makes the next search of the whole heap slower.
        layer = [o for o in outers if id(o) not in seen][:_HOLDER_OBJECTS]
        seen.update(map(id, outers))
        if not layer:
            break
    return ""


_FRAME = type(sys._getframe())


def _assignment(module: Any, name: str) -> str:
    """Return `module.NAME (file:line)`."""
    held = f"{module.__name__}.{name}"
    file = getattr(module, "__file__", None)
    if not file or not file.endswith(".py"):
        return held
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return held
    lines = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Store)
    ]
    return f"{held} ({os.path.basename(file)}:{lines[-1]})" if lines else held


def _descriptors() -> Iterator[Descriptor]:
    logs = _log_descriptors()
    for entry in os.listdir("/proc/self/fd"):
        number = int(entry)
        try:
            status = os.fstat(number)
            target = os.readlink(f"/proc/self/fd/{entry}")
            flags = fcntl.fcntl(number, fcntl.F_GETFL)
            info = Path(f"/proc/self/fdinfo/{entry}").read_text()
        except OSError:  # the one by which the folder was listed
            continue
        yield Descriptor(
            number, target, status.st_mode, flags, (status.st_dev, status.st_ino),
            is_locked="\nlock:" in info,
            is_log=number in logs and (bool(flags & os.O_APPEND) or stat.S_ISSOCK(status.st_mode)),
        )  # fmt: skip


# Of exactly these types: what a subclass keeps beside its file is not known.
_APPENDING = (
    "logging.FileHandler",
    "logging.handlers.WatchedFileHandler",
    "logging.handlers.RotatingFileHandler",
    "logging.handlers.TimedRotatingFileHandler",
)


def _log_descriptors() -> set[int]:
    """Return the descriptors of `logging`'s handlers that mean the same whether they are shared or opened twice.

    Files that are only appended to, and the datagrams of the system log, which are only sent.
    """
    found: set[int] = set()
    logging = sys.modules.get("logging")
    for reference in list(logging._handlerList) if logging else ():
        handler = reference()
        kind = f"{type(handler).__module__}.{type(handler).__qualname__}"
        stream = getattr(handler, "stream", None) if kind in _APPENDING else None
        if isinstance(stream, io.TextIOWrapper) and not stream.closed:
            found.add(stream.fileno())
        if kind == "logging.handlers.SysLogHandler":
            sender = getattr(handler, "socket", None)
            if isinstance(sender, socket.socket) and sender.type == socket.SOCK_DGRAM:
                found.add(sender.fileno())
    return found


def _mappings() -> Iterator[Mapping]:
    for line in Path("/proc/self/maps").read_text().splitlines():
        _, access, _, device, inode, *path = line.split(maxsplit=5)
        if access.startswith("rw") and access.endswith("s"):
            yield Mapping(path[0] if path else "", (device, inode))


def _children() -> Iterator[tuple[int, str]]:
    me = os.getpid()
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            state, parent = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()[:2]
            if int(parent) == me and state != "Z":
                command = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ")
                yield int(entry), command.decode("utf-8", "replace").strip()[:120]
        except OSError:
            continue


def _threads() -> Iterator[str]:
    """The threads besides the main one; native ones are counted as one entry."""
    named = [t for t in threading.enumerate() if t is not threading.main_thread()]
    for thread in named:
        code = getattr(getattr(thread, "_target", None), "__code__", None)
        where = f" ({os.path.basename(code.co_filename)}:{code.co_firstlineno})" if code else ""
        yield f"{thread.name}{where}"
    began = time.monotonic()
    while (native := len(os.listdir("/proc/self/task")) - 1 - len(named)) > 0:
        passed_s = time.monotonic() - began
        if passed_s > _RUNNING_THREAD_GONE_S or (
            passed_s > _THREAD_GONE_S and not _runs_another_thread()
        ):
            yield f"{native} native"
            break
        time.sleep(0.005)


def _runs_another_thread() -> bool:
    """Whether one besides this runs or waits for a processor, as one that is ending does; those of a pool sleep."""
    me = threading.get_native_id()
    for entry in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # ended meanwhile
            fields = Path(f"/proc/self/task/{entry}/stat").read_text().rpartition(")")[2].split()
            if int(entry) != me and fields[0] in "RD":
                return True
    return False


def _timers() -> Iterator[str]:
    for name in ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF"):
        if signal.getitimer(getattr(signal, name))[0]:
            yield name


def _count_interpreters() -> int:
    for name in ("_interpreters", "_xxsubinterpreters"):  # from CPython 3.13 on; before
        module = sys.modules.get(name)
        if module is not None:
            return len(module.list_all())
    return 1


def _generators(shown: int) -> tuple[str, ...]:
    """Random generators that would repeat in each worker; the modules' own are seeded anew after a fork."""
    return _name_all(_find_generators(), shown)


def _name_all(found: list[Any], shown: int) -> tuple[str, ...]:
    """Return the type of each object, with who holds it for the first `shown`.

    After all are found: a tuple or list that is being built would be found as a holder, and broken by it.
    """
    named = []
    for number, item in enumerate(found):
        kind = type(item)
        holder = holder_of(item) if number < shown else ""
        named.append(f"{kind.__module__}.{kind.__qualname__}" + (f" {holder}" if holder else ""))
    return tuple(named)


def _destructors(shown: int) -> tuple[str, ...]:
    """Objects with a `__del__` of the app's own code: it may write what a worker has put into the object."""
    # By address: a class may be one that cannot be hashed, or that says it is equal to another.
    is_one: dict[int, bool] = {}
    for kind in {id(kind): kind for kind in map(type, gc.get_objects())}.values():
        method = next((vars(b)["__del__"] for b in mro_of(kind) if "__del__" in vars(b)), None)
        code = getattr(method, "__code__", None)
        is_one[id(kind)] = code is not None and is_own(code.co_filename)
    return _name_all([o for o in gc.get_objects() if is_one.get(id(type(o)))], shown)


def _find_generators() -> list[Any]:
    harmless = {id(random._inst)}
    tempfile = sys.modules.get("tempfile")
    names = getattr(tempfile, "_name_sequence", None)
    harmless.add(id(getattr(names, "_rng", None)))  # made anew in another process (tempfile.py)
    for name, module in list(sys.modules.items()):
        # Bases for a test of primality, in a package that setuptools, CherryPy and others bring along.
        if name.endswith("more_itertools.recipes"):
            draw = getattr(module, "_private_randrange", None)
            harmless.add(id(getattr(draw, "__self__", None)))
    numpy: Any = sys.modules.get("numpy.random")
    kinds: tuple[type, ...] = (random.Random,)
    if numpy is not None:
        kinds += (numpy.Generator, numpy.RandomState, numpy.BitGenerator, numpy.SeedSequence)
        harmless.add(id(numpy.mtrand._rand))
    # Of the type, never by isinstance: a lazy object would be brought to life by the question.
    found = [
        o for o in gc.get_objects()
        if issubclass(type(o), kinds) and not issubclass(type(o), random.SystemRandom)
    ]  # fmt: skip
    if numpy is not None:
        harmless |= _parts_of_generators(numpy, found)
    return [o for o in found if id(o) not in harmless]


def _parts_of_generators(numpy: Any, found: list[Any]) -> set[int]:
    """Return the ids of what numpy's generators are made of: a generator is named once."""
    parts: set[int] = set()
    for generator in found:
        source = None
        if isinstance(generator, numpy.Generator):
            source = generator.bit_generator
        elif isinstance(generator, numpy.RandomState):
            source = generator._bit_generator
        elif isinstance(generator, numpy.BitGenerator):
            parts.add(id(generator.seed_seq))
        if source is not None:
            parts |= {id(source), id(getattr(source, "seed_seq", None))}
    return parts


def _finalizers() -> Iterator[str]:
    for finalizer in list(weakref.finalize._registry):  # type: ignore[attr-defined]
        alive = finalizer.peek() if finalizer.atexit else None
        if alive is not None:
            function = alive[1]
            named = getattr(function, "__qualname__", None) or repr(function)
            yield f"{getattr(function, '__module__', '')}:{named}"
