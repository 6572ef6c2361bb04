"""Load a package's public names on first use, so that its light parts import quickly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
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
