"""Modules that can be called like the one function they are named after.

`kava.compress` is a package with one eviction method per file, and the public function
`compress` has the same name; `kava.capture` likewise. Importing a submodule binds it as an
attribute of its parent, so that the name means the module from then on, and which of the two a
user gets would depend on what was imported before. A module that is callable is both.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def make_callable(module_name: str, function: Callable[..., Any]) -> None:
    """Let a call of the module be a call of `function`.

    A module's class may be set, which is the documented way to customise a module (Python data
    model, "Customizing module attribute access").

    Args:
        module_name: the `__name__` of a module that is being imported.
        function: what a call of the module calls; it also lends the module its signature.

    Example:
        As the last line of `src/kava/compress/__init__.py`:

        >>> make_callable(__name__, compress)  # doctest: +SKIP
    """

    class CallableModule(ModuleType):
        __signature__ = inspect.signature(function)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return function(*args, **kwargs)

    sys.modules[module_name].__class__ = CallableModule
