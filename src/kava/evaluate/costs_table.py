"""Costs as a table."""

from __future__ import annotations

from collections.abc import Sequence

from kava.evaluate.costs import Cost
from kava.format import columns, number, percent, percents

HEADER = (
    "model", "reasoning", "batch", "accuracy", "interval", "passes", "tokens", "ms / answer",
    "tokens / s", "passes ÷ written", "time ÷ written", "in rounds",
)  # fmt: skip

NOTES = """Passes and tokens are means per answer; in a batch, all answers pay for the longest one.
Tokens are generated ones: latents are none, so tokens / s compares models of one kind alone."""


def costs_table(costs: Sequence[Cost]) -> str:
    """A table with a row per model and batch size, and an explanation of its columns."""
    confidence = f"{costs[0].figures['confidence']:.0%}"
    header = [f"{confidence} {name}" if name == "interval" else name for name in HEADER]
    related = costs[0].time_ratio is not None
    rows = [_row(cost) for cost in costs]
    kept = len(HEADER) if related else len(HEADER) - 3
    lines = columns([row[:kept] for row in [header, *rows]], left=2)
    return "\n".join([*lines, "", NOTES])


def _row(cost: Cost) -> list[str]:
    figures, ratio = cost.figures, cost.time_ratio
    return [
        cost.label,
        cost.thinks,
        str(cost.batch_size),
        percent(figures["accuracy"]),
        percents(figures["accuracy_low"], figures["accuracy_high"]),
        f"{figures['forward_passes']:.1f}",
        f"{figures['num_tokens'] / figures['num_items']:.1f}",
        number(1000 * figures["seconds_per_answer"]),
        number(figures["tokens_per_second"]),
        number(cost.passes_ratio, 2),
        "" if ratio is None else number(ratio.value, 2),
        "" if ratio is None else f"{number(ratio.low, 2)} to {number(ratio.high, 2)}",
    ]
