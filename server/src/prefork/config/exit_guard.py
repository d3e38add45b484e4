"""Keeps a config file that a reload reads, or the hook before it, from ending the arbiter by `os._exit`.

`sys.exit` raises, and the reload fails with what it raises; so does this here.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import NoReturn


@contextlib.contextmanager
def exit_refused() -> Iterator[None]:
    """Have `os._exit` raise SystemExit in this process; in one that is forked meanwhile it ends that one."""
    owner, leave = os.getpid(), os._exit

    def refuse(status: int) -> NoReturn:
        if os.getpid() != owner:
            leave(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = leave
