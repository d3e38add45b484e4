"""What this process holds that a fork would share or lose, as values, read from /proc and the garbage collector."""

import ast
import fcntl
import gc
import io
import os
import random
import socket
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# How far from a module's names an object is looked for: file → buffer → attribute → instance → module.
_HOLDER_DEPTH = 6
_HOLDER_OBJECTS = 4000


@dataclass(frozen=True)
class Descriptor:
    """An open descriptor."""

    number: int
    target: str  # as /proc shows it
    mode: int  # st_mode
    flags: int  # O_…
    identity: tuple[int, int]  # device, inode
    is_locked: bool = False
    is_log: bool = False  # appended to by a file handler of `logging`


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
    generators: tuple[str, ...] = ()  # of random numbers, each with who holds it


def observe(*, generators: bool = False) -> Holdings:
    """Return what this process holds now; random generators only on request, as that takes some milliseconds."""
    return Holdings(
        descriptors=tuple(_descriptors()),
        mappings=tuple(_mappings()),
        children=tuple(_children()),
        threads=tuple(_threads()),
        generators=tuple(_generators()) if generators else (),
    )


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
    seen = {id(wanted)}
    layer: list[Any] = [wanted]
    for _ in range(_HOLDER_DEPTH):
        referrers: list[Any] = []
        for inner in layer:
            for outer in gc.get_referrers(inner):
                if id(outer) in modules:
                    module = modules[id(outer)]
                    names = [name for name, value in list(vars(module).items()) if value is inner]
                    if names and module.__name__ != __name__:
                        return _assignment(module, names[0])
                if id(outer) not in seen and outer is not layer and type(outer) is not _FRAME:
                    seen.add(id(outer))
                    referrers.append(outer)
        if len(seen) > _HOLDER_OBJECTS:
            return ""
        layer = referrers
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
            is_locked="\nlock:" in info, is_log=number in logs and bool(flags & os.O_APPEND),
        )  # fmt: skip


def _log_descriptors() -> set[int]:
    """Return the descriptors of `logging`'s plain file handlers: appending to one file is made for several processes."""
    found: set[int] = set()
    logging = sys.modules.get("logging")
    for reference in list(logging._handlerList) if logging else ():
        handler = reference()
        # Of exactly these types: a subclass may rotate the file, or keep something beside it.
        kind = f"{type(handler).__module__}.{type(handler).__qualname__}"
        if kind in ("logging.FileHandler", "logging.handlers.WatchedFileHandler"):
            stream = handler.stream
            if isinstance(stream, io.TextIOWrapper) and not stream.closed:
                found.add(stream.fileno())
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
    native = len(os.listdir("/proc/self/task")) - 1 - len(named)
    if native > 0:
        yield f"{native} native"


def _generators() -> Iterator[str]:
    """Random generators that would repeat in each worker; the modules' own are seeded anew after a fork."""
    harmless = {id(random._inst)}
    tempfile = sys.modules.get("tempfile")
    names = getattr(tempfile, "_name_sequence", None)
    harmless.add(id(getattr(names, "_rng", None)))  # made anew in another process (tempfile.py)
    kinds: list[type] = [random.Random]
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        kinds += [numpy.Generator, numpy.RandomState]
        harmless.add(id(numpy.mtrand._rand))
    for candidate in gc.get_objects():
        # Of the type, never by isinstance: a lazy object would be brought to life by the question.
        kind = type(candidate)
        if id(candidate) in harmless or issubclass(kind, random.SystemRandom):
            continue
        if issubclass(kind, tuple(kinds)):
            holder = holder_of(candidate)
            yield f"{kind.__module__}.{kind.__qualname__}" + (f" {holder}" if holder else "")
