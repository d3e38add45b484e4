"""The variables of this process, taken and set as a whole."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


def replace_environment(wanted: Mapping[str, str]) -> None:
    """Make the environment of this process, and of those it starts from now on, exactly `wanted`."""
    for name in [name for name in os.environ if name not in wanted]:
        del os.environ[name]
    os.environ.update(wanted)


@contextmanager
def borrowed_environment(wanted: Mapping[str, str]) -> Iterator[None]:
    """Have `wanted` as the environment for a while; changes made meanwhile go as well."""
    before = dict(os.environ)
    replace_environment(wanted)
    try:
        yield
    finally:
        replace_environment(before)
