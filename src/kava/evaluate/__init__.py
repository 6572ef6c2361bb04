"""Evaluation: accuracy with its interval, costs per answer, and a file with every item.

What needs a model loads on first use, so that statistics can take the intervals without torch.
"""

from typing import TYPE_CHECKING, Any

from kava.evaluate.intervals import Interval, wilson

if TYPE_CHECKING:
    from kava.evaluate.results import summarise, write_results

__all__ = ["Interval", "summarise", "wilson", "write_results"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'kava.evaluate' has no attribute {name!r}")
    from kava.evaluate import results

    return getattr(results, name)
