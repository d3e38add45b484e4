"""What a config file imports belongs to the generation that it configures, not to the arbiter.

The file runs in the arbiter, and a module that stayed in `sys.modules` there would be inherited by
the molds of all later generations: code from before their reload. So modules and search path of a
file are taken out after it has run, lent to its hooks, and handed on to the molds of its
generation, where app and hooks share them.

What stays: the standard library, and packages with extension modules, which CPython cannot load
twice in one process.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from importlib.machinery import ExtensionFileLoader
from types import ModuleType


class Imports:
    """The modules and the search path of one config file."""

    def __init__(self) -> None:
        self.modules: dict[str, ModuleType] = {}
        self.path: list[str] | None = None  # None: as it is
        self.is_adopted = False

    @contextlib.contextmanager
    def lent(self) -> Iterator[None]:
        """Have them in place for a while; what is imported meanwhile comes to them."""
        if self.is_adopted:
            yield
            return
        before, path = set(sys.modules), list(sys.path)
        self._put_in_place()
        try:
            yield
        finally:
            self.modules |= take_out(before)
            self.path, sys.path[:] = list(sys.path), path

    def adopt(self) -> None:
        """Have them in place for as long as this process lives."""
        self._put_in_place()
        self.is_adopted = True

    def _put_in_place(self) -> None:
        importlib.invalidate_caches()
        sys.modules.update(self.modules)
        if self.path is not None:
            sys.path[:] = self.path


def take_out(before: set[str]) -> dict[str, ModuleType]:
    """Take the modules that are not `before` out of sys.modules, apart from those that have to stay; return them."""
    added = {name: module for name, module in sys.modules.items() if name not in before}
    stay = {root_of(name) for name in before} | {
        root_of(name) for name, module in added.items() if is_extension(module)
    }
    taken = {name: module for name, module in added.items() if not is_staying(name, stay)}
    for name in taken:
        del sys.modules[name]
    return taken


def is_staying(name: str, stay: set[str]) -> bool:
    root = root_of(name)
    return root in sys.stdlib_module_names or root in stay


def root_of(name: str) -> str:
    return name.partition(".")[0]


def is_extension(module: ModuleType) -> bool:
    spec = getattr(module, "__spec__", None)
    return isinstance(getattr(spec, "loader", None), ExtensionFileLoader)
