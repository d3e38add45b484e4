"""Bytecode is not kept of sources that may still be changing.

Python takes a .pyc for its source where second and size are the same (PEP 3147). Code that is written twice in a
second, by a deployment or an editor, would be loaded as it was the first time, by this reload and all later ones.
"""

import os
import time
from importlib.machinery import SourceFileLoader
from typing import Any

# A source that has not changed for so long gets another second by its next change. A clock of a file server that is ahead
# only makes it longer.
SETTLED_S = 2.0

_write = SourceFileLoader.set_data


def keep_settled_only() -> None:
    """Have the imports of this process, and of those that it forks, write no .pyc of a source younger than SETTLED_S."""
    SourceFileLoader.set_data = _write_settled  # type: ignore[method-assign, assignment]


def _write_settled(loader: SourceFileLoader, path: str, data: bytes, **keywords: Any) -> None:
    if is_settled(loader.path):
        _write(loader, path, data, **keywords)


def is_settled(source: str) -> bool:
    try:
        return time.time() - os.stat(source).st_mtime >= SETTLED_S
    except OSError:  # gone meanwhile
        return False
