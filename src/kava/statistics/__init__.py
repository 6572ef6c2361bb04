"""Statistics of experiments: two runs on the same items, or two arms over seeds and items."""

from kava.statistics.bootstrap import bca_interval
from kava.statistics.curves import area_under_curve
from kava.statistics.items import Items, read_items
from kava.statistics.learned import GRADED, Learned, Levels, levels_of
from kava.statistics.paired import PairComparison, compare_items
from kava.statistics.power import detectable_effect, power_before, seeds_needed
from kava.statistics.seeds import TESTS, ArmComparison, accuracy_interval, compare_arms
from kava.statistics.several import holm
from kava.statistics.verdict import Verdict, unseen_share, verdict

__all__ = [
    "GRADED",
    "TESTS",
    "ArmComparison",
    "Items",
    "Learned",
    "Levels",
    "PairComparison",
    "Verdict",
    "accuracy_interval",
    "area_under_curve",
    "bca_interval",
    "compare_arms",
    "compare_items",
    "detectable_effect",
    "holm",
    "levels_of",
    "power_before",
    "read_items",
    "seeds_needed",
    "unseen_share",
    "verdict",
]
