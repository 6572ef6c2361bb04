"""The collapse guard: is the student taught by this sample's cache, or by any cache at all?

A KV loss can fall to nothing while nothing is learned, when a trained aligner moves the target
to wherever the student stands. Loss and cosine similarity look best just then. The evidence is a
control: the loss against the cache of the *wrong sample*. If a target carries information about its
sample, the wrong one is matched worse. The control is taken slot by slot: often the first slot is
matched, which the prompt alone determines, and the later ones, which hold the reasoning, are not.

`kava.losses.verdict` says what the numbers mean.

Shapes: B batch, L layers, H key/value heads, T positions, D head dim, N rows, C features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from kava.losses.positions import common_mask, mean_cosine, zero_padding
from kava.trace import KVTrace, join_samples

TraceLoss = Callable[[KVTrace, KVTrace], tuple[Tensor, dict[str, Tensor]]]

# The control counts as good as the real teacher up to this multiple of the real loss.
CONTROL_TOLERANCE = 1.1
# The largest number of parts of the slots that are reported one by one.
MAX_PARTS = 8


def sample_before(target: KVTrace, before: KVTrace | None = None) -> KVTrace:
    """The target of the sample before each one, with its own mask and its own length.

    All parts move together, positions too: the keys keep the rotation they were made with.

    Args:
        target: a trace of at least two samples, or of one where there is one before it.
        before: the target of the sample before the first; left out, the first gets the last's.

    Raises:
        ValueError: a batch of one sample, and none before it.
    """
    B = target.batch_size
    if before is not None:
        return join_samples([before.samples([before.batch_size - 1]), target]).samples(slice(0, B))
    if B < 2:
        raise ValueError(
            f"a batch of {B} sample has no wrong sample to give it; use a batch of 2 or more"
        )
    return target.samples(torch.arange(B, device=target.keys.device).roll(1))


def wrong_sample(target: KVTrace, before: KVTrace | None = None) -> KVTrace:
    """Give every sample the target of the sample before it, at the positions of its own.

    The mask of the result is true only where the sample's own target is valid as well.

    Args:
        target: a trace of at least two samples, or of one where there is one before it.
        before: the target of the sample before the first; left out, the first gets the last's.

    Raises:
        ValueError: a batch of one sample, and none before it.

    Example:
        >>> keys = torch.arange(3.0).reshape(3, 1, 1, 1, 1)
        >>> wrong_sample(KVTrace(keys, keys)).keys.flatten().tolist()
        [2.0, 0.0, 1.0]
    """
    # positions that the target does not have are compared with nothing
    rolled = sample_before(target, before).slice(0, target.length)
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


class SlotLoss(NamedTuple):
    """The loss and its control over neighbouring slots."""

    first: int
    last: int
    kv: float
    kv_wrong_sample: float
    num_pairs: int = 1
    """Pairs of sample and slot that were compared."""


@dataclass(frozen=True, kw_only=True)
class CollapseReport:
    """How much a student's cache carries of its own sample; see `collapse_report`.

    Attributes:
        kv: the loss against the sample's own target.
        kv_wrong_sample: the loss against the target of the sample before it.
        kv_between: the loss between these two targets: the difference between samples.
        cos: the mean cosine similarity of keys and values with the own target.
        cos_wrong_sample: the same with the wrong one.
        erank_student: the effective rank of the student's cache, averaged over layers, keys and
            values.
        erank_target: the same of the target.
        slots: loss and control slot by slot, in at most `MAX_PARTS` parts.
    """

    kv: float
    kv_wrong_sample: float
    kv_between: float
    cos: float
    cos_wrong_sample: float
    erank_student: float
    erank_target: float
    slots: tuple[SlotLoss, ...]

    def used(self) -> list[SlotLoss]:
        """The slots that some sample uses; all of them where nothing was compared."""
        return [slot for slot in self.slots if slot.num_pairs] or list(self.slots)

    def untaught(self, tolerance: float = CONTROL_TOLERANCE) -> list[SlotLoss]:
        """The slots in which the wrong sample's cache is matched as well as the right one.

        A slot that no sample uses is not among them.

        Args:
            tolerance: the multiple of the real loss up to which the control counts as equally good.
        """
        # losses that are 0 everywhere do not distinguish samples
        return [slot for slot in self.used() if not slot.kv_wrong_sample > tolerance * slot.kv]

    def metrics(self) -> dict[str, float]:
        """The numbers, and `slots_taught`, the share of the slots in use that carry their own
        sample."""
        numbers = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "slots"}
        num_slots = sum(slot.last - slot.first + 1 for slot in self.used())
        untaught = sum(slot.last - slot.first + 1 for slot in self.untaught())
        return {**numbers, "slots_taught": 1 - untaught / max(num_slots, 1)}

    @property
    def num_pairs(self) -> int:
        """Pairs of sample and slot that were compared."""
        return sum(slot.num_pairs for slot in self.slots)

    @classmethod
    def mean(cls, reports: Sequence[CollapseReport]) -> CollapseReport:
        """The mean of the reports of several batches, over all pairs of sample and slot.

        Losses and cosines are those of one batch with all samples. Effective ranks are means of
        the batches' own: a rank belongs to a batch.

        Args:
            reports: one of each batch, with the same parts of slots.
        """

        def mean(numbers: Sequence[float], counts: Sequence[int]) -> float:
            return sum(n * x for n, x in zip(counts, numbers)) / max(sum(counts), 1)

        def of_part(*parts: SlotLoss) -> SlotLoss:
            counts = [part.num_pairs for part in parts]
            kv = mean([part.kv for part in parts], counts)
            control = mean([part.kv_wrong_sample for part in parts], counts)
            return SlotLoss(parts[0].first, parts[0].last, kv, control, sum(counts))

        slots = map(of_part, *(report.slots for report in reports))
        names = [field.name for field in fields(cls) if field.name != "slots"]
        counts = [report.num_pairs for report in reports]
        numbers = {n: mean([getattr(one, n) for one in reports], counts) for n in names}
        return cls(**numbers, slots=tuple(slots))


@torch.no_grad()
def collapse_report(
    student: KVTrace,
    target: KVTrace,
    loss_fn: TraceLoss,
    before: KVTrace | None = None,
    num_slots: int | None = None,
) -> CollapseReport:
    """Compare the student with its own target and with that of the wrong sample.

    All comparisons use the same positions: those valid in the student, in its target and in
    the wrong one.

    Args:
        student: the student's trace, at least two samples, or one with another before it.
        target: its target, aligned and compressed.
        loss_fn: the training loss.
        before: the target of the sample before the first, see `wrong_sample`.
        num_slots: the slots that are divided into parts; default: the target's. Given where
            several batches of different lengths shall have the same parts.

    Raises:
        ValueError: a batch of one sample alone, or traces that the loss cannot compare.

    Example:
        >>> target = KVTrace(torch.randn(8, 2, 2, 3, 4), torch.randn(8, 2, 2, 3, 4))
        >>> report = collapse_report(target, target, KVLoss())
        >>> report.kv, report.untaught(), len(report.slots)
        (0.0, [], 3)
    """
    wrong = wrong_sample(target, before)
    mask_BT = common_mask(student, wrong)
    ours, right, wrong = (replace(t, mask=mask_BT) for t in (student, target, wrong))

    def loss(one: KVTrace, other: KVTrace) -> float:
        return float(loss_fn(one, other)[0])

    slots = []
    for start, stop in parts_of(num_slots or target.length):
        here, own, others = (trace.slice(start, stop) for trace in (ours, right, wrong))
        num_pairs = int(here.valid_BT().sum())
        losses = (loss(here, own), loss(here, others)) if num_pairs else (0.0, 0.0)
        slots.append(SlotLoss(start, stop - 1, *losses, num_pairs))
    return CollapseReport(
        kv=loss(ours, right),
        kv_wrong_sample=loss(ours, wrong),
        kv_between=loss(right, wrong),
        cos=_mean_cosine(ours, right),
        cos_wrong_sample=_mean_cosine(ours, wrong),
        erank_student=float(trace_effective_rank(ours).mean()),
        erank_target=float(trace_effective_rank(right).mean()),
        slots=tuple(slots),
    )


def parts_of(num_slots: int) -> list[tuple[int, int]]:
    """Start and stop of at most `MAX_PARTS` parts of the slots, as equal in size as possible.

    Example:
        >>> parts_of(3), parts_of(20)[:3]
        ([(0, 1), (1, 2), (2, 3)], [(0, 2), (2, 5), (5, 7)])
    """
    num_parts = min(num_slots, MAX_PARTS)
    bounds = [num_slots * i // num_parts for i in range(num_parts + 1)]
    return list(pairwise(bounds))


def _mean_cosine(student: KVTrace, target: KVTrace) -> float:
    keys = mean_cosine(student.keys, target.keys, target.mask, None)
    values = mean_cosine(student.values, target.values, target.mask, None)
    return float(keys + values) / 2
