"""The picture of what each eviction rule keeps: a strip of reasoning tokens per rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kava.demo.arms import Arm
from kava.demo.kept import Kept
from kava.theme import FAINT, INK, KV, MUTED, NARROW, PAPER, WIDE, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def kept_tokens(arms: Sequence[Arm], kept: Kept, narrow: bool = False) -> Figure:
    """Example problems, and the frequency over all problems; the bluer, the oftener kept."""
    num_examples = 1 if narrow else len(kept.tokens)
    row = 0.19
    heights = [row * len(arms) + 0.42] * num_examples + [row * len(arms) + 0.55]
    figure = new_figure(NARROW if narrow else WIDE, sum(heights) + 0.35 * len(heights))
    panels = figure.subplots(
        len(heights), 1, squeeze=False, gridspec_kw={"height_ratios": heights}
    ).flatten()
    names = [arm.name for arm in arms]
    for index in range(num_examples):
        strips = [kept.examples[name][index] for name in names]
        _strips(panels[index], names, strips, kept, upright=narrow)
        _tokens(panels[index], kept.tokens[index], kept, upright=narrow)
        panels[index].set_title(f"Problem {index + 1}", fontsize=8.5, pad=4, loc="left")
    last = panels[-1]
    frequencies = [kept.frequency[name] for name in names]
    _strips(last, names, frequencies, kept, upright=narrow)
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
    return figure


def _strips(
    axes: Axes, names: Sequence[str], rows: Sequence[Sequence[float]], kept: Kept, upright: bool
) -> None:
    from matplotlib.patches import Rectangle

    for y, shares in enumerate(rows):
        for x, share in enumerate(shares):
            axes.add_patch(
                Rectangle((x - 0.46, y - 0.4), 0.92, 0.8, facecolor=FAINT, alpha=0.45, lw=0)
            )
            if share > 0:
                axes.add_patch(
                    Rectangle((x - 0.46, y - 0.4), 0.92, 0.8, facecolor=KV, alpha=share, lw=0)
                )
    axes.set_xlim(-0.6, len(rows[0]) - 0.4)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(length=0, axis="y", labelcolor=INK)
    for edge in range(5, len(rows[0]), 5):
        axes.axvline(edge - 0.5, color=MUTED, linewidth=0.7)


def _tokens(axes: Axes, tokens: Sequence[str], kept: Kept, upright: bool) -> None:
    """Write the tokens below the strips; those that a step arrives at in bold."""
    axes.set_xticks(range(len(tokens)), tokens)
    axes.tick_params(axis="x", length=0, pad=2)
    for place, label in enumerate(axes.get_xticklabels()):
        if upright and len(tokens[place]) > 1:
            label.set_rotation(90)
        label.set_fontfamily("DejaVu Sans Mono")
        label.set_fontsize(7.5)
        if place in kept.results:
            label.set_color(INK)
            label.set_fontweight("bold")
