"""Has the shared space collapsed, and does it tell samples apart?

Encoders that learn can satisfy a loss by mapping everything to one point, or to a few directions.
Two numbers show it: the spread of the points (the share of their length that varies) and their
effective rank. And the control that KaVa holds every target to: a student whose points are as near
to another sample's as to its own has learned nothing of its sample.

Shapes: B samples, M slots, Z dims, N points.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from kava.losses.guard import CONTROL_TOLERANCE, effective_rank
from kava.losses.verdict import MIN_EFFECTIVE_RANK
from kava.shared.losses import SharedLoss

MIN_SPREAD = 0.1
"""Points of which less than this share of their length varies are one point."""


@dataclass(frozen=True, kw_only=True)
class SpaceReport:
    """What the points of a set of samples show.

    Attributes:
        own: the loss between student and teachers.
        wrong_sample: the same with the teachers' points of the sample before.
        spread_student: share of the length of the student's points that varies, from 0 to 1.
        spread_teacher: the same of the teachers'.
        erank_student: effective rank of the student's points around their mean.
        erank_teacher: the same of the teachers'.
    """

    own: float
    wrong_sample: float
    spread_student: float
    spread_teacher: float
    erank_student: float
    erank_teacher: float

    def metrics(self) -> dict[str, float]:
        """The numbers by name."""
        return asdict(self)


@torch.no_grad()
def space_report(
    student_BMZ: Tensor, teacher_BMZ: Tensor, mask_BM: Tensor, loss: SharedLoss
) -> SpaceReport:
    """Look at the points of a set of samples.

    Args:
        student_BMZ: the student's.
        teacher_BMZ: the teachers'.
        mask_BM: the slots that both fill.
        loss: between two sets of points.

    Raises:
        ValueError: one sample, or no slot that two neighbours fill.
    """
    if len(student_BMZ) < 2:
        raise ValueError("one sample has no other to compare its points with; give two or more")
    both_BM = mask_BM & mask_BM.roll(1, 0)
    if not both_BM.any():
        raise ValueError("no two neighbouring samples fill a common slot; give more samples")
    wrong_BMZ = teacher_BMZ.roll(1, 0)
    ours, theirs = student_BMZ[mask_BM].float(), teacher_BMZ[mask_BM].float()
    return SpaceReport(
        own=float(loss(student_BMZ[both_BM].float(), teacher_BMZ[both_BM].float())),
        wrong_sample=float(loss(student_BMZ[both_BM].float(), wrong_BMZ[both_BM].float())),
        spread_student=spread(ours),
        spread_teacher=spread(theirs),
        erank_student=float(effective_rank(ours - ours.mean(0))),
        erank_teacher=float(effective_rank(theirs - theirs.mean(0))),
    )


def spread(points_NZ: Tensor) -> float:
    """The share of the points' length that varies: 0 of equal points, 1 of points around 0.

    Example:
        >>> spread(torch.ones(4, 3))
        0.0
    """
    length = float(points_NZ.norm())
    return float((points_NZ - points_NZ.mean(0)).norm()) / length if length else 0.0


def space_verdict(numbers: SpaceReport | Mapping[str, float]) -> str:
    """What a report says, in one sentence.

    Args:
        numbers: the report, or its numbers by name.

    Example:
        >>> space_verdict(SpaceReport(
        ...     own=0.2, wrong_sample=0.2, spread_student=0.01, spread_teacher=0.9,
        ...     erank_student=9, erank_teacher=12))
        "the shared space has collapsed: all of the student's points are one (spread 0.01)"
    """
    found = numbers.metrics() if isinstance(numbers, SpaceReport) else numbers
    for side, whose in (("teacher", "the teachers'"), ("student", "the student's")):
        size, rank = found[f"spread_{side}"], found[f"erank_{side}"]
        if not size >= MIN_SPREAD:
            return (
                f"the shared space has collapsed: all of {whose} points are one (spread {size:.2g})"
            )
        if not rank >= MIN_EFFECTIVE_RANK:
            return f"the shared space has collapsed: {whose} points lie along {rank:.2g} directions"
    own, other = found["own"], found["wrong_sample"]
    if not other > CONTROL_TOLERANCE * own:
        return (
            f"the shared space teaches nothing: points are as near to another sample's as to their "
            f"own ({own:.3g}, another's {other:.3g})"
        )
    return (
        f"the shared space tells samples apart: {own:.3g} from their own, {other:.3g} from "
        f"another's"
    )
