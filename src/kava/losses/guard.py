"""The collapse guard: is the student taught by this sample's cache, or by any cache at all?

A KV loss can fall to nothing while nothing is learned, when a trained aligner moves the target
to wherever the student stands. Loss and cosine similarity look best just then. What tells is a
control: the loss against the cache of the *wrong sample*. A target that says something of its
sample is matched worse by the wrong one.

Shapes: B batch, L layers, H key/value heads, T positions, D head dim, N rows, C features.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from kava.losses.base import KVLossFunction
from kava.losses.positions import common_mask, mean_cosine, zero_padding
from kava.trace import KVTrace

# The control counts as good as the real teacher up to this multiple of the real loss.
CONTROL_TOLERANCE = 1.05
# A target of fewer effective directions than this is close to one constant vector.
MIN_EFFECTIVE_RANK = 1.5


def wrong_sample(target: KVTrace) -> KVTrace:
    """Give every sample the target of the sample before it.

    All parts move together, positions too: the keys keep the rotation they were made with. The
    mask of the result is true only where the sample's own target is valid as well.

    Args:
        target: a trace of at least two samples.

    Raises:
        ValueError: a batch of one sample.

    Example:
        >>> keys = torch.arange(3.0).reshape(3, 1, 1, 1, 1)
        >>> wrong_sample(KVTrace(keys, keys)).keys.flatten().tolist()
        [2.0, 0.0, 1.0]
    """
    B = target.batch_size
    if B < 2:
        raise ValueError(
            f"a batch of {B} sample has no wrong sample to give it; use a batch of 2 or more"
        )
    order = torch.arange(B, device=target.keys.device).roll(1)
    rolled = target.samples(order)
    if target.mask is None or rolled.mask is None:
        return rolled
    return replace(rolled, mask=rolled.mask.bool() & target.mask.bool())


def effective_rank(x: Tensor) -> Tensor:
    """The number of directions that the rows of `x` fill: exp of the entropy of its spectrum.

    With p the singular values of `x` divided by their sum, this is exp(−Σ p log p): 1 when all
    rows are multiples of one vector, min(N, C) when all directions are equally strong, and 0
    for zeros (Roy & Vetterli, "The effective rank", EUSIPCO 2007). The rows are not centred, so
    that rows which are all equal have rank 1. The singular values come from the smaller of the
    two Gram matrices, in float64 because squaring halves the digits. Rows of zeros add nothing.

    Args:
        x: [..., N, C].

    Returns:
        [...] in float64.

    Example:
        >>> round(effective_rank(torch.eye(4)).item(), 6)
        4.0
    """
    x = x.detach().double()
    with torch.autocast(x.device.type, enabled=False):
        gram = x @ x.mT if x.shape[-2] <= x.shape[-1] else x.mT @ x
    singular = torch.linalg.eigvalsh(gram).clamp(min=0).sqrt()
    total = singular.sum(dim=-1, keepdim=True)
    shares = singular / torch.where(total > 0, total, 1.0)
    rank = torch.special.entr(shares).sum(dim=-1).exp()
    return torch.where(total[..., 0] > 0, rank, 0.0)


def trace_effective_rank(trace: KVTrace) -> Tensor:
    """The effective rank of the keys and of the values of every layer.

    A row is one valid position of one sample, its features all heads and dims of a layer: heads
    that differ from each other but not from sample to sample count as one direction.

    Returns:
        [L, 2] in float64, keys first.
    """

    def rows(part_BLHTD: Tensor) -> Tensor:
        part = zero_padding(part_BLHTD.detach(), trace.mask)
        B, L, H, T, D = part.shape
        return part.permute(1, 0, 3, 2, 4).reshape(L, B * T, H * D)

    return torch.stack([effective_rank(rows(part)) for part in (trace.keys, trace.values)], dim=1)


@torch.no_grad()
def collapse_report(student: KVTrace, target: KVTrace, loss_fn: KVLossFunction) -> dict[str, float]:
    """Compare the student with its own target and with that of the wrong sample.

    Both comparisons use the same positions: those valid in the student, in its target and in
    the wrong one.

    Args:
        student: the student's trace, at least two samples.
        target: its target, aligned and compressed.
        loss_fn: the KV loss that is trained with.

    Returns:
        `kv` and `kv_wrong_sample`, the loss; `cos` and `cos_wrong_sample`, the mean cosine
        similarity of keys and values; `erank_student` and `erank_target`, the effective rank,
        averaged over layers, keys and values.

    Raises:
        ValueError: a batch of one sample, or traces that the loss cannot compare.
    """
    wrong = wrong_sample(target)
    mask_BT = common_mask(student, wrong)
    ours, right, wrong = (replace(t, mask=mask_BT) for t in (student, target, wrong))
    report = {
        "kv": loss_fn(ours, right)[0],
        "kv_wrong_sample": loss_fn(ours, wrong)[0],
        "cos": _mean_cosine(ours, right),
        "cos_wrong_sample": _mean_cosine(ours, wrong),
        "erank_student": trace_effective_rank(ours).mean(),
        "erank_target": trace_effective_rank(right).mean(),
    }
    return {name: float(value) for name, value in report.items()}


def _mean_cosine(student: KVTrace, target: KVTrace) -> Tensor:
    keys = mean_cosine(student.keys, target.keys, target.mask, None)
    return (keys + mean_cosine(student.values, target.values, target.mask, None)) / 2


def control_is_as_good(report: dict[str, float], tolerance: float = CONTROL_TOLERANCE) -> bool:
    """Whether the wrong sample's cache is matched as well as the right one.

    True when the control's loss is at most `tolerance` times the real one, and when either is
    not finite: a control that cannot be told apart has not passed.
    """
    return not report["kv_wrong_sample"] > tolerance * report["kv"]


def verdict(report: dict[str, float], tolerance: float = CONTROL_TOLERANCE) -> str:
    """What a report of `collapse_report` says, in one plain sentence for the log.

    Args:
        report: the result of `collapse_report`.
        tolerance: up to which multiple of the real loss the control counts as good as it.

    Example:
        >>> report = dict(kv=0.006, kv_wrong_sample=0.005, cos=0.99, cos_wrong_sample=0.99,
        ...               erank_student=9.0, erank_target=9.5)
        >>> verdict(report)  # doctest: +ELLIPSIS
        'COLLAPSE GUARD: the cache of the wrong sample is matched as well as the right one ...
    """
    kv, wrong = report["kv"], report["kv_wrong_sample"]
    numbers = (
        f"KV {wrong:.4g} against {kv:.4g}, "
        f"cosine {report['cos_wrong_sample']:.3f} against {report['cos']:.3f}"
    )
    if not (math.isfinite(kv) and math.isfinite(wrong)):
        return f"COLLAPSE GUARD: the KV loss is not finite ({numbers})."
    if report["erank_target"] < MIN_EFFECTIVE_RANK:
        return (
            f"COLLAPSE GUARD: the target itself has collapsed to an effective rank of "
            f"{report['erank_target']:.2f}, so matching it teaches nothing ({numbers})."
        )
    if control_is_as_good(report, tolerance):
        return (
            f"COLLAPSE GUARD: the cache of the wrong sample is matched as well as the right one "
            f"({numbers}), so the KV loss teaches nothing of the sample; if this "
            f"lasts, lower the learning rate, or freeze an aligner that is being trained."
        )
    return f"The student's cache is its own sample's: the wrong sample is worse ({numbers})."
