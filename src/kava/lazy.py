"""Load a package's public names on first use, so that its light parts import quickly."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the module-level `__getattr__` of a package.

    Args:
        package: its `__name__`.
        homes: public name → its module.

    Example:
        >>> __getattr__ = lazy_names(__name__, {"LayerMapping": "kava.fit.layer_map"})
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(homes[name]), name)

    return find


def import_after(first: str, then: str) -> None:
    """Import a module as soon as another one is there: now if it is, else when it is imported.

    So a package can register itself with a large library that it does not load.

    Args:
        first: the other module.
        then: the module to import; it needs no more than `first` of that library, which may be in
            the middle of its own imports.

    Example:
        >>> import_after("json", "kava.lazy")
    """
    if first in sys.modules:
        import_module(then)
    else:
        sys.meta_path.insert(0, _Followed(first, then))


class _Followed(MetaPathFinder):
    """Finds one module, where Python itself finds it, and has another follow it."""

    def __init__(self, first: str, then: str):
        self.first = first
        self.then = then

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own spec, with a loader that imports the follower too."""
        if name != self.first:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is None or type(spec.loader) is not SourceFileLoader:
            return None  # frozen or compiled: it is found as ever, without its follower
        spec.loader = _Loader(spec.loader.name, spec.loader.path, self.then)
        return spec


class _Loader(SourceFileLoader):
    """Loads a module, then its follower."""

    def __init__(self, name: str, path: str, then: str):
        super().__init__(name, path)
        self.then = then

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code, and import what follows it."""
        super().exec_module(module)
        import_module(self.then)
