"""The columns of a study's table, on its page and in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kava.demo.arms import Kind
from kava.demo.results import Result, Summary
from kava.format import percent

Measured = Summary | Result


@dataclass(frozen=True, kw_only=True)
class Column:
    """A number of every arm and run.

    Args:
        head: above it.
        short: the same, in a terminal.
        value: of an arm, or of a run.
        optional: left out on small screens.
    """

    head: str
    short: str
    value: Callable[[Measured], str]
    optional: bool = False


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


_ALWAYS = (
    Column(head="training, s", short="train s", value=lambda r: f"{r.train_seconds:.0f}",
           optional=True),
)  # fmt: skip
_COST = (
    Column(head="passes per answer", short="passes", value=lambda r: f"{r.forward_passes:.1f}"),
    Column(head="ms per answer", short="ms", value=lambda r: f"{r.milliseconds:.1f}",
           optional=True),
)  # fmt: skip
_MAPS = (
    Column(head="parameters of the map", short="parameters",
           value=lambda r: f"{r.aligner_parameters:,}" if r.aligner_parameters else "–"),
    Column(head="held-out R²", short="R²", value=lambda r: _number(r.r_squared, ".2f")),
    Column(head="KV loss", short="KV loss", value=lambda r: _number(r.kv, ".3g"), optional=True),
    Column(head="another sample's", short="wrong sample",
           value=lambda r: _number(r.kv_wrong_sample, ".3g"), optional=True),
)  # fmt: skip

_COST_NOTE = (
    "Passes and milliseconds: one question at a time, on one thread, all students in turns."
)
_MAPS_NOTE = (
    "Parameters: of the maps of keys and values. R²: of the fitted maps, on texts that they were "
    "not fitted to, averaged over layers, keys and values; a dash where nothing is fitted. KV "
    "loss: on held-out samples at the end, against the run's own targets and against those of "
    "other samples."
)

COLUMNS: Mapping[Kind, tuple[Column, ...]] = {
    "main": (*_COST, *_ALWAYS),
    "eviction": (*_COST, *_ALWAYS),
    "maps": (*_MAPS, *_ALWAYS),
    "rank": (*_MAPS, *_ALWAYS),
    "joint": (*_MAPS, *_ALWAYS),
}
"""What a kind of study shows beside accuracies."""


def note_of(kind: Kind) -> str:
    """What the numbers of a table are."""
    note = _COST_NOTE if COLUMNS[kind][: len(_COST)] == _COST else _MAPS_NOTE
    return f"Means over seeds. {note} Training: wall time of a run, evaluations left out."


def text_table(kind: Kind, summaries: Sequence[Summary]) -> str:
    """The results of a study as a table of text."""
    columns = COLUMNS[kind]
    head = ("arm", "what it is", "seeds", "right", "95 % interval", *(c.short for c in columns))
    rows = [
        (
            s.arm.name,
            s.arm.what,
            str(len(s.results)),
            percent(s.accuracy),
            f"{100 * s.low:.1f}–{percent(s.high)}",
            *(column.value(s) for column in columns),
        )
        for s in summaries
    ]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in (head, *rows)
    ]
    return "\n".join([lines[0], "─" * len(lines[0]), *lines[1:]])
