"""The teachers side by side, each at slots of its own.

A mean of caches keeps what they share. Where one teacher knows what another does not, routing is
limited too (arXiv 2601.05106); the union keeps positions of all.

Shapes: B batch, M slots, N teachers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kava.fuse.base import Fused, Fusion, Offers, register_fusion
from kava.fuse.fixed import FixedFusion
from kava.trace import KVTrace


def shares_of_slots(num_slots: int, weights: Sequence[float]) -> tuple[int, ...]:
    """The slots of each teacher, at least one, by largest remainder.

    Raises:
        ValueError: fewer slots than teachers.

    Example:
        >>> shares_of_slots(6, (0.5, 0.5)), shares_of_slots(4, (0.7, 0.2, 0.1))
        ((3, 3), (2, 1, 1))
    """
    if num_slots < len(weights):
        raise ValueError(
            f"{num_slots} slots cannot hold positions of {len(weights)} teachers side by side; "
            f"take a slot or more for each"
        )
    free = num_slots - len(weights)
    exact = [weight * num_slots - 1 for weight in weights]
    exact = [max(share, 0.0) for share in exact]
    scale = free / sum(exact) if sum(exact) else 0.0
    parts = [int(share * scale) for share in exact]
    rests = sorted(range(len(weights)), key=lambda n: (parts[n] - exact[n] * scale, n))
    for n in rests[: free - sum(parts)]:
        parts[n] += 1
    return tuple(1 + part for part in parts)


@register_fusion
@dataclass(frozen=True, kw_only=True)
class UnionFusion(Fusion):
    """Each teacher's kept positions in slots of its own; traces come with as many as they get.

    Args:
        weights: the teachers' shares of the slots; None: equal.
    """

    name = "union"
    weights: tuple[float, ...] | None = None

    def slots(self, num_slots: int, num_teachers: int) -> tuple[int, ...]:
        """The slots of each teacher."""
        return shares_of_slots(num_slots, FixedFusion(weights=self.weights)._weights(num_teachers))

    def weigh(self, offers: Offers) -> Tensor:
        """1 for the teacher whose slot it is."""
        N = offers.num_teachers
        owner_M = torch.cat(
            [torch.full((trace.length,), n) for n, trace in enumerate(offers.traces)]
        ).to(offers.present_BN.device)
        weights = torch.nn.functional.one_hot(owner_M, N).float()
        return weights.expand(len(offers.present_BN), 1, -1, -1)

    def __call__(self, offers: Offers) -> Fused:
        """Lay the traces side by side."""
        return Fused(trace=side_by_side(offers), weights=self.weigh(offers))


def side_by_side(offers: Offers) -> KVTrace:
    """The traces joined along the slots; those of a teacher that is not there are masked."""
    traces = offers.traces
    first = traces[0]
    masks = [trace.valid_BT() & offers.present_BN[:, n, None] for n, trace in enumerate(traces)]

    def join(name: str, dim: int) -> Tensor | None:
        parts = [getattr(trace, name) for trace in traces]
        if any(part is None for part in parts):
            return None
        wide = max(part.ndim for part in parts)
        if wide == 4 and dim == -1:
            B, L, H = first.keys.shape[:3]
            parts = [
                part[:, None, None].expand(B, L, H, -1) if part.ndim == 2 else part
                for part in parts
            ]
        return torch.cat(parts, dim=dim)

    keys, values = join("keys", 3), join("values", 3)
    assert keys is not None
    assert values is not None
    return replace(
        first,
        keys=keys,
        values=values,
        queries=join("queries", 3),
        mask=torch.cat(masks, dim=1),
        segment_ids=join("segment_ids", -1),
        positions=join("positions", -1),
    )
