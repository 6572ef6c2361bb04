"""The collapse guard's verdict: transfer or collapse, in a plain sentence and its numbers.

It speaks of caches alone. What the answers say stands beside it (`kava.train.answers`).
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from kava.losses.guard import CONTROL_TOLERANCE, CollapseReport, SlotLoss

State = Literal["transfers", "partly", "nothing", "collapsed"]
Unit = Literal["latent", "position"]
"""What a student calls the slots of its cache that are matched."""

# A target of fewer effective directions than this is close to one constant vector.
MIN_EFFECTIVE_RANK = 1.5
# A target that keeps less than this share of its distances between samples has been moved.
KEPT_BETWEEN = 0.8
# A student whose held-out cross-entropy rises above this multiple of its first has lost language.
MAX_CE_RISE = 1.1


class InitialMetrics(NamedTuple):
    """Metrics of a run before its first step, to compare later ones with."""

    kv_between: float
    ce: float


class CollapseVerdict(NamedTuple):
    """The state that a collapse report shows, and what explains it."""

    state: State
    sentence: str
    """One line: `transfers: why`."""
    details: tuple[str, ...] = ()
    """Lines below it: what to do, and the numbers."""


def verdict(
    report: CollapseReport,
    *,
    ce: float | None = None,
    start: InitialMetrics | None = None,
    tolerance: float = CONTROL_TOLERANCE,
    unit: Unit = "latent",
) -> CollapseVerdict:
    """Decide whether the student's cache carries its own sample or matches any sample as well.

    A slot is taught if the wrong sample's cache is matched worse there than the right one.

    - `transfers`: all slots are taught.
    - `partly`: some are.
    - `nothing`: none is. That is so at the start of every run; what counts is that it passes.
    - `collapsed`: the target is one direction; or slots are untaught while the target has given
      up a fifth or more of what tells samples apart (only a target that is mapped by a learning
      aligner can); or held-out cross-entropy has risen above its start; or the loss is not finite.

    Where the student is mapped into the teacher's space the target is never transformed. Then a
    low loss cannot be had without the sample, and an untaught slot is a student that has not
    learned, not a collapse.

    Args:
        report: of held-out samples.
        ce: the student's cross-entropy on them.
        start: metrics before training, for a run whose target can move; None for other runs.
        tolerance: the multiple of the real loss up to which the control counts as equally good.
        unit: what a slot is called: "latent", or "position" of a student that reads a text.

    Example:
        >>> report = CollapseReport(
        ...     kv=0.088, kv_wrong_sample=0.097, kv_between=0.11, cos=0.89, cos_wrong_sample=0.88,
        ...     erank_student=4.9, erank_target=16.4,
        ...     slots=(SlotLoss(0, 0, 0.08, 0.1), SlotLoss(1, 2, 0.09, 0.09)),
        ... )
        >>> verdict(report).state, verdict(report, start=InitialMetrics(0.2, 1.3)).state
        ('partly', 'collapsed')
        >>> print(verdict(report).sentence)
        transfers in part: latents 2 to 3 of 3 match another sample's cache as well as their own
    """
    state, sentence, *advice = _judge(report, ce, start, tolerance, unit)
    return CollapseVerdict(state, sentence, (*advice, _numbers(report, ce, start)))


def _judge(
    report: CollapseReport,
    ce: float | None,
    start: InitialMetrics | None,
    tolerance: float,
    unit: Unit,
) -> tuple[State, str] | tuple[State, str, str]:
    if not all(map(math.isfinite, (report.kv, report.kv_wrong_sample, report.kv_between))):
        return "collapsed", "collapsed: the KV loss is not finite"
    if report.erank_target < MIN_EFFECTIVE_RANK:
        return (
            "collapsed",
            f"collapsed: the target has shrunk to an effective rank of {report.erank_target:.2f}",
            "to match it teaches nothing",
        )
    untaught = report.untaught(tolerance)
    lost = 0.0 if start is None else 1 - report.kv_between / max(start.kv_between, 1e-12)
    moved = lost > 1 - KEPT_BETWEEN
    given_up = f"since the start the target has lost {lost:.0%} of what tells samples apart"
    alike = f"{_match(untaught, report, unit)} as well as"
    alike += " their own" if " match " in alike else " its own"
    if untaught and moved:
        mend = "freeze the aligner, or map the student in place of the teacher"
        return "collapsed", f"collapsed: {alike}", f"{given_up}; {mend}"
    if start is not None and ce is not None and not ce <= MAX_CE_RISE * start.ce:
        return (
            "collapsed",
            f"collapsed: held-out cross-entropy has risen from {start.ce:.4g} to {ce:.4g}",
            "the student loses its language to the cache; lower the weight of the KV loss",
        )
    if len(untaught) == len(report.used()):
        return (
            "nothing",
            f"nothing transfers: {alike}",
            "so it is at the start of every run; if it lasts, the KV loss teaches nothing",
        )
    if untaught:
        return "partly", f"transfers in part: {alike}"
    better = f"transfers: every {unit} matches its own sample's cache better than another's"
    return ("transfers", better, given_up) if moved else ("transfers", better)


def _match(slots: list[SlotLoss], report: CollapseReport, unit: Unit) -> str:
    """`every latent matches another sample's cache`, `latents 2, 4 to 6 of 8 match …`."""
    if len(slots) == len(report.used()):
        return f"every {unit} matches another sample's cache"
    spans: list[list[int]] = []
    for slot in slots:
        if spans and spans[-1][1] == slot.first:
            spans[-1][1] = slot.last + 1
        else:
            spans.append([slot.first, slot.last + 1])
    text = ", ".join(
        f"{first + 1}" if stop == first + 1 else f"{first + 1} to {stop}" for first, stop in spans
    )
    one = text.isdecimal()
    names = f"{unit}{'' if one else 's'} {text} of {report.slots[-1].last + 1}"
    return f"{names} match{'es' if one else ''} another sample's cache"


def _numbers(report: CollapseReport, ce: float | None, start: InitialMetrics | None) -> str:
    """The numbers behind the verdict, each beside its control."""
    parts = [
        f"KV loss {report.kv:.4g} (another sample's cache {report.kv_wrong_sample:.4g})",
        f"cosine {report.cos:.3f} ({report.cos_wrong_sample:.3f})",
        f"effective rank {report.erank_student:.1f} (target {report.erank_target:.1f})",
    ]
    if ce is not None:
        before = "" if start is None else f" (at the start {start.ce:.4g})"
        parts.append(f"held-out CE {ce:.4g}{before}")
    return ", ".join(parts)
