"""Weights from how well each teacher predicts the gold text.

Shapes: B batch, N teachers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kava.fuse.base import Fusion, Offers, needed, one_hot, register_fusion


def softmax_over(scores_BN: Tensor, present_BN: Tensor, temperature: float) -> Tensor:
    """[B, N]: a softmax over the teachers that are there; 0 where none is."""
    scores_BN = (scores_BN / temperature).masked_fill(~present_BN, float("-inf"))
    return torch.nan_to_num(scores_BN.softmax(-1), nan=0.0)


def check_temperature(temperature: float) -> None:
    """Raise a ValueError for a temperature that is not above 0."""
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature={temperature} must be finite and above 0")


@register_fusion
@dataclass(frozen=True, kw_only=True)
class ConfidenceFusion(Fusion):
    """Softmax of the log-probability of the gold answer under each teacher.

    With the temperature at 1 these are the posterior shares of the teachers, if each were equally
    likely to have written the answer. Adaptive weights of multi-teacher distillation are of this
    kind (CA-MKD, arXiv 2201.00007, weighs by the cross-entropy of the label).

    Args:
        temperature: of the softmax, in nats.
    """

    name = "confidence"
    reads = frozenset({"answer_BN"})
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

    def weigh(self, offers: Offers) -> Tensor:
        """Per sample."""
        scores = needed(offers.answer_BN, "answer_BN", self.name)
        return softmax_over(scores, offers.present_BN, self.temperature)[:, None, None]


@register_fusion
@dataclass(frozen=True, kw_only=True)
class MinCEFusion(Fusion):
    """The one teacher with the lowest cross-entropy on reasoning and answer.

    MinCE of FuseLLM (arXiv 2401.10491), there of distributions over tokens.
    """

    name = "min_ce"
    reads = frozenset({"text_BN"})

    def weigh(self, offers: Offers) -> Tensor:
        """Per sample; the first of equal teachers."""
        ce_BN = needed(offers.text_BN, "text_BN", self.name)
        best_B = ce_BN.masked_fill(~offers.present_BN, float("inf")).argmin(-1)
        return one_hot(best_B, ce_BN.shape[1])


@register_fusion
@dataclass(frozen=True, kw_only=True)
class AverageCEFusion(Fusion):
    """Softmax of the negated cross-entropy on reasoning and answer.

    AvgCE of FuseLLM (arXiv 2401.10491). The paper does not give the form of the weights; a softmax
    is taken here.

    Args:
        temperature: of the softmax, in nats per token.
    """

    name = "avg_ce"
    reads = frozenset({"text_BN"})
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_temperature(self.temperature)

    def weigh(self, offers: Offers) -> Tensor:
        """Per sample."""
        ce_BN = needed(offers.text_BN, "text_BN", self.name)
        return softmax_over(-ce_BN, offers.present_BN, self.temperature)[:, None, None]
