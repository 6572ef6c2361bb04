"""The mean of the teachers, where they agree.

Shapes: B batch, L layers, M slots, N teachers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kava.fuse.base import Fused, Fusion, Offers, mix, register_fusion
from kava.fuse.conflict import agreement
from kava.fuse.fixed import FixedFusion
from kava.names import DISAGREEMENTS


@register_fusion
@dataclass(frozen=True, kw_only=True)
class DisagreementFusion(Fusion):
    """Given weights; slots where the teachers pull apart are dropped, or count less.

    Args:
        weights: as in `FixedFusion`.
        disagreement: "drop" leaves out the slots whose mean cosine over layers is below
            `threshold`; "weigh" gives a slot the weight (1 + cosine) / 2.
        threshold: of "drop".
    """

    name = "disagreement"
    reads = frozenset({"student"})
    weights: tuple[float, ...] | None = None
    disagreement: str = "drop"
    threshold: float = 0.0

    def __post_init__(self) -> None:
        if self.disagreement not in DISAGREEMENTS:
            raise ValueError(
                f"disagreement={self.disagreement!r} is unknown; choose from "
                f"{', '.join(DISAGREEMENTS)}"
            )

    def weigh(self, offers: Offers) -> Tensor:
        """As `FixedFusion`."""
        return FixedFusion(weights=self.weights).weigh(offers)

    def __call__(self, offers: Offers) -> Fused:
        """Fuse, and judge the slots; a slot that one teacher alone fills is kept whole."""
        weights = self.weigh(offers)
        trace = mix(offers, weights)
        cosine_BLM, several_BM = agreement(offers)
        cosine_BM = cosine_BLM.mean(1)
        if self.disagreement == "drop":
            kept = (cosine_BM >= self.threshold) | ~several_BM
            return Fused(trace=replace(trace, mask=trace.valid_BT() & kept), weights=weights)
        counts = torch.where(several_BM, (1 + cosine_BM) / 2, 1.0)
        return Fused(trace=trace, weights=weights, position_weights=counts)
