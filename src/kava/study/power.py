"""What a plan can find before anything is run, from assumed spreads or from a pilot."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kava.format import counted, percent, points
from kava.study.folder import read_locked_plan
from kava.study.packed import unpacked
from kava.study.plan import Pilot, Plan
from kava.study.runner import finished_results

if TYPE_CHECKING:
    from kava.statistics import Levels

ASSUMED_STDS = (0.01, 0.03, 0.10)
"""Spreads of the accuracy between runs of one arm that the power is told for, without a pilot."""

MOST_SEEDS = 1_000
LEAST_STD = 1e-4
"""Of differences: a pilot in which they are all alike does not show that they always are."""


@dataclass(frozen=True, kw_only=True)
class RunSpread:
    """How runs of one arm scatter.

    Attributes:
        seed_std: standard deviation of their accuracies or, where the test pairs seeds, of the
            differences between two arms, seed by seed.
        accuracy: of the baseline.
        gap: between a run that learned and one that did not; 0 where it is a matter of degree.
        share: of the baseline's runs that learn.
        paired: whether the test pairs seeds.
        source: where this is from, for the table.
    """

    seed_std: float
    accuracy: float
    gap: float = 0.0
    share: float = 0.0
    paired: bool = False
    source: str = ""


def power_lines(plan: Plan) -> list[str]:
    """How often the plan would find its minimum effect, and the seeds that it would take.

    Raises:
        ValueError: a pilot that is no study, or has no arm with two finished runs.
    """
    primary, items = plan.primary, plan.data.test_items
    if primary.test == "none":
        return ["power      not asked for: the plan describes without a verdict"]
    if items is None:
        return ["power      not known before the data are read; give test_items under data"]
    tests = len(plan.compared) * (1 if primary.steps_to is None else 2)
    lines = [
        f"power      to find {points(primary.minimum_effect)} with {plan.fewest_seeds} seeds and "
        f"{items:,} items at p < {primary.alpha:g} over {tests} comparisons:"
    ]
    level = primary.alpha / tests
    if plan.pilot is not None:
        return lines + _from_pilot(plan, plan.pilot, items, level)
    paired = primary.test == "seeds"
    for std in ASSUMED_STDS:
        spread = RunSpread(seed_std=std, accuracy=0.5, paired=paired)
        found = power_of(spread, primary.minimum_effect, plan.fewest_seeds, items, level)
        spelled = points(std).removeprefix("+")
        what = _what(spread) if paired else "runs of an arm"
        lines.append(f"           {percent(found)} where {what} spread by {spelled}")
    return lines


def _from_pilot(plan: Plan, pilot: Pilot, items: int, level: float) -> list[str]:
    spread = spread_of(pilot, paired=plan.primary.test == "seeds")
    effect, has = plan.primary.minimum_effect, plan.fewest_seeds
    found = power_of(spread, effect, has, items, level)
    needed = next(
        (
            num_seeds
            for num_seeds in range(2, MOST_SEEDS + 1)
            if power_of(spread, effect, num_seeds, items, level) >= pilot.power
        ),
        None,
    )
    wanted = f"power {pilot.power:g} takes "
    if needed is None:
        wanted += f"more than {MOST_SEEDS:,} seeds an arm, or more items"
    else:
        enough = "enough" if needed <= has else "too few"
        wanted += f"{counted(needed, 'seed')} an arm; the plan has {has}, {enough}"
    return [
        f"           {percent(found)}, as {_what(spread)} spread in {spread.source}",
        f"           {wanted}",
    ]


def _what(spread: RunSpread) -> str:
    return "differences of a seed's two runs" if spread.paired else "runs"


def power_of(spread: RunSpread, effect: float, num_seeds: int, items: int, alpha: float) -> float:
    """How often a true difference is found, by the test `crossed` or, of pairs, by `seeds`.

    Where runs learn or do not, the difference is one of the share that learns, and the test the
    exact one.
    """
    from kava.statistics import power_before
    from kava.statistics.power import power_of_t
    from kava.statistics.shares import MOST_EXACT, share_power

    seed_std = spread.seed_std
    if spread.paired:
        error = max(seed_std, LEAST_STD) / num_seeds**0.5
        return power_of_t(effect, error, num_seeds - 1, alpha=alpha) if num_seeds > 1 else 0.0
    if spread.gap:
        change = effect / spread.gap
        other = spread.share + change if spread.share + change <= 1 else spread.share - change
        if not 0 <= other <= 1:
            return 0.0  # runs of two kinds are not so far apart
        if num_seeds <= MOST_EXACT:
            return share_power(other, spread.share, num_seeds, alpha)
        shares = (spread.share, other)
        seed_std = spread.gap * (sum(share * (1 - share) for share in shares) / 2) ** 0.5
    accuracy = spread.accuracy
    return power_before(
        effect=effect if accuracy + effect <= 1 else -effect,
        num_seeds=num_seeds,
        num_items=items,
        seed_std=seed_std,
        accuracy=accuracy,
        alpha=alpha,
    )


def spread_of(pilot: Pilot, *, paired: bool = False) -> RunSpread:
    """The spread that a pilot declares or shows.

    Args:
        pilot: of the plan.
        paired: the spread of the differences from the baseline, seed by seed, is asked for.

    A spread that is measured is the root mean square of the standard deviations of all compared
    arms, less what a finite test adds. Where runs learn or do not, the shares are those of the
    arms with one run added to either kind, since five runs of five do not mean all runs.

    Raises:
        ValueError: as `power_lines`.
    """
    if pilot.study is None:
        std = pilot.seed_std or 0.0
        source = f"the plan's pilot (standard deviation {points(std).removeprefix('+')})"
        return RunSpread(seed_std=std, accuracy=pilot.accuracy, paired=paired, source=source)
    folder = Path(pilot.study)
    plan = read_locked_plan(folder)
    with unpacked(folder) as there:
        results = finished_results(plan, there)
    arms: dict[str, list[float]] = {}
    num_items = 1
    base = plan.baseline.name
    accuracies = {key: float(result["accuracy"]) for key, result in results.items()}
    for (name, seed), result in results.items():
        if plan.arm(name).is_compared or name == base:
            own = accuracies[name, seed]
            if paired and name != base:
                if (base, seed) not in accuracies:
                    continue
                own -= accuracies[base, seed]
            arms.setdefault(name, []).append(own)
            num_items = int(result["num_items"])
    arms = {name: runs for name, runs in arms.items() if len(runs) > 1}
    if plan.baseline.name not in arms:
        raise ValueError(
            f"pilot: {folder} has fewer than two finished runs of its baseline, which show no "
            f"spread; finish it, or declare seed_std"
        )
    if paired:
        return _of_differences(arms, base, str(folder))
    return _measured(plan, arms, num_items, str(folder))


def _of_differences(arms: dict[str, list[float]], base: str, folder: str) -> RunSpread:
    import numpy as np

    accuracy = float(np.mean(arms.pop(base)))
    if not arms:
        raise ValueError(
            f"pilot: {folder} has no arm with two seeds in common with its baseline, whose "
            f"differences would show a spread; finish it, or declare seed_std"
        )
    std = float(np.mean([np.var(runs, ddof=1) for runs in arms.values()])) ** 0.5
    total = f"{counted(len(arms), 'arm')}, {counted(sum(map(len, arms.values())), 'pair')}"
    source = f"{folder} (standard deviation {points(std).removeprefix('+')}; {total})"
    return RunSpread(seed_std=std, accuracy=accuracy, paired=True, source=source)


def _measured(plan: Plan, arms: dict[str, list[float]], num_items: int, folder: str) -> RunSpread:
    import numpy as np

    from kava.statistics import levels_of

    levels: Levels = levels_of(
        [one for runs in arms.values() for one in runs], plan.primary.learned
    )
    baseline = np.array(arms[plan.baseline.name])
    accuracy = float(baseline.mean())
    total = f"{counted(len(arms), 'arm')}, {counted(sum(map(len, arms.values())), 'run')}"
    if levels.are_two:
        learned = int((baseline >= levels.threshold).sum())
        share = (learned + 1) / (len(baseline) + 2)
        return RunSpread(
            seed_std=0.0,
            accuracy=accuracy,
            gap=levels.high - levels.low,
            share=share,
            source=f"{folder}, where runs learn or do not, {learned} of {len(baseline)} of the "
            f"baseline (taken as {percent(share)})",
        )
    variances = [
        float(np.var(runs, ddof=1) - np.mean(runs) * (1 - np.mean(runs)) / num_items)
        for runs in arms.values()
    ]
    std = max(0.0, float(np.mean(variances))) ** 0.5
    source = f"{folder} (standard deviation {points(std).removeprefix('+')}; {total})"
    return RunSpread(seed_std=std, accuracy=accuracy, source=source)
