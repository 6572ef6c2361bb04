"""Evaluation: accuracy with its interval, cost per answer, and a file with every item."""

from typing import TYPE_CHECKING

from kava.lazy import lazy_names

if TYPE_CHECKING:
    from kava.evaluate.results import summarise, write_results

__all__ = ["summarise", "write_results"]

__getattr__ = lazy_names(
    __name__,
    {"summarise": "kava.evaluate.results", "write_results": "kava.evaluate.results"},
)
