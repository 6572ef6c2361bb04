"""The tables of a study; the page and the Markdown file show the same cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kava.format import (
    NOTHING,
    counted,
    fixed,
    number,
    p_text,
    percent,
    percents,
    point_interval,
    points,
)
from kava.report.areas import areas_of
from kava.report.judgement import Compared, Judgement
from kava.report.kinds import change_of_last, groups_of_kind, last_of
from kava.report.logs import ArmLogs, StudyLogs

if TYPE_CHECKING:
    import numpy as np

    from kava.statistics import Levels


@dataclass(frozen=True)
class Cell:
    """A table cell.

    Args:
        text: its text.
        small: smaller text below.
        mark: its style: `strong`, a role or a verdict.
    """

    text: str
    small: str = ""
    mark: str = ""


Row = Sequence[Cell | str]
"""Cells, or plain texts."""


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row is the row's name.

    Args:
        name: its id in the page.
        title: its description for screen readers, and its heading in Markdown.
        head: the names of the columns.
        rows: cells.
        note: text below it.
    """

    name: str
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""


def make_table(
    name: str, title: str, head: Sequence[str], rows: Sequence[Row], note: str = ""
) -> Table:
    """Make a table from cells or plain texts.

    Raises:
        ValueError: a row with more or fewer cells than the head.
    """
    for row in rows:
        if len(row) != len(head):
            raise ValueError(f"table {name}: {len(row)} cells under {len(head)} heads")
    cells = [[cell if isinstance(cell, Cell) else Cell(cell) for cell in row] for row in rows]
    return Table(name, title, tuple(head), tuple(map(tuple, cells)), note)


def arm_cell(arm: ArmLogs, small: str | None = None) -> Cell:
    """The name of an arm, with its description."""
    return Cell(arm.name, arm.what if small is None else small, arm.role)


def interval_of(
    arm: ArmLogs, confidence: float, levels: Levels | None = None
) -> tuple[float, float]:
    """The interval of an arm's accuracy, over new runs and new items; Wilson's for a single run."""
    return _interval(arm.correct_SN, confidence, levels)


def _interval(
    correct_SN: np.ndarray, confidence: float, levels: Levels | None = None
) -> tuple[float, float]:
    from kava.statistics import accuracy_interval
    from kava.statistics.intervals import wilson

    if len(correct_SN) > 1:
        return accuracy_interval(correct_SN, confidence=confidence, levels=levels)
    return wilson(int(correct_SN.sum()), correct_SN.size, confidence)


def arms_table(study: StudyLogs, judgement: Judgement) -> Table:
    """Accuracy and difference to the baseline of every arm with a finished run."""
    confidence, levels = 1 - study.plan.primary.alpha, study.levels
    rows: list[Row] = []
    for arm in study.arms:
        if not arm.finished:
            continue
        one = judgement.of(arm)
        rows.append(
            [
                arm_cell(arm),
                arm.role,
                Cell(
                    percent(arm.accuracy or 0.0),
                    percents(*interval_of(arm, confidence, levels)),
                    mark="strong",
                ),
                *_against_baseline(one),
                _area(arm),
                Cell(" ".join(f"{100 * share:.1f}" for share in arm.accuracies), mark="seeds"),
            ]
        )
    test = study.plan.primary.test
    outcomes = " and both outcomes" if study.plan.primary.steps_to else ""
    note = (
        f"Below each number its {confidence:.0%} interval, for other runs and other items, of a "
        f"single run for other items alone. p is of "
        f"the test `{test}`, adjusted by Holm over all treatments and controls{outcomes}. d_z: the "
        f"mean difference between runs of one seed over its standard deviation. Area: mean height "
        f"of the curve of accuracy. Seeds: accuracy of each run, per cent, in the plan's order."
        if judgement.compared
        else f"Below each accuracy its {confidence:.0%} interval. Nothing is compared."
    )
    head = ("arm", "role", "right", "difference", "p", "d_z", "verdict", "area", "seeds")
    return make_table("arms", "Arms", head, rows, note)


def steps_table(study: StudyLogs) -> Table | None:
    """Accuracy of every arm by the written steps of an item; None where no item counts them."""
    confidence = 1 - study.plan.primary.alpha
    arms = [arm for arm in study.arms if arm.finished]
    steps_N = list(arms[0].finished[0].num_steps.values()) if arms else []
    counts = sorted(set(steps_N))
    rows: list[Row] = []
    for arm in arms if counts else []:
        cells: list[Cell | str] = [arm_cell(arm, "")]
        for count in counts:
            correct_SN = arm.correct_SN[:, [steps == count for steps in steps_N]]
            interval = percents(*_interval(correct_SN, confidence))
            cells.append(Cell(percent(float(correct_SN.mean())), interval))
        rows.append(cells)
    note = (
        f"Right answers to the items that take this number of written steps, over an arm's seeds. "
        f"Below each its {confidence:.0%} interval."
    )
    head = ("arm", *(f"{counted(n, 'step')} ({steps_N.count(n)})" for n in counts))
    return make_table("steps", "Right answers by written steps", head, rows, note) if rows else None


def _against_baseline(one: Compared | None) -> list[Cell | str]:
    if one is None:
        return [NOTHING] * 4
    found = one.comparison
    return [
        Cell(points(found.difference, unit=False), point_interval(found.low, found.high), "strong"),
        p_text(one.p_adjusted),
        fixed(found.d_z),
        verdict_cell(one),
    ]


def verdict_cell(one: Compared) -> Cell:
    """A verdict as a cell."""
    return Cell(one.verdict.kind, mark=one.verdict.kind.replace(" ", "-"))


def _area(arm: ArmLogs) -> str:
    areas = areas_of(arm)
    return fixed(sum(areas) / len(areas), 3) if areas else NOTHING


def areas_table(judgement: Judgement) -> Table | None:
    """Areas under the curves compared with the baseline's; None if there are none."""
    rows: list[Row] = [
        [
            arm_cell(one.arm, ""),
            fixed(one.areas.arm, 3),
            fixed(one.areas.against, 3),
            f"{one.areas.difference:+.3f}".replace("-", "−"),
            f"{one.areas.low:+.3f} to {one.areas.high:+.3f}".replace("-", "−"),
            p_text(one.areas.p_adjusted),
        ]
        for one in judgement.compared
        if one.areas is not None
    ]
    note = (
        "The area is the curve's mean height; 1 is right from the first evaluation on. Paired t "
        "test over seeds, adjusted by Holm over these rows. It decides nothing: the plan's test "
        "of the final accuracy does."
    )
    head = ("arm", "area", "baseline's", "difference", "interval", "p")
    return (
        make_table("areas", "Areas under the learning curves", head, rows, note) if rows else None
    )


def controls_table(judgement: Judgement) -> Table | None:
    """Comparisons of treatments with controls, and of controls with arms without a teacher."""
    rows: list[Row] = [
        [
            arm_cell(one.arm, ""),
            arm_cell(one.against, ""),
            points(one.comparison.difference, unit=False),
            point_interval(one.comparison.low, one.comparison.high),
            p_text(one.p_adjusted),
            verdict_cell(one),
        ]
        for one in (*judgement.controlled, *judgement.untaught)
    ]
    note = (
        "The same test as above; Holm over the comparisons with controls, and apart from them over "
        "those of controls with arms that have no teacher."
    )
    head = ("arm", "against", "difference", "interval", "p", "verdict")
    title = "Comparisons with the controls"
    return make_table("controls", title, head, rows, note) if rows else None


def reading_table(study: StudyLogs) -> list[Table]:
    """From what the answers are right at the end; no table of logs without it."""
    names = [f"eval_reading_{name}" for name in ("written", "target", "latents", "wrong_sample")]
    rows: list[Row] = [
        [arm_cell(arm, ""), *(_share(last_of(name, arm)) for name in names)]
        for arm in study.arms
        if arm.has("eval_reading_latents")
    ]
    if not rows:
        return []
    head = ("arm", "written reasoning", "the target", "the latents", "another sample's latents")
    note = (
        "Right answers in %, predicted token after token, at the last evaluation, on held-out "
        "samples; means over seeds."
    )
    return [make_table("reading", "What the answer can be read from", head, rows, note)]


def _share(value: float | None) -> str:
    return NOTHING if value is None else percent(value)


def caches_table(study: StudyLogs) -> Table | None:
    """Final KV losses, each next to its own control; differences only within one kind."""
    arms = [arm for arm in study.arms if arm.has("eval_kv")]
    if not arms:
        return None
    kinds = groups_of_kind("eval_kv", arms)
    rows: list[Row] = []
    for arm in arms:
        own, wrong = last_of("eval_kv", arm), last_of("eval_kv_wrong_sample", arm)
        rows.append(
            [
                arm_cell(arm, ""),
                kinds[arm.name],
                number(own),
                number(wrong),
                fixed(wrong / own) if own and wrong is not None else NOTHING,
                _change(arm, arms[0]),
                fixed(last_of("eval_cka_keys", arm)),
                fixed(last_of("eval_cka_values", arm)),
            ]
        )
    note = (
        "At the last evaluation, on held-out samples. A ratio of 1 means that another sample's "
        "cache is matched as well as the right one. Only losses of one kind (the same letter) "
        "measure the same: same targets, geometry, key space and formula. Those of different kinds "
        "are not compared."
    )
    head = ("arm", "kind", "KV loss", "another sample's", "ratio", f"change from {arms[0].name}")
    return make_table(
        "caches", "KV loss and its control", (*head, "CKA of keys", "CKA of values"), rows, note
    )


def _change(arm: ArmLogs, first: ArmLogs) -> str:
    if arm is first:
        return NOTHING
    try:
        change = change_of_last("eval_kv", arm, first)
    except ValueError:
        return "another kind"
    return f"{change:+.3g}".replace("-", "−")


def tests_table(judgement: Judgement) -> Table | None:
    """All numbers of the comparisons with the baseline, and the effects they could detect."""
    rows: list[Row] = []
    for one in judgement.compared:
        found = one.comparison
        bootstrap = NOTHING
        if found.bootstrap_low is not None and found.bootstrap_high is not None:
            bootstrap = point_interval(found.bootstrap_low, found.bootstrap_high)
        least = found.minimum_detectable
        rows.append(
            [
                arm_cell(one.arm, ""),
                Cell(NOTHING if least is None else fixed(100 * least, 1), mark="strong"),
                p_text(found.p),
                point_interval(found.item_low, found.item_high),
                bootstrap,
                p_text(found.paired_t_p),
                p_text(found.wilcoxon_p),
                fixed(100 * found.seed_std, 1),
                Cell(" ".join(points(d, unit=False) for d in found.seed_differences), mark="seeds"),
            ]
        )
    if not rows:
        return None
    first = judgement.compared[0].comparison
    note = (
        f"{counted(first.num_seeds, 'seed')}, {counted(first.num_items, 'item')}. Detectable: the "
        f"true difference, in points, that the deciding test finds four times in five at the "
        f"spread of these runs. Differences "
        f"are in points. Items: items as clusters, for these very runs. Bootstrap: BCa over items, "
        f"10,000 resamples. The p-values in this table are not adjusted."
    )
    head = ("arm", "detectable", "p", "items", "bootstrap", "paired t", "Wilcoxon", "spread")
    return make_table("tests", "Power, and other tests", (*head, "differences by seed"), rows, note)
