"""The pictures of a study: accuracies with intervals, differences, curves by arm.

Each is a function from logs to a figure, in a wide form and in a narrow form for small screens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kava.format import percent, points
from kava.pictures.panels import (
    SEED,
    Look,
    Row,
    add_key,
    interval_look,
    level_look,
    panel_grid,
    plot_curve,
    row_picture,
)
from kava.pictures.theme import FAINT, INK, KV, MUTED, REFERENCE, WITHOUT
from kava.pictures.ticks import (
    FEW,
    SOME,
    in_percent,
    in_points,
    linear_axis,
    log_axis,
    step_axis,
    ticks,
)
from kava.report.judgement import Compared
from kava.report.kinds import NAMES, groups_of_kind
from kava.report.logs import ArmLogs, Role

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROLE_COLORS: Mapping[Role, str] = {
    "baseline": REFERENCE,
    "treatment": KV,
    "control": WITHOUT,
    "reference": MUTED,
}
Interval = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A quantity in a panel.

    Args:
        name: its name in the logs.
        label: its name in the picture.
        color: colour of the lines; None: the colour of the arm's role.
        thin: whether it is drawn thin, in the background.
    """

    name: str
    label: str
    color: str | None = None
    thin: bool = False

    @property
    def look(self) -> Look:
        """Drawing options; the legend uses a neutral colour if each arm has its own."""
        if self.thin:
            return Look(self.label, self.color or INK, dashes=(2.2, 1.2), width=1.0, alpha=0.9)
        return Look(self.label, self.color or INK, alpha=0.85)


@dataclass(frozen=True)
class Curves:
    """What a picture of curves shows.

    Args:
        what: label beside the panels.
        lines: the quantities in each panel.
        log: whether the axis is logarithmic.
        zero: whether it is a share, with an axis that starts at 0.
    """

    what: str
    lines: tuple[Line, ...]
    log: bool = False
    zero: bool = False


CURVES: Mapping[str, Curves] = {
    "reading_curves": Curves(
        "right answers, %",
        (
            Line("eval_reading_wrong_sample", "from another sample's latents", MUTED, thin=True),
            Line("eval_reading_written", "from written reasoning", INK),
            Line("eval_reading_target", "from the target in place of the latents", WITHOUT),
            Line("eval_reading_latents", "from the latents, one seed", KV),
        ),
        zero=True,
    ),
    "accuracy_curves": Curves("right answers, %", (Line("eval_accuracy", "one seed"),), zero=True),
    "ce_curves": Curves(
        "nats per token",
        (Line("ce", "training", MUTED, thin=True), Line("eval_ce", "held-out, one seed")),
    ),
    "kv_curves": Curves(
        "KV loss",
        (
            Line("eval_kv_wrong_sample", "to another sample's target", MUTED, thin=True),
            Line("eval_kv", "to the sample's own target, one seed"),
        ),
        log=True,
    ),
    "cka_curves": Curves(
        "CKA with the target",
        (Line("eval_cka_values", "values, one seed", WITHOUT), Line("eval_cka_keys", "keys", KV)),
    ),
    "gradient_curves": Curves("gradient norm", (Line("grad_norm", "one seed"),), log=True),
    "entropy_curves": Curves(
        "attention entropy, nats", (Line("eval_attention_entropy", "one seed"),)
    ),
}
"""Name of a picture → its curves."""


def accuracy_by_arm(
    arms: Sequence[ArmLogs],
    intervals: Mapping[str, Interval],
    narrow: bool = False,
    *,
    confidence: float = 0.95,
    guess: float | None = None,
) -> Figure:
    """Draw a dot per seed over the arm's interval, and the baseline's mean as a line.

    Args:
        arms: arms with a finished run, the baseline first if it is included.
        intervals: interval of the accuracy, by arm.
        narrow: draw the form for small screens.
        confidence: confidence level of the intervals.
        guess: accuracy of guessing: the line shows it instead of the baseline, and rows show an
            arm's description instead of its role.
    """
    rows = [
        Row(
            name=arm.name,
            what=arm.what if guess is not None else _role_of(arm),
            color=ROLE_COLORS[arm.role],
            seeds=arm.accuracies,
            interval=intervals[arm.name],
            value=percent(arm.accuracy or 0.0),
        )
        for arm in arms
    ]
    ends = [end for row in rows for end in (*row.interval, *row.seeds)]
    ends += [] if guess is None else [guess]
    interval = interval_look(confidence)
    figure, axes = row_picture(rows, _share_limits(min(ends), max(ends)), interval, narrow=narrow)
    looks = [SEED, interval]
    mean = arms[0].accuracy if arms[0].role == "baseline" else None
    if (height := mean if guess is None else guess) is not None:
        level = _guess_look(guess) if guess is not None else level_look(f"mean of {arms[0].name}")
        axes.axvline(height, zorder=1, **level.drawn())
        looks.append(level)
    ticks(axes.xaxis, in_percent, most=FEW if narrow else SOME)
    axes.set_xlabel("right answers, %")
    add_key(figure, looks)
    return figure


def differences(
    compared: Sequence[Compared], minimum_effect: float, narrow: bool = False
) -> Figure:
    """Draw the difference to the baseline: its interval, every seed and the minimum effect."""
    rows = [
        Row(
            name=one.arm.name,
            what=one.verdict.kind,
            color=ROLE_COLORS[one.arm.role],
            seeds=one.comparison.seed_differences,
            interval=(one.comparison.low, one.comparison.high),
            value=points(one.comparison.difference, unit=False),
        )
        for one in compared
    ]
    ends = [0.0, minimum_effect, -minimum_effect]
    ends += [end for row in rows for end in (*row.interval, *row.seeds)]
    room = 0.06 * (max(ends) - min(ends))
    interval = interval_look(compared[0].comparison.confidence)
    limits = (min(ends) - room, max(ends) + room)
    figure, axes = row_picture(rows, limits, interval, narrow=narrow)
    band = Look("smaller than the plan calls of interest", FAINT, width=7, alpha=0.6)
    none = Look(f"no difference to {compared[0].against.name}", INK, width=0.9)
    axes.axvspan(
        -minimum_effect, minimum_effect, color=FAINT, alpha=0.45, lw=0, zorder=0, label=band.name
    )
    axes.axvline(0.0, zorder=1, **none.drawn())
    ticks(axes.xaxis, in_points, most=FEW if narrow else SOME)
    axes.set_xlabel("points more than the baseline")
    add_key(figure, [SEED, interval, none, band])
    return figure


def with_curves(arms: Sequence[ArmLogs], curves: Curves) -> list[ArmLogs]:
    """The trained arms that logged a quantity."""
    return [arm for arm in arms if arm.arm.trained and arm.has(curves.lines[-1].name)]


def curves_by_arm(
    arms: Sequence[ArmLogs], curves: Curves, narrow: bool = False, *, guess: float | None = None
) -> Figure:
    """Draw a panel per arm and a line per seed, with the baseline's mean in all panels.

    All panels share their axes. If arms measure different things (`kava.report.kinds`), arms with
    the same letter in the title are comparable.

    Args:
        arms: result of `with_curves`, the baseline first if it is included.
        curves: the curves to draw.
        narrow: draw the form for small screens.
        guess: accuracy of guessing, drawn instead of the baseline's mean.
    """
    main = curves.lines[-1].name
    kinds = groups_of_kind(main, arms) if main in NAMES else {}
    unlike = len(set(kinds.values())) > 1
    titles = [
        (f"{arm.name}, kind {kinds[arm.name]}" if unlike else arm.name, ROLE_COLORS[arm.role])
        for arm in arms
    ]
    figure, panels = panel_grid(titles, curves.what, narrow=narrow)
    looks = [line.look for line in reversed(curves.lines)]
    mean = level_look(f"mean of {arms[0].name}")
    has_mean = main == "eval_accuracy" and arms[0].role == "baseline" and len(arms) > 1
    has_mean = has_mean and guess is None
    if guess is not None:
        looks.append(_guess_look(guess))
    for axes, arm in zip(panels, arms):
        if guess is not None:
            axes.axhline(guess, **looks[-1].drawn())
        for line in reversed(curves.lines):  # thin lines, such as a control's, are drawn on top
            for run in arm.finished:
                color = line.color or ROLE_COLORS[arm.role]
                plot_curve(axes, *run.curve(line.name), **line.look.drawn(color))
        if has_mean and arm is not arms[0]:
            plot_curve(axes, *_mean_curve(arms[0], main), **mean.drawn())
    if curves.log:
        log_axis(panels)
    else:
        linear_axis(panels, in_percent if curves.zero else None, from_zero=curves.zero)
    step_axis(panels[0], max(run.metrics[-1]["step"] for arm in arms for run in arm.finished))
    add_key(figure, [*looks, mean] if has_mean else looks)
    return figure


def _guess_look(guess: float) -> Look:
    return level_look(f"a guess: {percent(guess)}")


def _role_of(arm: ArmLogs) -> str:
    return arm.role if arm.arm.trained else f"{arm.role}, not trained"


def _mean_curve(arm: ArmLogs, name: str) -> tuple[list[int], list[float]]:
    """Mean curve over the runs that were evaluated at the first run's steps."""
    steps = arm.finished[0].curve(name)[0]
    values = [run.curve(name)[1] for run in arm.finished if run.curve(name)[0] == steps]
    return steps, [sum(column) / len(column) for column in zip(*values)]


def _share_limits(low: float, high: float) -> Interval:
    """Axis limits at least ten points apart, so that noise does not look like a difference."""
    middle, half = (low + high) / 2, max((high - low) * 0.56, 0.05)
    return max(-0.015, middle - half), min(1.015, middle + half)
