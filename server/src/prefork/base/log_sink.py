"""Where log lines go: whole, never waited for longer than a process can afford, counted when they are lost.

The arbiter, molds and workers write to one pipe. A pipe takes PIPE_BUF bytes in one go; a longer record, as one with
a traceback, goes out in pieces while a lock is held that all these processes share, so that no line of another
gets between them. Whoever reads the pipe may stop: then a worker waits for a moment, the arbiter not at all; what
cannot be written is kept up to a bound, the rest is counted and reported as soon as the pipe drains.

A regular file takes everything in one write(2) and needs none of this; where its disk is full, lines are lost,
counted, and reported as soon as there is room again.
"""

import errno
import fcntl
import os
import select
import socket
import stat
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Protocol

from prefork.base.threads import ORIGINALS

# A worker waits so long for a reader that has stopped, once; the arbiter, on which all workers depend, not at all.
PATIENCE_S = 2.0
# Kept for a reader that has stopped, per process.
KEPT_BYTES = 64 * 1024
LOCK_RETRY_S = 0.001
# In the lock's file: a record was cut off, so the next one begins with a line end.
TORN, WHOLE = b"\1", b"\0"

# Bound before an app is imported: gevent puts functions in their place that need its hub.
_sleep, _poll, _Socket = time.sleep, select.poll, socket.socket
_sinks: "weakref.WeakSet[Sink]" = weakref.WeakSet()


def leave_all() -> None:
    """As `Sink.leave`, for all of them."""
    for sink in _sinks:
        sink.leave()


def begin_process(patience_s: float) -> None:
    """In a forked process of the server: what its parent has kept is its parent's to write."""
    for sink in _sinks:
        sink.forget(patience_s)


class Sink:
    """Writes records, which end with a line end, to a descriptor; one object serves all forked processes."""

    def __init__(self, fd: int, describe_lost: Callable[[int], bytes], patience_s: float) -> None:
        self.fd = fd
        self.patience_s = patience_s
        self._describe_lost = describe_lost
        self._send = open_sender(fd)
        self._lock_fd = -1
        if self._send is not None:
            self._lock_fd = os.memfd_create("prefork-log-lock", os.MFD_CLOEXEC)
        self.forget(patience_s)
        _sinks.add(self)

    def lock_for(self, fd: int) -> int:
        """Return the descriptor whose lock keeps what is written to `fd` apart from these records; -1 for none."""
        shares = self._lock_fd >= 0 and os.path.sameopenfile(self.fd, fd)
        return self._lock_fd if shares else -1

    def forget(self, patience_s: float) -> None:
        """Begin with nothing kept, and wait so long for a reader from now on."""
        self.patience_s = patience_s
        self._mutex = ORIGINALS["allocate_lock"]()
        self._kept: deque[bytes] = deque()
        self._kept_bytes = 0
        self._is_amid = False  # part of the first record is written
        self._is_stalled = False  # waiting was in vain the last time
        self._has_lock = False
        self._lost = 0

    def write(self, record: bytes) -> None:
        """Write a record, or keep it, or count it as lost. Never raises."""
        if self._send is None:
            self._write_to_file(record)
        elif self._mutex.acquire(timeout=self.patience_s + 1):
            try:
                self._keep(record)
                self._drain()
            finally:
                self._mutex.release()
        else:
            self._lost += 1

    def finish(self, patience_s: float) -> None:
        """At the end of the process: wait a last time for a reader that has stopped."""
        self.patience_s, self._is_stalled = patience_s, False
        self.flush()

    def leave(self) -> None:
        """In a child that the app has forked: be an ordinary descriptor."""
        if self._send is not None:
            self._send.close()
            os.close(self._lock_fd)
            self._send = None

    def flush(self) -> None:
        """Write what was kept, as far as there is room now."""
        if self._send is None:
            self._write_to_file(b"")
        elif (self._kept or self._lost) and self._mutex.acquire(blocking=False):
            try:
                self._drain()
            finally:
                self._mutex.release()

    def _write_to_file(self, record: bytes) -> None:
        """Write to a regular file, or count the record as lost; before it, report what was lost earlier."""
        if lost := self._lost:
            report = self._describe_lost(lost)
            if not write_all(self.fd, b"\n" + report if ends_amid_line(self.fd) else report):
                self._lost += bool(record)
                return
            self._lost -= lost
        if not write_all(self.fd, record):
            self._lost += 1

    def _keep(self, record: bytes) -> None:
        if self._kept and self._kept_bytes + len(record) > KEPT_BYTES:
            self._lost += 1
            return
        self._kept.append(record)
        self._kept_bytes += len(record)

    def _drain(self) -> None:
        patience_s = 0.0 if self._is_stalled else self.patience_s
        deadline = time.monotonic() + patience_s
        if not self._lock(deadline):
            self._is_stalled = True
            return
        self._is_stalled = not self._write_kept(deadline, patience_s)
        if self._is_amid and not self.patience_s:
            return  # the arbiter goes on with it; nobody else could write either
        if self._is_amid:
            self._drop_first()
            os.pwrite(self._lock_fd, TORN, 0)
        self._unlock()

    def _write_kept(self, deadline: float, patience_s: float) -> bool:
        """Write what is kept; False when its reader takes no more of it."""
        assert self._send is not None
        while self._kept or self._lost:
            if not self._kept:
                lost, self._lost = self._lost, 0
                self._keep(self._describe_lost(lost))
            try:
                written = self._send.send(self._kept[0])
            except BlockingIOError:
                if not self._wait(deadline):
                    return False
                continue
            except OSError:  # the reader is gone
                self._lost += len(self._kept)
                self._kept.clear()
                self._kept_bytes, self._is_amid = 0, False
                return False
            deadline = time.monotonic() + patience_s
            self._take(written)
        return True

    def _take(self, written: int) -> None:
        record = self._kept[0]
        self._kept_bytes -= written
        self._is_amid = written < len(record)
        if self._is_amid:
            self._kept[0] = record[written:]
        else:
            self._kept.popleft()

    def _drop_first(self) -> None:
        self._kept_bytes -= len(self._kept.popleft())
        self._is_amid = False
        self._lost += 1

    def _wait(self, deadline: float) -> bool:
        """Wait for room; False when the time is over."""
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return False
        poll = _poll()
        poll.register(self.fd, select.POLLOUT)
        poll.poll(left_s * 1000)
        _sleep(LOCK_RETRY_S)
        return True

    def _lock(self, deadline: float) -> bool:
        """Take the lock of all processes: a record lock, which belongs to a process and ends with it (fcntl(2))."""
        while not self._has_lock:
            try:
                fcntl.lockf(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                self._has_lock = True
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN) or time.monotonic() >= deadline:
                    return False
                _sleep(LOCK_RETRY_S)
        if os.pread(self._lock_fd, 1, 0) == TORN:
            os.pwrite(self._lock_fd, WHOLE, 0)
            self._kept.appendleft(b"\n")
            self._kept_bytes += 1
        return True

    def _unlock(self) -> None:
        self._has_lock = False
        fcntl.lockf(self._lock_fd, fcntl.LOCK_UN)


def write_all(fd: int, record: bytes) -> bool:
    """Write to a regular file; False when it does not take all of it, as on a full disk."""
    try:
        while record:
            record = record[os.write(fd, record) :]
    except OSError:
        return False
    return True


def ends_amid_line(fd: int) -> bool:
    """Whether a record in this file was cut off, by whichever process."""
    try:
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            return (
                file.seek(0, os.SEEK_END) > 0
                and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n"
            )
    except OSError:
        return True  # not to be known; an empty line does no harm


class Sender(Protocol):
    """Writes what there is room for, without waiting; BlockingIOError when there is none."""

    def send(self, record: bytes) -> int: ...
    def close(self) -> None: ...


class SocketSender:
    """For a socket, as systemd's journal gives its services."""

    def __init__(self, fd: int) -> None:
        blocking = os.get_blocking(fd)
        self.sock = _Socket(fileno=os.dup(fd))
        # With a default timeout (socket.setdefaulttimeout), the line before has set O_NONBLOCK for all who share it.
        os.set_blocking(fd, blocking)

    def send(self, record: bytes) -> int:
        return self.sock.send(record, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        self.sock.close()


class PipeSender:
    """For a pipe or a terminal: an open file of our own. O_NONBLOCK on the one that is there would reach all who
    share it, the shell that started the server among them.
    """

    def __init__(self, fd: int) -> None:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        self.fd = os.open(f"/proc/self/fd/{fd}", flags)

    def send(self, record: bytes) -> int:
        return os.write(self.fd, record)

    def close(self) -> None:
        os.close(self.fd)


class PollingSender:
    """For what cannot be opened again (no /proc, another user's pipe): a writable pipe takes PIPE_BUF bytes."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def send(self, record: bytes) -> int:
        poll = _poll()
        poll.register(self.fd, select.POLLOUT)
        if not poll.poll(0):
            raise BlockingIOError
        return os.write(self.fd, record[: select.PIPE_BUF])

    def close(self) -> None:
        """Nothing was opened."""


def open_sender(fd: int) -> Sender | None:
    """Return what writes to a descriptor without waiting; None for a regular file."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return None
    if stat.S_ISSOCK(mode):
        return SocketSender(fd)
    try:
        return PipeSender(fd)
    except OSError:
        return PollingSender(fd)
