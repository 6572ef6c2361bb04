"""Evaluation: accuracy with its interval, costs per answer, and a file with every item."""

from kava.evaluate.intervals import Interval, wilson
from kava.evaluate.results import summarise, write_results

__all__ = ["Interval", "summarise", "wilson", "write_results"]
