"""Fit the encoders of a shared space to paired traces, before the student is trained.

Teachers and student read the same texts, and what they cache at one token is a pair. The encoders
learn to map both to one point, by the loss that the student is trained with later; `mse` and
`cosine`, which a constant satisfies, get the variance and covariance terms of VICReg (arXiv
2105.04906) beside it, in the paper's proportion. Then they are frozen: an encoder that learns
beside the student can move to wherever the student stands.

Shapes: B samples, R positions, F features, Z dims.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from kava.shared.guard import SpaceReport, space_report, space_verdict
from kava.shared.losses import CAN_COLLAPSE, SHARED_LOSSES, redundancy, too_little_variance
from kava.shared.space import SharedSpace

NUM_STEPS = 600
BATCH = 64
LEARNING_RATE = 1e-3
GUARD_WEIGHT = 1.0
"""Of the variance term."""
COVARIANCE = 1 / 25
"""Weight of the covariance term beside it, as in the paper."""


class Pairs(NamedTuple):
    """Features of a teacher and of the student at the same tokens of the same samples."""

    teacher: Tensor
    """[B, R, F_t]."""
    student: Tensor
    """[B, R, F_s]."""
    mask: Tensor
    """[B, R] bool: the positions that are there."""

    def samples(self, index: Tensor | slice) -> Pairs:
        """Some of the samples."""
        return Pairs(*(part[index] for part in self))


class SpaceFit(NamedTuple):
    """How good a fitted space is on held-out pairs."""

    dim: int
    loss: str
    num_positions: int
    num_held_out: int
    reports: tuple[SpaceReport, ...]
    """One for each teacher."""

    def verdicts(self) -> list[str]:
        """What each report says."""
        return [space_verdict(report) for report in self.reports]


def fit_space(
    space: SharedSpace,
    pairs: Sequence[Pairs],
    held_out: Sequence[Pairs],
    *,
    loss: str,
    num_steps: int | None = None,
    guard_weight: float = GUARD_WEIGHT,
    seed: int = 0,
) -> SpaceFit:
    """Standardise the encoders' features, and fit the encoders in place.

    Args:
        space: the encoders.
        pairs: of each teacher, to fit to.
        held_out: of each teacher, to judge on.
        loss: the loss between the points, a name of `SHARED_LOSSES`.
        num_steps: steps of Adam; None: `NUM_STEPS`; 0 only standardises.
        guard_weight: of the terms that keep the losses in `CAN_COLLAPSE` from it.
        seed: of the order of the samples.

    Raises:
        ValueError: a set without two samples.

    Example:
        >>> fit = fit_space(space, [pairs], [held_out], loss="mse")
        >>> fit.verdicts()
        ['the shared space tells samples apart: 0.0213 from their own, 0.391 from another's']
    """
    compare = SHARED_LOSSES[loss]
    for part in (*pairs, *held_out):
        if len(part.mask) < 2:
            raise ValueError(
                "a shared space is fitted to two samples or more, and judged on as many; raise "
                "--calibration_samples"
            )
    for encoder, part in zip(space.teachers, pairs):
        encoder.standardise(part.teacher[part.mask])  # type: ignore[operator]
    space.student.standardise(torch.cat([part.student[part.mask] for part in pairs]))
    num_steps = NUM_STEPS if num_steps is None else num_steps
    if num_steps:
        _learn(space, pairs, loss, num_steps, guard_weight, seed)
    reports = []
    with torch.no_grad():
        for encoder, part in zip(space.teachers, held_out):
            theirs = encoder.encode(part.teacher)  # type: ignore[operator]
            ours = space.student.encode(part.student)
            reports.append(space_report(ours, theirs, part.mask, compare))
    return SpaceFit(
        dim=space.dim,
        loss=loss,
        num_positions=sum(int(part.mask.sum()) for part in pairs),
        num_held_out=sum(int(part.mask.sum()) for part in held_out),
        reports=tuple(reports),
    )


def _learn(
    space: SharedSpace,
    pairs: Sequence[Pairs],
    loss: str,
    num_steps: int,
    guard_weight: float,
    seed: int,
) -> None:
    compare = SHARED_LOSSES[loss]
    guarded = guard_weight if loss in CAN_COLLAPSE else 0.0
    trained = [parameter.requires_grad for parameter in space.parameters()]
    space.requires_grad_()
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(space.parameters(), lr=LEARNING_RATE)
    with torch.enable_grad():
        for _ in range(num_steps):
            total = torch.zeros((), device=space.student.mean.device)
            for encoder, part in zip(space.teachers, pairs):
                chosen = torch.randint(len(part.mask), (BATCH,), generator=order)
                some = part.samples(chosen.to(part.mask.device))
                theirs = encoder.encode(some.teacher[some.mask])  # type: ignore[operator]
                ours = space.student.encode(some.student[some.mask])
                total = total + compare(ours, theirs) / len(pairs)
                if guarded:
                    held = sum(
                        too_little_variance(side) + COVARIANCE * redundancy(side)
                        for side in (ours, theirs)
                    )
                    total = total + guarded * held / len(pairs)
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
    for parameter, wanted in zip(space.parameters(), trained):
        parameter.requires_grad_(wanted)
        parameter.grad = None
