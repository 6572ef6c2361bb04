"""`kava compare`: models on the same items, every pair of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from kava import names
from kava.commands import comparing_arms
from kava.flags import Usage, check_fields, flag, needed
from kava.format import columns, counted
from kava.statistics.bootstrap import LEAST_RESAMPLES, MOST_RESAMPLES
from kava.statistics.seeds import TESTS

if TYPE_CHECKING:
    from kava.statistics.items import Items
    from kava.statistics.paired import PairComparison


@dataclass(kw_only=True)
class CompareConfig:
    """What `kava compare` is asked for.

    Raises:
        ValueError: a value outside its range, or fewer than two files.
    """

    files: list[str] = needed("two or more jsonl files", positional=True, metavar="FILE")
    labels: list[str] | None = flag(
        None,
        "what to call the models; a label that is repeated names several runs of one method, in "
        "the order of their seeds",
        unset="the files' names",
    )
    learned: float | None = flag(
        None,
        "of several runs: accuracy of a run that learned; 0: all are of one kind",
        least=0,
        below=1,
        unset="as the runs show",
    )
    test: str = flag(
        "crossed",
        "of several runs, what counts as chance: crossed, other runs and items; seeds, other runs, "
        "paired seed by seed; items, other items for these runs; wilcoxon, as seeds by ranks",
        choices=TESTS,
    )
    metric: str | None = flag(
        None, "of a harness file: the metric that is 0 or 1, such as exact_match"
    )
    filter: str | None = flag(None, "of a harness file: the answer filter, such as strict-match")
    seed: int = flag(0, "of the bootstrap", least=0, most=names.MOST_SEED)
    num_resamples: int = flag(
        10_000, "of the bootstrap", least=LEAST_RESAMPLES, most=MOST_RESAMPLES
    )
    confidence: float = flag(0.95, "of the intervals", above=0, below=1)
    json: bool = flag(False, "print every figure as JSON")

    def __post_init__(self) -> None:
        check_fields(self)
        if len(self.files) < 2:
            raise ValueError(
                f"{self.files[0]} alone has nothing to be compared with; name two files"
            )
        labels = _labels(self.files, self.labels)
        if len(set(labels)) < len(labels):
            comparing_arms.check_runs(labels)
        else:
            for name, given in (("learned", self.learned), ("test", self.test)):
                if given not in (None, "crossed"):
                    raise ValueError(
                        f"--{name} {given} is for several runs of each method; repeat their labels"
                    )


USAGE = Usage(
    prog="kava compare",
    kind=CompareConfig,
    summary="Compare models on the same items.\n"
    "A file has one line per item: `id` and `correct`, as `kava evaluate --output` writes them, or "
    "a sample file of lm-evaluation-harness. Items are paired by their id. Several runs of each "
    "method share a label: --labels A A A B B B.",
    example="kava compare latent.jsonl written.jsonl",
)


class Pair(NamedTuple):
    """Two models, the figures, and p adjusted for all pairs of the call."""

    a: str
    b: str
    comparison: PairComparison
    p_holm: float


def main(argv: list[str]) -> int:
    """Compare every pair of files: a table or JSON on stdout."""
    options = USAGE.parse(argv)
    labels = _labels(options.files, options.labels)

    from kava.statistics.items import read_items

    models = [
        read_items(path, metric=options.metric, filter_name=options.filter)
        for path in options.files
    ]
    if len(set(labels)) < len(labels):
        methods = comparing_arms.compare_methods(
            labels,
            models,
            learned=options.learned,
            test=options.test,  # type: ignore[arg-type]
            num_resamples=options.num_resamples,
            seed=options.seed,
            confidence=options.confidence,
        )
        if options.json:
            print(json.dumps(comparing_arms.as_json(methods), indent=2, ensure_ascii=False))
        else:
            print(comparing_arms.as_text(methods))
        return 0
    pairs = compare_all(
        labels,
        models,
        num_resamples=options.num_resamples,
        seed=options.seed,
        confidence=options.confidence,
    )
    if options.json:
        print(json.dumps(as_json(labels, models, pairs), indent=2, ensure_ascii=False))
    else:
        print(as_text(labels, pairs))
    return 0


def compare_all(
    labels: Sequence[str],
    models: Sequence[Items],
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
    confidence: float = 0.95,
) -> list[Pair]:
    """Compare each model with each one after it, p adjusted after Holm over all pairs."""
    from kava.statistics.paired import compare_items
    from kava.statistics.several import holm

    indices = list(combinations(range(len(models)), 2))
    found = [
        compare_items(
            models[a], models[b], num_resamples=num_resamples, seed=seed, confidence=confidence
        )
        for a, b in indices
    ]
    adjusted = holm([one.p for one in found])
    return [Pair(labels[a], labels[b], one, p) for (a, b), one, p in zip(indices, found, adjusted)]


def as_json(
    labels: Sequence[str], models: Sequence[Items], pairs: Sequence[Pair]
) -> dict[str, Any]:
    """Every figure, for other programs."""
    first = pairs[0].comparison
    shared = ("num_items", "confidence", "num_resamples", "seed")
    intervals = _intervals(pairs)
    return {
        **{name: getattr(first, name) for name in shared},
        "models": [
            {
                "label": label,
                "path": model.path,
                "num_correct": model.num_correct,
                "accuracy": model.accuracy,
                "accuracy_low": intervals[label][0],
                "accuracy_high": intervals[label][1],
            }
            for label, model in zip(labels, models)
        ],
        "adjustment": f"Holm over {counted(len(pairs), 'pair')}",
        "pairs": [
            {
                "a": pair.a,
                "b": pair.b,
                **{
                    name: value
                    for name, value in asdict(pair.comparison).items()
                    if name not in shared
                },
                "p_holm": pair.p_holm,
            }
            for pair in pairs
        ],
    }


def as_text(labels: Sequence[str], pairs: Sequence[Pair]) -> str:
    """The figures as two tables, with what they mean below."""
    first = pairs[0].comparison
    share = f"{first.confidence:.0%}"
    counts = {pair.a: pair.comparison.correct_a for pair in pairs}
    counts |= {pair.b: pair.comparison.correct_b for pair in pairs}
    intervals = _intervals(pairs)
    models = [("model", "right", "accuracy", f"{share} interval")]
    models += [
        (
            label,
            str(counts[label]),
            f"{100 * counts[label] / first.num_items:.1f} %",
            f"{100 * intervals[label][0]:.1f} to {100 * intervals[label][1]:.1f} %",
        )
        for label in labels
    ]
    header = ["a", "b", "a − b", f"{share} interval", "only a", "only b", "p", "p Holm", "d_z"]
    several = len(pairs) > 1
    rows = [header if several else [name for name in header if name != "p Holm"]]
    for pair in pairs:
        one = pair.comparison
        bounds = (
            "none"
            if one.low is None or one.high is None
            else f"{_points(one.low)} to {_points(one.high)}"
        )
        rows.append(
            [
                pair.a,
                pair.b,
                _points(one.difference),
                bounds,
                str(one.only_a),
                str(one.only_b),
                f"{one.p:.3g}",
                *([f"{pair.p_holm:.3g}"] if several else []),
                "none" if one.d_z is None else f"{one.d_z:.3f}".replace("-", "−"),
            ]
        )
    notes = [
        "a − b: percentage points, with the BCa bootstrap interval "
        f"({first.num_resamples} resamples, seed {first.seed}).",
        "p: exact McNemar test on the items that only one of the two has right.",
    ]
    if several:
        notes.append(f"p Holm: adjusted after Holm over {len(pairs)} pairs; the one to judge by.")
    if any(pair.comparison.low is None for pair in pairs):
        notes.append("none: all items differ alike, so that resampling them shows no spread.")
    notes.append(
        "One run each: p speaks of these models, not of the methods that trained them; for those,\n"
        "train several seeds and give their files one label (--labels A A A B B B)."
    )
    return "\n".join(
        [
            f"{first.num_items} items, paired by id\n",
            *columns(models, left=1),
            "",
            *columns(rows, left=2),
            "",
            *notes,
        ]
    )


def _intervals(pairs: Sequence[Pair]) -> dict[str, tuple[float, float]]:
    found = {pair.a: pair.comparison.interval_a for pair in pairs}
    return {**found, **{pair.b: pair.comparison.interval_b for pair in pairs}}


def _points(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


def _labels(files: Sequence[str], asked: Sequence[str] | None) -> list[str]:
    if asked is not None:
        if len(asked) != len(files):
            raise ValueError(
                f"--labels names {len(asked)} models, but there are {len(files)} files"
            )
        return list(asked)
    stems = [Path(path).stem for path in files]
    if len(set(stems)) == len(stems):
        return stems
    if len(set(files)) == len(files):
        return list(files)
    return [f"{path} ({number})" for number, path in enumerate(files, start=1)]
