"""The picture of what each eviction rule keeps: a strip of reasoning tokens per rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kava.demo.kept import KeptTokens
from kava.pictures.panels import cells, color_bar
from kava.pictures.placement import wrapped
from kava.pictures.theme import INK, MUTED, NARROW, PAPER, WIDE, new_figure
from kava.pictures.ticks import in_percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_NAME = 8.0  # points of a rule's name


def kept_tokens(kept: KeptTokens, narrow: bool = False) -> Figure:
    """Example problems, and the frequency over all problems; the bluer, the oftener kept."""
    num_examples = 1 if narrow else len(kept.tokens)
    names = [wrapped(rule, 80 if narrow else 150, _NAME) for rule in kept.frequency]
    row = 0.15 * max(name.count("\n") + 1 for name in names) + 0.04
    heights = [row * len(names) + 0.42] * num_examples + [row * len(names) + 0.55]
    figure = new_figure(NARROW if narrow else WIDE, sum(heights) + 0.4 * len(heights))
    panels = figure.subplots(
        len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights}
    ).flatten()
    for index in range(num_examples):
        strips = [rows[index] for rows in kept.examples.values()]
        _strips(panels[index], names, strips)
        _tokens(panels[index], kept.tokens[index], kept, upright=narrow)
        panels[index].set_title(f"Problem {index + 1}", fontsize=8.5, pad=4, loc="left")
    last = panels[-1]
    frequencies = list(kept.frequency.values())
    _strips(last, names, frequencies)
    if not narrow:
        for y, shares in enumerate(frequencies):
            for x, share in enumerate(shares):
                if share >= 0.005:
                    last.text(
                        x, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=6.5,
                        color=PAPER if share > 0.6 else INK,
                    )  # fmt: skip
    last.set_title(
        f"Kept in {kept.num_problems} problems" + ("" if narrow else ", %"),
        fontsize=8.5, pad=4, loc="left",
    )  # fmt: skip
    places = ["before", "move", "arrow", "after", "end"] * (len(frequencies[0]) // 5)
    _tokens(last, places, kept, upright=narrow)
    what = "kept by, % of layers and heads" + ("" if narrow else "; below, of problems too")
    color_bar(figure, panels.tolist(), what, text=in_percent)
    return figure


def _strips(axes: Axes, names: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
    cells(axes, rows)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", labelcolor=INK, labelsize=_NAME)
    for edge in range(5, len(rows[0]), 5):
        axes.axvline(edge - 0.5, color=MUTED, linewidth=0.7, label="_end of a step")


def _tokens(axes: Axes, tokens: Sequence[str], kept: KeptTokens, upright: bool) -> None:
    """Write the tokens below the strips; those that a step arrives at in bold."""
    axes.set_xticks(range(len(tokens)), tokens)
    axes.tick_params(axis="x", length=0, pad=2)
    for place, label in enumerate(axes.get_xticklabels()):
        if upright and len(tokens[place]) > 1:
            label.set_rotation(90)
        label.set_fontfamily("DejaVu Sans Mono")
        label.set_fontsize(6.5)
        if place in kept.results:
            label.set_color(INK)
            label.set_fontweight("bold")
