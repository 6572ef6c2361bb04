"""Tables of a study for the terminal: its plan before the runs, its state while they are at it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from kava.files.locks import is_locked
from kava.format import NOTHING, columns, percent, points, seconds, whole
from kava.study.folder import (
    LOG_FILE,
    metric_lines,
    read_result,
    run_folder,
)
from kava.study.plan import Arm, Plan
from kava.study.power import power_lines
from kava.study.settings import train_config


def plan_table(plan: Plan, arms: Sequence[Arm], seeds: Sequence[int]) -> str:
    """The matrix of a study, its budget, and what it can find; parses every configuration.

    Raises:
        ValueError: an arm whose settings are refused.

    Example:
        >>> print(plan_table(plan, plan.arms, plan.seeds).splitlines()[0])
        flat_vs_structured: Does a structured map …
    """
    rows = [("arm", "role", "seeds", "steps", "changes")]
    num_runs = 0
    for arm in arms:
        for seed in seeds:
            config = train_config(plan, arm, seed, "outputs/study")
        own = len([seed for seed in seeds if seed in plan.seeds_of(arm)])
        num_runs += own
        steps = f"{config.max_steps:,}" if config.max_steps > 0 else f"{config.epochs:g} epochs"
        changes = ", ".join(f"{key}={value}" for key, value in arm.changes.items())
        rows.append((arm.name, arm.role, str(own), steps if arm.trained else "0", changes))
    data = plan.data
    items = "all" if data.test_items is None else f"{data.test_items:,}"
    batch = plan.budget.batch_size
    return "\n".join(
        [
            f"{plan.name}: {plan.question}",
            f"plan hash  {plan.hash}",
            f"data       {data.train} ({data.train_split}"
            + (f", {data.subset_size:,} samples" if data.subset_size else "")
            + ")",
            f"test       {data.test} ({data.test_split}), {items} items behind the first "
            f"{data.curve_items:,}, which draw the curves",
            f"budget     batches of {batch}; the number of tokens is known when the data are read, "
            f"and must be equal across arms",
            "",
            *columns(rows, left=len(rows[0])),
            "",
            f"{num_runs} runs",
            *power_lines(plan),
        ]
    )


def status_table(plan: Plan, folder: Path) -> str:
    """Where every run of a study stands.

    Raises:
        ValueError: a result that is damaged.
    """
    busy = is_locked(folder)
    rows: list[tuple[str, ...]] = [("arm", "seed", "state", "steps", "accuracy", "time")]
    rows += [
        _status_of(arm, seed, run_folder(folder, arm.name, seed), busy)
        for arm in plan.arms
        for seed in plan.seeds_of(arm)
    ]
    return "\n".join(columns(rows, left=len(rows[0])))


def _status_of(arm: Arm, seed: int, folder: Path, busy: bool) -> tuple[str, ...]:
    result = read_result(folder)
    if result is not None and result["finished"]:
        steps = whole(result["budget"]["optimizer_steps"])
        return (
            arm.name, str(seed), "finished", steps, percent(result["accuracy"]),
            seconds(result["train_seconds"]),
        )  # fmt: skip
    lines = metric_lines(folder)
    step = whole(lines[-1]["step"]) if lines else NOTHING
    scores = [line["eval_accuracy"] for line in lines if "eval_accuracy" in line]
    accuracy = f"({percent(scores[-1])})" if scores else NOTHING
    time = seconds(lines[-1]["seconds"]) if lines else NOTHING
    if result is not None:
        state = "failed"
    elif (folder / LOG_FILE).is_file():
        state = "running" if busy or is_locked(folder) else "cut"
    else:
        state = "to do"
    return arm.name, str(seed), state, step, accuracy, time


def detectable_lines(plan: Plan, folder: Path, done: Iterable[tuple[str, int]]) -> list[str]:
    """The smallest effect that the finished runs could have shown, arm by arm.

    Args:
        plan: of the study.
        folder: of the study.
        done: arm and seed of the finished runs.
    """
    if plan.primary.test == "none":
        return []
    import numpy as np

    from kava.statistics import compare_arms, levels_of, read_items
    from kava.study.folder import ITEMS_FILE

    finished = set(done)
    lines: list[str] = []
    names = [arm.name for arm in (plan.baseline, *plan.compared)]
    correct = {
        (name, seed): _by_id(read_items(run_folder(folder, name, seed) / ITEMS_FILE))
        for name, seed in finished
        if name in names
    }
    if not correct:
        return lines
    levels = levels_of([np.mean(run) for run in correct.values()], plan.primary.learned)
    for arm in plan.compared:
        pair = (arm.name, plan.baseline.name)
        seeds = [seed for seed in plan.seeds if all((name, seed) in finished for name in pair)]
        if len(seeds) < 2:
            continue
        own, theirs = (np.array([correct[name, seed] for seed in seeds]) for name in pair)
        found = compare_arms(
            own,
            theirs,
            test=plan.primary.test,  # type: ignore[arg-type]
            levels=levels,
            confidence=1 - plan.primary.alpha / len(plan.compared),
        )
        if plan.primary.test == "wilcoxon":
            lines.append(f"{arm.name}: of a test of ranks no smallest detectable effect is known")
            continue
        if found.minimum_detectable is None:
            lines.append(f"{arm.name}: its answers do not vary, so that no error can be estimated")
            continue
        if found.minimum_detectable > 1:
            lines.append(
                f"{arm.name}: over {len(seeds)} seeds that lie so far apart, no difference from "
                f"{plan.baseline.name} is found in 80 % of such studies, however large"
            )
            continue
        lines.append(
            f"{arm.name}: over {len(seeds)} seeds and {own.shape[1]:,} items a true difference of "
            f"{points(found.minimum_detectable).removeprefix('+')} from {plan.baseline.name} is "
            f"found in 80 % of such studies, at the spread of these runs"
        )
    return lines


def _by_id(items: Any) -> list[bool]:
    return [right for _, right in sorted(zip(items.ids, items.correct.tolist()))]
