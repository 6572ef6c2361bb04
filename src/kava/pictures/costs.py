"""The costs of answers as a picture: accuracy against time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kava.pictures.panels import Look, add_key
from kava.pictures.placement import Mark, direct_labels
from kava.pictures.theme import FAINT, INK, KV, NARROW, REFERENCE, WIDE, WITHOUT, new_figure
from kava.pictures.ticks import percent_axis, ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kava.evaluate.costs import Cost

MOST_SIDE_BY_SIDE = 6
"""Models whose names fit into a panel of half a page."""

WRITES = Look("writes its reasoning", REFERENCE, marker="s", width=0)
LATENT = Look("latents", KV, marker="o", width=0)
NEITHER = Look("neither", WITHOUT, marker="^", width=0)


def costs_picture(costs: Sequence[Cost], narrow: bool = False) -> Figure:
    """Accuracy with its interval against the time of an answer, a panel for each batch size.

    Args:
        costs: of `measure_costs`.
        narrow: for small screens.
    """
    sizes = list(dict.fromkeys(cost.batch_size for cost in costs))
    num_models = len(costs) // len(sizes)
    num_columns = 1 if narrow or num_models > MOST_SIDE_BY_SIDE else min(len(sizes), 2)
    num_rows = -(-len(sizes) // num_columns)
    height = max(2.4, 0.2 * num_models + 1.0)
    figure = new_figure(NARROW if narrow else WIDE, height * num_rows + 0.2)
    grid = figure.subplots(num_rows, num_columns, sharey=True, squeeze=False)
    panels: list[Axes] = grid.flatten().tolist()
    for axes in panels[len(sizes) :]:
        axes.set_visible(False)
    interval = Look(f"{100 * costs[0].figures['confidence']:g} % interval", width=1.4)
    for axes, size in zip(panels, sizes):
        own = [cost for cost in costs if cost.batch_size == size]
        axes.set_title(f"batches of {size}" if size > 1 else "one at a time", loc="left", pad=4)
        times = [1000 * cost.figures["seconds_per_answer"] for cost in own]
        axes.set_xscale("log")
        axes.set_xlim(min(times) / 1.3, max(times) * 1.3)
        ticks(axes.xaxis, most=4)
        axes.set_xlabel("milliseconds per answer")
        axes.grid(axis="y", color=FAINT, linewidth=0.5)
        axes.tick_params(labelleft=True)
        for cost, time in zip(own, times):
            figures, look = cost.figures, _look(cost)
            ends = (figures["accuracy_low"], figures["accuracy_high"])
            axes.plot([time, time], ends, **interval.drawn(look.color))
            axes.plot(time, figures["accuracy"], zorder=3, **look.drawn(markersize=7))
    percent_axis(panels[0])
    for row in grid:
        row[0].set_ylabel("right answers, %")
    seen = [look for look in (WRITES, LATENT, NEITHER) if look in map(_look, costs)]
    add_key(figure, [*seen, interval])
    for axes, size in zip(panels, sizes):
        direct_labels(axes, [_mark(cost) for cost in costs if cost.batch_size == size])
    return figure


def _mark(cost: Cost) -> Mark:
    figures = cost.figures
    return Mark(
        1000 * figures["seconds_per_answer"], figures["accuracy"], cost.label, INK,
        figures["accuracy_low"], figures["accuracy_high"],
    )  # fmt: skip


def _look(cost: Cost) -> Look:
    """Colour and marker: written reasoning, latents, and neither."""
    if cost.writes:
        return WRITES
    return LATENT if "latents" in cost.thinks else NEITHER
