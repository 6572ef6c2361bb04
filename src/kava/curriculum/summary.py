"""What each stage of a curriculum added: accuracy and held-out losses before and after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kava.curriculum.folder import stage_folder, student_folder
from kava.curriculum.plan import Curriculum, Stage
from kava.curriculum.studies import BEFORE
from kava.format import NOTHING, columns, percent, points, seconds
from kava.study.folder import LOG_FILE, metric_lines, read_result, run_folder

SPACE = "eval_shared_space_"
GAP_LIMIT = 0.03
"""The relative gap between training and held-out KV loss from which on it is named."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """A loss on training samples and on held-out ones, by the same weights.

    Attributes:
        train: on training samples.
        held_out: on held-out samples.
    """

    train: float
    held_out: float

    @property
    def relative(self) -> float:
        """By how much of the training loss the held-out one is higher."""
        return self.held_out / max(self.train, 1e-12) - 1


@dataclass(frozen=True, kw_only=True)
class Added:
    """What a finished stage added.

    Attributes:
        label: of the stage.
        steps: optimiser steps.
        accuracy: on the test, before and after.
        num_items: of the test.
        kv: KV loss on held-out samples against the stage's own target, before and after; None
            where none is matched.
        kv_wrong_sample: after, against another sample's target.
        ce: cross-entropy of the answer on held-out samples, before and after.
        space: distance of points in the shared space, before and after, and after that to another
            sample's; None where there is no such space.
        gap: name of a loss → on training and held-out samples; empty where it is not measured.
        train_seconds: of the training.
    """

    label: str
    steps: int
    accuracy: tuple[float, float]
    num_items: int
    kv: tuple[float, float] | None
    kv_wrong_sample: float | None
    ce: tuple[float, float]
    space: tuple[float, float, float] | None
    gap: Mapping[str, Gap]
    train_seconds: float

    def as_json(self) -> dict[str, Any]:
        """The numbers."""
        return asdict(self)


def added_by(folder: Path, curriculum: Curriculum, stage: Stage) -> Added | None:
    """What a stage added; None if it is not finished.

    Raises:
        ValueError: a damaged result.
    """
    home = stage_folder(folder, stage)
    before, after = (
        read_result(run_folder(home, arm, curriculum.seed)) for arm in (BEFORE, stage.arm)
    )
    if not (before and before["finished"] and after and after["finished"]):
        return None
    lines = metric_lines(student_folder(folder, curriculum, stage))
    rows = [line for line in lines if "eval_ce" in line]
    first, last = rows[0], rows[-1]
    gaps = {
        name: Gap(train=last[f"eval_train_{name}"], held_out=last[f"eval_{name}"])
        for name in ("kv", "ce")
        if f"eval_train_{name}" in last and f"eval_{name}" in last
    }
    return Added(
        label=stage.label,
        steps=after["budget"]["optimizer_steps"],
        accuracy=(before["accuracy"], after["accuracy"]),
        num_items=after["num_items"],
        kv=(first["eval_kv"], last["eval_kv"]) if "eval_kv" in last else None,
        kv_wrong_sample=last.get("eval_kv_wrong_sample"),
        ce=(first["eval_ce"], last["eval_ce"]),
        space=(first[f"{SPACE}own"], last[f"{SPACE}own"], last[f"{SPACE}wrong_sample"])
        if f"{SPACE}own" in last
        else None,
        gap=gaps,
        train_seconds=after["train_seconds"],
    )


def added_table(stages: Sequence[Added]) -> str:
    """What the finished stages added, one row for each, and the gaps below."""
    rows: list[tuple[str, ...]] = [
        ("phase", "steps", "accuracy", "after", "added", "KV", "after", "other sample", "time")
    ]
    for one in stages:
        kv = ("–", "–") if one.kv is None else tuple(f"{loss:.4g}" for loss in one.kv)
        other = NOTHING if one.kv_wrong_sample is None else f"{one.kv_wrong_sample:.4g}"
        rows.append(
            (
                one.label,
                f"{one.steps:,}",
                *map(percent, one.accuracy),
                points(one.accuracy[1] - one.accuracy[0], unit=False),
                *kv,
                other,
                seconds(one.train_seconds),
            )
        )
    notes = [line for one in stages for line in (*gap_lines(one), *space_lines(one))]
    return "\n".join([*columns(rows, left=1), *notes])


def gap_lines(added: Added) -> list[str]:
    """The gap between training and held-out losses in one line; none where it is not measured."""
    if not added.gap:
        return []
    parts = [
        f"{name.upper()} {gap.train:.4g} and {gap.held_out:.4g}" for name, gap in added.gap.items()
    ]
    line = f"{added.label}: on training and on held-out samples {', '.join(parts)}"
    kv = added.gap.get("kv")
    if kv is not None:
        line += f"; the gap of the KV loss is {100 * kv.relative:.1f} %"
        if kv.relative > GAP_LIMIT:
            line += f", above {100 * GAP_LIMIT:.0f} %: more questions, or fewer steps"
    return [line]


def space_lines(added: Added) -> list[str]:
    """What the shared space says, in one line; none without one."""
    if added.space is None:
        return []
    before, after, other = added.space
    return [
        f"{added.label}: in the shared space points were {before:.3g} from the teachers' and are "
        f"{after:.3g}; another sample's are {other:.3g} away"
    ]


def state_of(folder: Path, curriculum: Curriculum, stage: Stage, busy: bool) -> str:
    """Where a stage stands that is not finished: failed, running, cut or to do."""
    home = stage_folder(folder, stage)
    results = [read_result(run_folder(home, arm, curriculum.seed)) for arm in (BEFORE, stage.arm)]
    if any(result and not result["finished"] for result in results):
        return "failed"
    run = student_folder(folder, curriculum, stage)
    if (run / LOG_FILE).is_file():
        return "running" if busy else "cut"
    return "to do"


def status_table(folder: Path, curriculum: Curriculum, busy: bool) -> str:
    """Where every stage stands, and what the finished ones added."""
    rows: list[tuple[str, ...]] = [("phase", "state", "steps", "accuracy")]
    finished = []
    for stage in curriculum.stages():
        added = added_by(folder, curriculum, stage)
        if added is not None:
            finished.append(added)
            rows.append((stage.label, "finished", f"{added.steps:,}", percent(added.accuracy[1])))
            continue
        lines = metric_lines(student_folder(folder, curriculum, stage))
        step = f"{lines[-1]['step']:,}" if lines else NOTHING
        scores = [line["eval_accuracy"] for line in lines if "eval_accuracy" in line]
        accuracy = f"({percent(scores[-1])})" if scores else NOTHING
        rows.append((stage.label, state_of(folder, curriculum, stage, busy), step, accuracy))
    table = "\n".join(columns(rows, left=2))
    return table + ("\n\n" + added_table(finished) if finished else "")
