"""Typed face of the Rust engine (`server/engine/py`): HTTP/1.1 and WSGI for one worker process.

The worker builds one `Engine` after the fork and calls `serve()` from `threads` threads. Everything else that
crosses between processes is in `LAYOUT`, the one declaration of the shared stats table.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, final

class Layout(TypedDict):
    """Where the cells of the stats table are; a cell is an index into the header's or a slot's u64 array."""

    magic: int
    version: int
    header_bytes: int
    slot_bytes: int
    lines: int
    line_bytes: int
    header: dict[str, int]
    slot: dict[str, int]
    methods: list[str]
    codes: list[str]
    bounds_max: int
    content_bytes: int
    exemplars: int
    exemplar_cells: int

LAYOUT: Layout

def set_child_subreaper() -> None:
    """Make this process the parent of its orphaned grandchildren (`prctl(2)`, PR_SET_CHILD_SUBREAPER).

    Raises OSError when the kernel refuses.
    """

def end_with(*, channel: int, listeners: Sequence[int], within_s: float) -> None:
    """Once the other end of a socket pair is closed, refuse handshakes on `listeners`; end the process `within_s` later.

    A thread without the GIL does it, so that a call that never gives it back cannot keep the process. The process
    is to have ended by itself by then. Raises OSError when there is no thread to be had.
    """

def refuse_handshakes(fd: int) -> None:
    """Have the kernel drop new handshakes on a listening TCP socket, for all who share it and until it is closed.

    Those that have begun go on, so that a server which then empties its accept queue and closes it resets nobody
    (SO_ATTACH_FILTER; no privilege needed). Raises OSError for a descriptor that is not a socket.
    """

def make_immortal(kinds: tuple[type, ...]) -> int:
    """Make the reference counts of objects constant, so that forked processes do not copy their pages by using them.

    Those of exactly these kinds (of `type`: all classes) that the garbage collector knows or that objects which it knows
    refer to, frozen ones left out; of tuples those that refer to constants alone. They are never freed, and nor is what only they refer to.
    Return how many; 0 where this interpreter has no such counts (before CPython 3.12, PEP 683).
    """

def call_finalizer(object: object) -> None:
    """Call an object's `__del__`, unless it was called before; nothing calls it again. What it raises is reported.

    For objects that only something immortal refers to, and that the interpreter would therefore never finalize.
    """

def fork_twice() -> int:
    """As `os.fork`, with a process in between that ends at once, so that the new process is not this one's child.

    Return 0 in the new process, here the pid of the one in between, which has to be reaped: exit status 1 says that
    the second fork failed. The hooks of `os.register_at_fork` run once, as for one fork. Raises OSError when the first one fails.
    """

def exemplar_check(trace_high: int, trace_low: int, value_us: int, time_us: int) -> int:
    """Return the last cell of an exemplar in the stats table, from the others (unsigned, 64 bits each)."""

def listen_queue(fd: int) -> tuple[int, int]:
    """Return (depth, limit) of a listening socket's accept queue, in connections; (0, 0) for a unix socket.

    Source: TCP_INFO of a listening socket. Raises OSError for a descriptor that is not a socket.
    """

@final
class Engine:
    """HTTP and WSGI of one worker process. Build it after the fork: it starts a thread of its own.

    `settings` keys (all required): `threads, keep_alive_s, request_timeout_s, header_timeout_s, body_timeout_s,
    min_body_rate, write_timeout_s, min_response_rate, limit_request_line, limit_request_fields, limit_request_field_size, limit_head_bytes,
    max_request_body, stream_request_bodies, buffer_memory, spool_dir, spool_size, max_requests, max_connections, forwarded_allow_ips, script_name, server_software,
    multiprocess, access_log, access_log_lock_fd, hide_query_strings, greenlets`; seconds are floats, sizes bytes; access_log is
    None, or a style ("json" or "text"), pairs of a literal and the field after it, and the end of a line
    (`prefork.config.access_log`). ValueError names a key that is missing or wrong.

    `listeners`: descriptors of listening sockets; made non-blocking, not closed. `stats_fd`, `slot`: the stats
    table and this worker's slot (1..n). `report_error(error, method, target, request_id)` is called with what the app
    raises; a value that is not known is None. `handover`: (send end, receive end) of the SOCK_SEQPACKET pair all
    workers share; None passes nothing on.
    """

    @property
    def notify_fd(self) -> int:
        """An eventfd, readable while `events()` has something."""
    def __new__(
        cls,
        app: Callable[..., Any],
        *,
        listeners: Sequence[int],
        settings: Mapping[str, Any],
        stats_fd: int,
        slot: int,
        report_error: Callable[[BaseException, str | None, str | None, str | None], object],
        access_log_fd: int = -1,
        handover: tuple[int, int] | None = None,
    ) -> Engine: ...
    def serve(self) -> None:
        """Be one app thread; returns when the worker is drained or stopped."""
    def hub(
        self,
        *,
        spawn: Callable[[Callable[[int], None], int], Any],
        wait: Callable[[int, bool, float], bool],
        park: Callable[[], None],
    ) -> Hub:
        """Make the calling thread the hub, instead of `serve()`. RuntimeError unless `settings["greenlets"]`.

        `spawn(function, number)` starts a greenlet that calls `function(number)`, later. `wait(fd, is_write, seconds)`
        lets other greenlets run until a socket is ready, and returns False when it is not by then. `park()` is called
        in a forked child by each call that comes to its end there; when it returns the child ends.
        """
    def drain(self, *, mode: str) -> None:
        """Begin to leave: "handover" passes connections to other workers, "close" ends them. Returns at once.

        Idempotent; "close" after "handover" wins. ValueError for any other mode.
        """
    def stop(self) -> None:
        """Stop quickly: close connections; `serve()` returns after the running calls."""
    def events(self) -> list[tuple[Any, ...]]:
        """Return and clear what happened, oldest first.

        `("timeout", thread_ident, method, target, elapsed_us)`: a call is over its time; the 504 was sent when
        nothing else had been, and this worker takes no new requests; with greenlets thread_ident is the call's number,
        and the worker goes on. `("hub_blocked", elapsed_us)`: the hub has made no turn for longer than a call may take;
        this worker takes no new requests. `("max_requests",)`. `("shut",)`: nothing is
        accepted any more, the listeners can be closed. `("log_lost", lines)`: so many lines of the access log were not
        written. `("spool_failed", why)`: a request body or a response could not
        be kept in the spool. `("left_out", name)`: a hop-by-hop header of the app was not sent, reported once for each
        name. `("drained",)`.
        """
    def is_idle(self) -> bool:
        """Tell whether no connection and no call is left."""

@final
class Hub:
    """The engine's side of a hub whose greenlets run the calls. Used by the thread that made it, by no other."""

    @property
    def reactor_fd(self) -> int:
        """Readable while a turn would find something."""
    @property
    def wake_fd(self) -> int:
        """Readable when a turn is asked for."""
    def turn(self) -> float | None:
        """Read what came, and spawn a greenlet for each request that is ready; never waits for a client.

        Returns the seconds within which the next turn is due; None when the worker is drained or stopped.
        """
    def serve(self, number: int) -> None:
        """Be the greenlet of call `number`: what `spawn` is given."""
    def is_overdue(self, number: int) -> bool:
        """Tell whether call `number` runs and is over its time."""
