"""Statistics of experiments: two runs on the same items, or two arms over seeds and items."""

from kava.statistics.bootstrap import bca_interval
from kava.statistics.power import detectable_effect
from kava.statistics.seeds import TESTS, ArmComparison, accuracy_interval, compare_arms
from kava.statistics.several import holm
from kava.statistics.verdict import Verdict, verdict

__all__ = [
    "TESTS",
    "ArmComparison",
    "Verdict",
    "accuracy_interval",
    "bca_interval",
    "compare_arms",
    "detectable_effect",
    "holm",
    "verdict",
]
