"""How often an interval of the difference between two arms holds the true difference.

    python benchmarks/coverage.py

Studies are simulated whose truth is known: two arms on the same items, both drawn at random, and
beside them a control that learns nothing, as every plan with a test has one. Runs either learn the
task or stay at chance (each arm with its own probability), or their accuracies scatter about a
mean, or both. 95 % is right. A cell has the mean over the scenarios of its row, and the least; a
scenario in which a method gives no interval at all is left out.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement

import numpy as np
from scipy import stats
from statsmodels.stats.proportion import confint_proportions_2indep

from kava.statistics import levels_of
from kava.statistics.crossed import Difference
from kava.statistics.intervals import Interval
from kava.statistics.shares import ends, score_curve
from timing import positive

CHANCE = 1 / 24
CONFIDENCE = 0.95
NUM_RESAMPLES = 499
NUM_WIDTHS = 4  # the first candidates, whose widths are shown too
Ends = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Arm:
    """How the runs of an arm come out: R studies, S seeds, N items.

    Args:
        learns: how often a run learns.
        mean: accuracy of a run that has learned; 1 is perfect on every item.
        spread: its standard deviation between runs.
    """

    learns: float
    mean: float = 1.0
    spread: float = 0.0

    @property
    def truth(self) -> float:
        """The accuracy over all runs and items."""
        return self.learns * self.mean + (1 - self.learns) * CHANCE

    def draw(self, rng: np.random.Generator, num_seeds: int, easy_RN: np.ndarray) -> np.ndarray:
        """[R, S, N] right or wrong; its own items are a little easier or harder for the arm."""
        num_studies, num_items = easy_RN.shape
        deviation_RS = np.clip(rng.standard_normal((num_studies, num_seeds)), -2, 2)
        if self.mean < 1:
            easy_RN = easy_RN + rng.uniform(-0.03, 0.03, easy_RN.shape)
            right_RSN = self.mean + self.spread * deviation_RS[..., None] + easy_RN[:, None]
        else:
            right_RSN = np.ones((num_studies, num_seeds, num_items))
        failed_RS = rng.random((num_studies, num_seeds)) >= self.learns
        right_RSN = np.where(failed_RS[..., None], CHANCE, right_RSN)
        correct: np.ndarray = rng.random(right_RSN.shape) < right_RSN
        return correct


TWO_KINDS = [
    (Arm(one), Arm(other)) for one, other in combinations_with_replacement((0, 0.2, 0.8, 1), 2)
]
GRADED_ARMS = [
    (Arm(1, 0.7, 0.01), Arm(1, 0.7, 0.01)),
    (Arm(1, 0.7, 0.03), Arm(1, 0.75, 0.03)),
    (Arm(1, 0.7, 0.05), Arm(1, 0.6, 0.05)),
    (Arm(1, 0.7, 0.01), Arm(1, 0.7, 0.06)),
]
BOTH = [
    (Arm(0.8, 0.75, 0.04), Arm(0.8, 0.7, 0.04)),
    (Arm(0.8, 0.75, 0.04), Arm(1, 0.7, 0.04)),
    (Arm(0.2, 0.75, 0.04), Arm(0.8, 0.75, 0.04)),
    (Arm(0, 0.75, 0.04), Arm(0.8, 0.7, 0.04)),
]
ROWS = {"learn or do not": TWO_KINDS, "a matter of degree": GRADED_ARMS, "both": BOTH}
CONTROLS = {"learn or do not": Arm(0), "a matter of degree": Arm(1, 0.6, 0.02), "both": Arm(0)}


class Studies:
    """R simulated studies of one scenario, by run: [R, S]."""

    def __init__(
        self,
        rng: np.random.Generator,
        arms: tuple[Arm, Arm],
        control: Arm,
        size: tuple[int, int, int],
    ) -> None:
        num_studies, num_seeds, num_items = size
        easy_RN = rng.uniform(-0.1, 0.1, (num_studies, num_items))
        self.a_RSN, self.b_RSN = (arm.draw(rng, num_seeds, easy_RN) for arm in arms)
        self.control_RS = control.draw(rng, num_seeds, easy_RN).mean(2)
        self.a, self.b = self.a_RSN.mean(2), self.b_RSN.mean(2)
        self.truth = arms[0].truth - arms[1].truth
        self.difference = self.a.mean(1) - self.b.mean(1)
        self.num_seeds = num_seeds

    def items_variance(self) -> np.ndarray:
        """[R] what items add to the variance, as the crossed method counts it."""
        d = self.a_RSN.astype(np.float32) - self.b_RSN
        _, num_seeds, num_items = d.shape
        mean_N, mean_S = d.mean(1, keepdims=True), d.mean(2, keepdims=True)
        rest = d - mean_N - mean_S + d.mean((1, 2), keepdims=True)
        square_of_rest = (rest**2).sum((1, 2)) / ((num_seeds - 1) * (num_items - 1))
        square_of_items = num_seeds * mean_N[:, 0].var(1, ddof=1)
        found: np.ndarray = np.maximum(0, square_of_items - square_of_rest) / d[0].size
        return found


def crossed(studies: Studies) -> Ends:
    """The interval of `compare_arms`, where a plan declares nothing."""
    found = []
    for a_SN, b_SN, *runs in zip(
        studies.a_RSN, studies.b_RSN, studies.a, studies.b, studies.control_RS
    ):
        levels = levels_of(np.concatenate(runs))
        difference = Difference(a_SN.astype(float), b_SN.astype(float), levels)
        found.append(difference.interval(CONFIDENCE))
    low, high = np.array(found).T
    return low, high


def pooled(studies: Studies) -> Ends:
    """As `crossed` was: one kind of run, and 2S − 2 degrees of freedom whatever the spreads."""
    runs = (studies.a.var(1, ddof=1) + studies.b.var(1, ddof=1)) / studies.num_seeds
    items = studies.items_variance()
    bottom = runs**2 / (2 * studies.num_seeds - 2) + items**2 / (studies.a_RSN.shape[2] - 1)
    degrees = (runs + items) ** 2 / np.maximum(bottom, 1e-300)
    return t_interval(studies.difference, runs + items, np.maximum(degrees, 1))


def welch(studies: Studies) -> Ends:
    """Runs alone, each arm with a variance of its own."""
    parts = [arm.var(1, ddof=1) / studies.num_seeds for arm in (studies.a, studies.b)]
    bottom = sum(part**2 for part in parts) / (studies.num_seeds - 1)
    degrees = sum(parts) ** 2 / np.maximum(bottom, 1e-300)
    return t_interval(studies.difference, sum(parts), np.maximum(degrees, 1))


def paired(studies: Studies) -> Ends:
    """A t over the differences of the seeds."""
    d = studies.a - studies.b
    variance = d.var(1, ddof=1) / studies.num_seeds
    return t_interval(studies.difference, variance, np.full(len(d), studies.num_seeds - 1.0))


def t_interval(middle: np.ndarray, variance: np.ndarray, degrees: np.ndarray) -> Ends:
    """Ends of the usual interval."""
    reach = stats.t.ppf((1 + CONFIDENCE) / 2, degrees) * variance**0.5
    return middle - reach, middle + reach


def bca(studies: Studies) -> Ends:
    """The BCa bootstrap over the runs of each arm; none where resampling shows no spread."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        found = stats.bootstrap(
            (studies.a, studies.b),
            lambda a, b, axis: a.mean(axis) - b.mean(axis),
            n_resamples=NUM_RESAMPLES,
            batch=50,
            axis=-1,
            method="BCa",
            rng=np.random.default_rng(0),
        ).confidence_interval
    return found.low, found.high


def studentised(studies: Studies) -> Ends:
    """The bootstrap of t over the runs of each arm."""
    rng = np.random.default_rng(0)
    size = (NUM_RESAMPLES, studies.num_seeds)
    drawn = [arm[:, rng.integers(0, studies.num_seeds, size)] for arm in (studies.a, studies.b)]
    middle = drawn[0].mean(2) - drawn[1].mean(2) - studies.difference[:, None]
    variance = sum(one.var(2, ddof=1) for one in drawn) / studies.num_seeds
    t = middle / np.sqrt(np.maximum(variance, 1e-12))
    least, most = np.quantile(t, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=1)
    error = np.sqrt((studies.a.var(1, ddof=1) + studies.b.var(1, ddof=1)) / studies.num_seeds)
    return studies.difference - most * error, studies.difference - least * error


def wilcoxon(studies: Studies) -> Ends:
    """The signed-rank interval over seeds; without bounds below six seeds."""
    d = studies.a - studies.b
    first, second = np.triu_indices(studies.num_seeds)
    averages = np.sort((d[:, first] + d[:, second]) / 2, axis=1)
    ranks = range(1, studies.num_seeds + 1)
    counts = np.ones(1)
    for rank in ranks:  # the exact distribution of the sum of ranks
        longer = np.zeros(len(counts) + rank)
        longer[: len(counts)] += counts
        longer[rank:] += counts
        counts = longer
    below = np.cumsum(counts / counts.sum())
    place = int((below <= (1 - CONFIDENCE) / 2).sum())
    if place == 0:
        return np.full(len(d), -np.inf), np.full(len(d), np.inf)
    return averages[:, place - 1], averages[:, -place]


def shares(studies: Studies, interval_of: Callable[[int, int, int], Interval]) -> Ends:
    """An interval of the difference between shares that learned, times the gap between kinds."""
    found = []
    for runs in zip(studies.a, studies.b, studies.control_RS):
        levels = levels_of(np.concatenate(runs))
        if not levels.are_two:
            return np.full(len(studies.a), np.nan), np.full(len(studies.a), np.nan)
        a, b = (int((one >= levels.threshold).sum()) for one in runs[:2])
        low, high = interval_of(a, b, studies.num_seeds)
        found.append(((levels.high - levels.low) * low, (levels.high - levels.low) * high))
    low_R, high_R = np.array(found).T
    return low_R, high_R


@cache
def newcombe(a: int, b: int, total: int) -> Interval:
    """Wilson's intervals of the two shares, put together."""
    bounds = confint_proportions_2indep(a, total, b, total, method="newcomb", compare="diff")
    return Interval(*map(float, bounds))


@cache
def score(a: int, b: int, total: int) -> Interval:
    """Miettinen and Nurminen's."""
    return ends(score_curve(a, b, total), CONFIDENCE)


CANDIDATES: dict[str, Callable[[Studies], Ends]] = {
    "`crossed`": crossed,
    "as it was": pooled,
    "Welch": welch,
    "paired t": paired,
    "BCa": bca,
    "studentised": studentised,
    "Wilcoxon": wilcoxon,
    "Newcombe": lambda studies: shares(studies, newcombe),
    "score": lambda studies: shares(studies, score),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=positive, default=500, help="per scenario (default 500)")
    parser.add_argument("--items", type=positive, default=300, help="items (default 300)")
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[3, 5, 10, 20], help="runs per arm (3 5 10 20)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the simulation (default 0)")
    parser.add_argument("--each", action="store_true", help="a row for every scenario")
    options = parser.parse_args()
    start = time.perf_counter()
    lines: dict[str, list[str]] = {"coverage": [], "median width": []}
    for name, scenarios in ROWS.items():
        for num_seeds in options.seeds:
            rng = np.random.default_rng(options.seed)
            covered, widths = [], []
            for arms in scenarios:
                size = (options.studies, num_seeds, options.items)
                studies = Studies(rng, arms, CONTROLS[name], size)
                found = [candidate(studies) for candidate in CANDIDATES.values()]
                covered.append([_covered(low, high, studies.truth) for low, high in found])
                widths.append([float(np.median(high - low)) for low, high in found[:NUM_WIDTHS]])
                if options.each:
                    cells = " | ".join(f"{100 * one:.1f}" for one in covered[-1])
                    print(f"| {arms} {num_seeds} | {cells} |", flush=True)
            row = f"{name}, {num_seeds} seeds"
            lines["coverage"].append(_row(row, [_mean_and_least(c) for c in zip(*covered)]))
            lines["median width"].append(_row(row, [_points(w) for w in zip(*widths)]))
    print(f"{options.studies} studies per scenario, {options.items} items")
    for (title, rows), number in zip(lines.items(), (len(CANDIDATES), NUM_WIDTHS)):
        print(f"\n| {title} | {' | '.join([*CANDIDATES][:number])} |\n|---|{'---|' * number}")
        print("\n".join(rows))
    print(f"\n{time.perf_counter() - start:.0f} s")


def _covered(low: np.ndarray, high: np.ndarray, truth: float) -> float:
    """How often; nan of a method that gives no interval in any study of the scenario."""
    if np.isinf(low).all() or np.isnan(low).all():
        return float("nan")
    return float(np.mean((low <= truth + 1e-12) & (high >= truth - 1e-12)))


def _row(name: str, cells: list[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _mean_and_least(shares: tuple[float, ...]) -> str:
    known = [share for share in shares if not np.isnan(share)]
    return f"{100 * np.mean(known):.1f} ({100 * min(known):.1f})" if known else "–"


def _points(widths: tuple[float, ...]) -> str:
    return f"{100 * float(np.mean(widths)):.1f}"


if __name__ == "__main__":
    main()
