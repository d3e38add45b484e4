"""Whether workers may be forked from a process that has imported the app; pure.

Two processes must not share a connection, a file position, a lock, a child or a sequence of random
numbers, and a fork copies neither threads nor timers. `holdings` reads what there was before and after the
import; this says what of it forbids sharing the import. docs/fork-safety.md has the rules for users.
"""

import os
import stat
from collections.abc import Callable, Iterator
from itertools import count

from prefork.worker.holdings import Descriptor, Holdings

_HARMLESS_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
SHOWN = 3
# Called at the end of the process that imported, and harmless then; a worker does not call them.
_HARMLESS_FINALIZERS = ("tempfile", "multiprocessing", "concurrent", "django", "urllib3")

Holder = Callable[[int], str]


def find_hazards(
    before: Holdings, after: Holdings, holder: Holder = lambda _: ""
) -> tuple[str, ...]:
    """Return what the import left that processes must not share, one phrase each; none: it may be shared.

    `holder` names the object that has a descriptor, "" for unknown.
    """
    return tuple(_find(before, after, holder))


def summarize(hazards: tuple[str, ...]) -> str:
    """Return one line for the log."""
    more = len(hazards) - SHOWN
    return "; ".join(hazards[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def _find(before: Holdings, after: Holdings, holder: Holder) -> Iterator[str]:
    for thread in after.threads:
        if thread not in before.threads:
            yield f"thread {thread}"
    old = {pid for pid, _ in before.children}
    for pid, command in after.children:
        if pid not in old:
            yield f"child process {pid} ({command})"
    for timer in after.timers:
        if timer not in before.timers:
            yield f"timer {timer} (signal.setitimer, signal.alarm)"
    if after.interpreters > before.interpreters:
        yield "interpreter besides the main one"
    known = {(d.number, d.identity, d.target) for d in before.descriptors}
    streams = {(d.identity, d.target) for d in before.descriptors if not stat.S_ISREG(d.mode)}
    shown = count()
    for descriptor in after.descriptors:
        if (descriptor.number, descriptor.identity, descriptor.target) in known:
            continue
        if _is_another_of(descriptor, streams):
            continue
        what = _describe(descriptor)
        if what:
            # Who holds it takes a search of the whole heap, for each.
            held = holder(descriptor.number) if next(shown) < SHOWN else ""
            yield what + (f", held by {held}" if held else "")
    mapped = {m.identity for m in before.mappings}
    for mapping in after.mappings:
        if mapping.identity not in mapped:
            yield f"memory shared with other processes ({mapping.path or 'anonymous'})"
    for generator in after.generators:
        yield f"random generator {generator}"
    for finalizer in after.finalizers:
        if finalizer.partition(":")[0].partition(".")[0] not in _HARMLESS_FINALIZERS:
            yield f"finalizer {finalizer} (weakref.finalize)"
    for destructor in after.destructors:
        yield f"object with a destructor: {destructor}"


def _is_another_of(descriptor: Descriptor, streams: set[tuple[tuple[int, int], str]]) -> bool:
    """Whether it is one more descriptor for what was open before the import, as `/dev/stderr` is opened for a log.

    All processes write there anyway. Not of plain files, which have a position, nor of anonymous ones
    (`anon_inode:`), which all look alike.
    """
    is_told_apart = not descriptor.target.startswith("anon_inode:")
    return is_told_apart and (descriptor.identity, descriptor.target) in streams


def _describe(descriptor: Descriptor) -> str:
    """Return why a descriptor must not be shared; "" when it may be."""
    mode, target = descriptor.mode, descriptor.target
    locked = ", locked" if descriptor.is_locked else ""
    if not locked and (
        stat.S_ISDIR(mode)
        or target in _HARMLESS_DEVICES
        or descriptor.flags & os.O_PATH
        or descriptor.is_log
    ):
        return ""
    if stat.S_ISDIR(mode):
        return f"folder locked: {target}"
    if stat.S_ISSOCK(mode):
        return f"open socket (descriptor {descriptor.number})"
    if stat.S_ISFIFO(mode):
        return f"open pipe (descriptor {descriptor.number})"
    if stat.S_ISREG(mode):
        # For reading too: the position in the file would be everybody's.
        is_read_only = descriptor.flags & os.O_ACCMODE == os.O_RDONLY
        return f"file open for {'reading' if is_read_only else 'writing'}{locked}: {target}"
    return f"open {target}{locked} (descriptor {descriptor.number})"
