"""`kava compare` over several runs of each method: labels that name several files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

from kava.format import columns, counted, p_text, percent, percents, point_interval, points

if TYPE_CHECKING:
    import numpy as np

    from kava.statistics import ArmComparison, Items
    from kava.statistics.seeds import Test


class ArmPair(NamedTuple):
    """Two methods, the figures, and p adjusted for all pairs of the call."""

    a: str
    b: str
    comparison: ArmComparison
    p_holm: float


def check_runs(labels: Sequence[str]) -> None:
    """Hold repeated labels to what a comparison of methods needs.

    Raises:
        ValueError: one method, or unlike numbers of runs.
    """
    counts = {label: labels.count(label) for label in labels}
    if len(counts) < 2:
        raise ValueError(
            f"--labels names one method alone, {labels[0]}; give the runs of two, such as A A B B"
        )
    if len(set(counts.values())) > 1:
        said = ", ".join(f"{label} {count}" for label, count in counts.items())
        raise ValueError(
            f"--labels names unlike numbers of runs ({said}); each method needs as many, in the "
            f"order of their seeds"
        )


def compare_methods(
    labels: Sequence[str],
    models: Sequence[Items],
    *,
    learned: float | None,
    test: Test,
    confidence: float,
    num_resamples: int,
    seed: int,
) -> list[ArmPair]:
    """Compare each method with each one after it, over runs and items."""
    from kava.statistics import compare_arms, holm, levels_of

    arms = _by_label(labels, models)
    levels = levels_of([correct_SN.mean(1) for correct_SN in arms.values()], learned)
    names = list(combinations(arms, 2))
    found = [
        compare_arms(
            arms[a],
            arms[b],
            test=test,
            levels=levels,
            confidence=confidence,
            num_resamples=num_resamples,
            seed=seed,
        )
        for a, b in names
    ]
    adjusted = holm([one.p for one in found])
    return [ArmPair(a, b, one, p) for (a, b), one, p in zip(names, found, adjusted)]


def _by_label(labels: Sequence[str], models: Sequence[Items]) -> dict[str, np.ndarray]:
    """[S, N] per label, with the items in the first file's order."""
    import numpy as np

    from kava.statistics.items import pair

    first = models[0]
    rows: dict[str, list[np.ndarray]] = {label: [] for label in labels}
    for label, model in zip(labels, models):
        rows[label].append(pair(first, model)[1])
    return {label: np.array(runs) for label, runs in rows.items()}


def as_json(pairs: Sequence[ArmPair]) -> dict[str, Any]:
    """Every figure, for other programs."""

    def figures(pair: ArmPair) -> dict[str, Any]:
        found = asdict(pair.comparison)
        found["learned"] = pair.comparison.learned and pair.comparison.learned._asdict()
        return {"a": pair.a, "b": pair.b, **found, "p_holm": pair.p_holm}

    return {
        "adjustment": f"Holm over {counted(len(pairs), 'pair')}",
        "pairs": [figures(pair) for pair in pairs],
    }


def as_text(pairs: Sequence[ArmPair]) -> str:
    """The figures as tables, with what they mean below."""
    first = pairs[0].comparison
    share = f"{first.confidence:.0%} interval"
    methods: dict[str, tuple[str, ...]] = {}
    for pair in pairs:
        found = pair.comparison
        for label, accuracy, interval, learned in (
            (pair.a, found.accuracy_treatment, found.interval_treatment, 0),
            (pair.b, found.accuracy_baseline, found.interval_baseline, 1),
        ):
            row = [label, percent(accuracy), percents(*interval)]
            if found.learned is not None:
                counts = (found.learned.treatment, found.learned.baseline)
                row.append(f"{counts[learned]} of {first.num_seeds}")
            methods.setdefault(label, tuple(row))
    head = ["a", "b", "a − b", share, "p", *(["p Holm"] if len(pairs) > 1 else [])]
    rows = [[*head, *(["learned, p"] if first.learned is not None else [])]]
    for pair in pairs:
        found = pair.comparison
        row = [
            pair.a,
            pair.b,
            points(found.difference, unit=False),
            point_interval(found.low, found.high),
            p_text(found.p),
            *([p_text(pair.p_holm)] if len(pairs) > 1 else []),
        ]
        rows.append([*row, *([p_text(found.learned.p)] if found.learned is not None else [])])
    chance = {
        "crossed": "other runs and other items",
        "seeds": "other runs, paired seed by seed",
        "items": "other items for these runs",
        "wilcoxon": "other runs, paired seed by seed; p is of signed ranks",
    }[first.test]
    notes = [f"a − b: percentage points; interval and p count {chance} (`{first.test}`)."]
    if len(pairs) > 1:
        notes.append(f"p Holm: adjusted after Holm over {len(pairs)} pairs; the one to judge by.")
    if first.learned is not None:
        notes.append(
            f"learned: runs with at least {percent(first.learned.threshold)} right, and the exact "
            f"p of equal shares."
        )
    size = f"{first.num_seeds} runs of each, {first.num_items} items, paired by id\n"
    method = ("method", "accuracy", share, *(["learned"] if first.learned is not None else []))
    return "\n".join(
        [
            size,
            *columns([method, *methods.values()], left=1),
            "",
            *columns(rows, left=2),
            "",
            *notes,
        ]
    )
