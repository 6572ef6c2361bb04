"""The tables of a demo, on its page and in a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kava.demo.arms import Kind
from kava.demo.results import Result, Summary, mean_known
from kava.format import columns, fixed, number, percent, percents, whole
from kava.report.tables import Cell, Row, Table, make_table


@dataclass(frozen=True)
class Column:
    """A number of every arm and run.

    Args:
        head: above it.
        short: the same, in a terminal.
        value: of a run; None where it has none.
        shown: the number as text.
    """

    head: str
    short: str
    value: Callable[[Result], float | None]
    shown: Callable[[float | None], str]

    def cell(self, results: Sequence[Result]) -> str:
        """The mean of some runs."""
        return self.shown(mean_known([self.value(result) for result in results]))


_TRAINING = Column("training, s", "train s", lambda r: r.train_seconds, lambda v: fixed(v, 0))
_COST = (
    Column("passes per answer", "passes", lambda r: r.forward_passes, lambda v: fixed(v, 1)),
    Column("ms per answer", "ms", lambda r: 1000 * r.seconds_per_answer, lambda v: fixed(v, 1)),
    _TRAINING,
)
_MAPS = (
    Column(
        "parameters of the map", "parameters", lambda r: r.aligner_parameters,
        lambda v: whole(v or None),
    ),
    Column("held-out R²", "R²", lambda r: r.r_squared, fixed),
    Column("KV loss", "KV loss", lambda r: r.kv, number),
    Column("another sample's", "wrong sample", lambda r: r.kv_wrong_sample, number),
    _TRAINING,
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


def columns_of(kind: Kind) -> tuple[Column, ...]:
    """What a kind of demo shows beside accuracies."""
    return _COST if kind in ("main", "eviction") else _MAPS


def note_of(kind: Kind) -> str:
    """What the numbers of a table are."""
    note = _COST_NOTE if columns_of(kind) == _COST else _MAPS_NOTE
    return f"Means over seeds. {note} Training: wall time of a run, evaluations left out."


def arms_table(kind: Kind, summaries: Sequence[Summary]) -> Table:
    """A row for each arm."""
    shown = columns_of(kind)
    rows: list[Row] = [
        [
            Cell(s.arm.name, s.arm.what, s.arm.role),
            Cell(percent(s.accuracy), mark="strong"),
            percents(s.low, s.high),
            *(column.cell(s.results) for column in shown),
        ]
        for s in summaries
    ]
    head = ("arm", "right answers", "95 % interval", *(column.head for column in shown))
    return make_table("arms", "Arms", head, rows, note_of(kind))


def runs_table(kind: Kind, summaries: Sequence[Summary]) -> Table:
    """A row for each run."""
    shown = columns_of(kind)
    rows: list[Row] = [
        [
            Cell(r.arm, mark=s.arm.role),
            str(r.seed),
            percent(r.accuracy),
            f"{r.num_items:,}",
            *(column.cell([r]) for column in shown),
        ]
        for s in summaries
        for r in s.results
    ]
    head = ("arm", "seed", "right answers", "of", *(column.head for column in shown))
    return make_table("runs", "Every run", head, rows)


def text_table(kind: Kind, summaries: Sequence[Summary]) -> str:
    """The results of a demo as a table of text."""
    shown = columns_of(kind)
    rows = [("arm", "what it is", "seeds", "right", "95 % interval", *(c.short for c in shown))]
    rows += [
        (
            s.arm.name,
            s.arm.what,
            str(len(s.results)),
            percent(s.accuracy),
            percents(s.low, s.high),
            *(column.cell(s.results) for column in shown),
        )
        for s in summaries
    ]
    head, *lines = columns(rows, left=2)
    return "\n".join([head, "─" * len(head), *lines])
