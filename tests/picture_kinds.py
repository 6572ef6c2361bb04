"""The one list of all kinds of picture that the package draws, each from made-up numbers.

A picture is a public function of the package that returns a `Figure`; `drawers` finds them, and a
test holds the list against what it finds, so that a new one cannot be forgotten.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

import kava
from kava.align import layer_map
from kava.demo import pictures as demo
from kava.demo.kept import KeptTokens
from kava.demo.rank_picture import accuracy_by_rank
from kava.demo.results import Result, Summary, summarize
from kava.demo.strips import kept_tokens
from kava.evaluate.costs import Cost
from kava.fit import LayerMapping, LayerSimilarity
from kava.pictures import alignment
from kava.pictures.costs import costs_picture
from kava.pictures.layers import similarity_picture
from kava.pictures.routing import HeatMap, heat_maps_picture
from kava.report import pictures as report
from kava.report.judgement import Compared
from kava.report.logs import ArmLogs, RunLogs
from kava.report.tables import interval_of
from kava.statistics import compare_arms, verdict
from kava.study.plan import Arm, Role

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Values = Literal["mixed", "equal", "zero", "right"]
NUM_ITEMS = 40
STEPS = (10, 20, 30, 40)


@dataclass(frozen=True)
class Case:
    """What is drawn.

    Args:
        count: arms, layers, heads or models.
        values: accuracies of the runs; other numbers follow them.
        seeds: of each arm.
        long: whether names are long.
        narrow: the form for small screens.
    """

    count: int
    values: Values
    seeds: int = 5
    long: bool = False
    narrow: bool = False

    def __str__(self) -> str:
        form = "narrow" if self.narrow else "wide"
        return f"{self.count}-{self.values}-{'long-' if self.long else ''}{form}"

    def names(self) -> list[str]:
        """Of the arms."""
        ending = "_with_a_head_map_for_each_layer, and_then_some" if self.long else ""
        return [f"arm{i}{ending}" for i in range(self.count)]

    def accuracy(self, arm: int, seed: int) -> float:
        """Of a run, a share of `NUM_ITEMS`."""
        if self.values != "mixed":
            return {"equal": 0.5, "zero": 0.0, "right": 1.0}[self.values]
        return (7 * arm + 3 * (seed % 2)) % (NUM_ITEMS + 1) / NUM_ITEMS


def drawers() -> Iterator[str]:
    """Every public function of the package that returns a figure, as module and name."""
    source = Path(kava.__file__).parent
    for path in sorted(source.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = ".".join(path.relative_to(source).with_suffix("").parts)
        for node in tree.body:
            if (
                isinstance(node, ast.FunctionDef)
                and not node.name.startswith(("_", "new_"))
                and node.returns is not None
                and ast.unparse(node.returns).strip("'\"") == "Figure"
            ):
                yield f"{module}.{node.name}"


def demo_summaries(case: Case, *, ranks: bool = False) -> list[Summary]:
    """Arms of the demo, every third of a group, with two costs of an answer."""
    roles: tuple[Role, ...] = ("treatment", "control", "reference")
    arms, results = [], []
    for i, name in enumerate(case.names()):
        name = f"{name}_{2**i}" if ranks else name
        changes: dict[str, Any] = {"map_rank": str(2**i)} if ranks else {}
        changes |= {"student": "explicit"} if i == 2 else {}
        what = "the same, decoded in parallel (T = 2)" + (", at great length" * 3 * case.long)
        arms.append(Arm(name=name, what=what, role=roles[i % 3], changes=changes))
        results += [demo_result(case, name, i, seed) for seed in range(case.seeds)]
    if ranks:
        arms.append(Arm(name="full", what="all to all", role="baseline"))
        results += [demo_result(case, "full", 3, seed) for seed in range(case.seeds)]
    return summarize(arms, results)


def demo_result(case: Case, name: str, arm: int, seed: int) -> Result:
    """One run of an arm."""
    return Result(
        arm=name, seed=seed, accuracy=case.accuracy(arm, seed), num_items=NUM_ITEMS,
        train_seconds=40.0, r_squared=case.accuracy(arm, 0), kv=0.1, kv_wrong_sample=0.2,
        forward_passes=6.0 if arm % 3 else 3.0, seconds_per_answer=0.003,
    )  # fmt: skip


def report_arms(case: Case) -> list[ArmLogs]:
    """Arms of a study, the last a reference that was not trained where there are several."""
    roles: tuple[Role, ...] = ("treatment", "control", "reference")
    arms = []
    for i, name in enumerate(case.names()):
        untrained = 0 < i == case.count - 1
        role: Role = "baseline" if i == 0 else "reference" if untrained else roles[i % 3]
        changes = {"alignment_mode": "flat"} if i % 2 else {}
        what = "the same, decoded in parallel (T = 2)" + (", at great length" * 3 * case.long)
        arm = Arm(name=name, what=what, role=role, changes=changes, trained=not untrained)
        runs = tuple(report_run(case, name, i, seed, arm.trained) for seed in range(case.seeds))
        arms.append(ArmLogs(arm=arm, settings=changes, runs=runs[:1] if untrained else runs))
    return arms


def report_run(case: Case, name: str, arm: int, seed: int, trained: bool) -> RunLogs:
    """One run of an arm, whose answers are right at the first of the items."""
    accuracy = case.accuracy(arm, seed)
    correct = {f"q{i}": i < round(accuracy * NUM_ITEMS) for i in range(NUM_ITEMS)}
    size = (0.0 if case.values == "zero" else 1.0) * (1 + arm % 5 * (case.values == "mixed"))
    metrics: list[dict[str, Any]] = [{"step": 0, "eval_accuracy": accuracy}]
    if trained:
        metrics = [
            {
                "step": step, "eval_accuracy": accuracy * k / 4, "ce": size / k,
                "codi": 0.3 * size / k,
                "eval_ce": 1.1 * size / k, "grad_norm": size / k, "eval_kv": 0.1 * size / k,
                "eval_kv_wrong_sample": 0.3 * size, "eval_cka_keys": accuracy * k / 4,
                "eval_cka_values": accuracy * k / 5, "eval_attention_entropy": size,
                "eval_reading_written": accuracy, "eval_reading_target": accuracy * k / 4,
                "eval_reading_latents": accuracy * k / 5, "eval_reading_wrong_sample": 0.04,
            }
            for k, step in enumerate(STEPS, start=1)
        ]  # fmt: skip
    return RunLogs(
        arm=name, seed=seed, state="finished", result={}, correct=correct, metrics=tuple(metrics)
    )


def draw_accuracies(case: Case, guess: float | None = None) -> Figure:
    arms = report_arms(case)
    intervals = {arm.name: interval_of(arm, 0.95) for arm in arms}
    return report.accuracy_by_arm(arms, intervals, case.narrow, guess=guess)


def draw_differences(case: Case) -> Figure:
    baseline, *others = report_arms(
        Case(case.count + 2, case.values, max(case.seeds, 2), case.long)
    )
    compared = []
    for arm in others[: case.count]:
        found = compare_arms(arm.correct_SN, baseline.correct_SN, num_resamples=0)
        said = verdict(found, p_adjusted=found.p, minimum_effect=0.05)
        compared.append(
            Compared(arm=arm, against=baseline, comparison=found, p_adjusted=found.p, verdict=said)
        )
    return report.differences(compared, 0.05, case.narrow)


def draw_curves(name: str, guess: float | None = None) -> Callable[[Case], Figure]:
    def draw(case: Case) -> Figure:
        curves = report.CURVES[name]
        arms = report.with_curves(report_arms(case), curves)
        return report.curves_by_arm(arms, curves, case.narrow, guess=guess)

    return draw


def draw_rank(case: Case) -> Figure:
    return accuracy_by_rank(demo_summaries(case, ranks=True), case.narrow)


def draw_kept(case: Case) -> Figure:
    arms = [summary.arm for summary in demo_summaries(case)]
    shares = {
        arm.name: [case.accuracy(i, k) if k < case.seeds else 0.0 for k in range(15)]
        for i, arm in enumerate(arms)
    }
    words = ["abcd", "1243", ">", "abdc", ";"] * 3
    kept = KeptTokens(
        tokens=[words] * 3, examples={name: [row] * 3 for name, row in shares.items()},
        frequency=shares, results=[3, 8, 13], num_problems=200, teacher={},
    )  # fmt: skip
    return kept_tokens(kept, case.narrow)


def matrix(case: Case, rows: int, columns: int) -> list[list[float]]:
    return [[case.accuracy(i, k) for k in range(columns)] for i in range(rows)]


def draw_layers(case: Case) -> Figure:
    if case.values == "mixed":
        weights = layer_map(2 * case.count, case.count, "ratio").tolist()
    else:
        weights = matrix(case, case.count, case.count)
    return alignment.layer_map_picture(weights, case.narrow)


def draw_heads(case: Case) -> Figure:
    layers = [matrix(case, case.count, 2 * case.count)] * case.count
    return alignment.head_map_picture({"keys": layers, "values": layers}, narrow=case.narrow)


def draw_time(case: Case) -> Figure:
    length = 30 if case.long else 4
    ours = [chr(97 + i) * length for i in range(case.count)]
    theirs = [part for word in ours for part in ([*word] if case.long else [word[:2], word[2:]])]
    share = len(theirs) // len(ours)
    weights = [
        [1 / share if j // share == i else 0.0 for j in range(len(theirs))]
        for i in range(len(ours))
    ]
    if case.values == "zero":
        weights = [[0.0] * len(theirs) for _ in ours]
    return alignment.time_map_picture(ours, theirs, weights, {0}, case.narrow)


def draw_similarity(case: Case) -> Figure:
    cka = torch.tensor(matrix(case, case.count, case.count + 1), dtype=torch.float64)
    similarity = LayerSimilarity(cka, cka, 10)
    weights = layer_map(case.count + 1, case.count, "ratio")
    return similarity_picture(LayerMapping(weights, similarity, "top_k", 1), case.narrow)


def draw_routing(case: Case) -> Figure:
    rows, teachers = ("additive", "multiplicative", "5_steps"), ("llama", "gpt2-medium")
    maps = []
    for arm, name in enumerate(case.names()):
        share = case.accuracy(arm, 0)
        maps.append(HeatMap(name, rows, teachers, [[share, 1 - share]] * len(rows)))
    return heat_maps_picture(maps, "kind of sample", case.narrow)


def draw_costs(case: Case) -> Figure:
    costs = []
    for size in (1, 32):
        for i, name in enumerate(case.names()):
            accuracy = case.accuracy(i, 0)
            figures = {
                "accuracy": accuracy, "accuracy_low": max(accuracy - 0.02, 0.0),
                "accuracy_high": min(accuracy + 0.02, 1.0), "confidence": 0.95,
                "seconds_per_answer": 0.003 / size**0.8 * 1.15**i,
            }  # fmt: skip
            thinks = ("written", "3 latents", "not at all")[i % 3]
            costs.append(Cost(name, name, thinks, i % 3 == 0, size, figures, (1.0,)))
    return costs_picture(costs, case.narrow)


KINDS: dict[str, Callable[[Case], Figure]] = {
    "demo.pictures.losses_by_step": lambda c: demo.losses_by_step(
        [arm for arm in report_arms(c) if arm.arm.trained], c.narrow
    ),
    "demo.pictures.accuracy_by_passes": lambda c: demo.accuracy_by_passes(
        demo_summaries(c), c.narrow
    ),
    "demo.rank_picture.accuracy_by_rank": draw_rank,
    "demo.strips.kept_tokens": draw_kept,
    "pictures.alignment.layer_map_picture": draw_layers,
    "pictures.alignment.head_map_picture": draw_heads,
    "pictures.alignment.time_map_picture": draw_time,
    "pictures.layers.similarity_picture": draw_similarity,
    "pictures.costs.costs_picture": draw_costs,
    "pictures.routing.heat_maps_picture": draw_routing,
    "report.pictures.accuracy_by_arm": draw_accuracies,
    "report.pictures.accuracy_by_arm/guess": lambda c: draw_accuracies(c, guess=0.04),
    "report.pictures.curves_by_arm/guess": draw_curves("accuracy_curves", guess=0.04),
    "report.pictures.differences": draw_differences,
    **{f"report.pictures.curves_by_arm/{name}": draw_curves(name) for name in report.CURVES},
}
"""Module and function (and what it draws, of one that draws several) → drawn for a case."""
