"""Element-wise losses between the student's and the target's keys and values.

This is the loss of KaVa (arXiv 2510.02312), L_KV = (‖sg K̃ₜ − Kₛ‖ₚᵖ + ‖sg Ṽₜ − Vₛ‖ₚᵖ) / 2M.

Shapes: B batch, L layers, H key/value heads, M latent slots, D head dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

from kava.losses.base import register_kv_loss
from kava.losses.positions import (
    MIN_STD,
    NumItems,
    check_pair,
    common_mask,
    expand_mask,
    mean_cosine,
    mean_over_items,
    zero_padding,
)
from kava.losses.weights import LayerWeights, check_weights, mean_over_layers, weigh_positions
from kava.trace import KVTrace

Norm = Literal["smooth_l1", "mse", "l1"]
NORMS: tuple[Norm, ...] = ("smooth_l1", "mse", "l1")


@dataclass(frozen=True, kw_only=True)
class KVLoss:
    """The distance between keys and between values, averaged over everything but positions.

    With e the element loss and d = (student − target) / σ, the loss is

        1/num_items · Σ_valid (b, m) ½ · [w_K · mean_{l,h,d} e(d_K) + w_V · mean_{l,h,d} e(d_V)]

    where e(x) is x² ("mse"), |x| ("l1"), or x²/2β for |x| < β and |x| − β/2 beyond
    ("smooth_l1"), and σ is 1, or with `layer_std` the standard deviation of the target.

    Deviations from the paper. It sums over layers, heads and dims and divides by 2M; here these
    are averaged, so that one weight of the loss means the same for models of any size. σ is
    taken per sample and layer, of keys and values apart, over the heads, valid positions and
    dims: taken over the batch it would make the gradient depend on how the batch is split.

    Args:
        norm: the element loss, "smooth_l1", "mse" or "l1".
        beta: where smooth-L1 turns from quadratic to linear, in units of the keys and values,
            or of their standard deviation with `layer_std`.
        layer_std: divide both sides by the target's standard deviation. A layer without
            spread is left as it is.
        layer_weights: one weight per layer, normalised to a weighted mean; None is equal weights.
        key_weight: w_K.
        value_weight: w_V.
        detach_target: send no gradient into the target; off for an aligner that learns beside
            the student, whose own weights are behind the target.

    Raises:
        ValueError: an unknown norm, a beta that is not above 0, or weights below 0 or all 0.

    Example:
        >>> import torch
        >>> student = KVTrace(torch.zeros(1, 2, 2, 3, 4), torch.zeros(1, 2, 2, 3, 4))
        >>> target = KVTrace(torch.ones(1, 2, 2, 3, 4), 3 * torch.ones(1, 2, 2, 3, 4))
        >>> loss, metrics = KVLoss(norm="l1")(student, target)
        >>> loss.item(), metrics["kv_v"].item()
        (2.0, 3.0)
    """

    norm: Norm = "smooth_l1"
    beta: float = 1.0
    layer_std: bool = False
    layer_weights: Sequence[float] | None = None
    key_weight: float = 1.0
    value_weight: float = 1.0
    detach_target: bool = True

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm={self.norm!r} is unknown; choose from {', '.join(NORMS)}")
        if not 0 < self.beta < float("inf"):
            raise ValueError(
                f"beta={self.beta} must be finite and above 0; norm='l1' is the limit at 0"
            )
        check_weights("key_weight and value_weight", (self.key_weight, self.value_weight))
        if self.layer_weights is not None:
            check_weights("layer_weights", self.layer_weights)

    def __call__(
        self,
        student: KVTrace,
        target: KVTrace,
        num_items: NumItems = None,
        position_weights: Tensor | None = None,
        layer_weights: LayerWeights = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare two traces at the positions where both are valid.

        Args:
            student: keys and values [B, L, H, M, D]; they carry the gradient.
            target: the same shapes; detached here, unless `detach_target` is off.
            num_items: the number to divide by, by default the valid positions of this batch.
            position_weights: [B, M], 0 or more, detached; normalised within each sample to a
                mean of 1 over its valid positions, so that equal weights change nothing.
            layer_weights: [L], instead of the loss's own.

        Returns:
            The loss, and `kv_k`, `kv_v` (the two terms before their weights), `kv_cos_k` and
            `kv_cos_v` (mean cosine similarity of keys and of values).

        Raises:
            ValueError: shapes that do not fit each other or the weights.
        """
        check_pair(student, target)
        mask_BM = common_mask(student, target)
        if layer_weights is None:
            layer_weights = self.layer_weights
        terms: list[Tensor] = []
        cosines: list[Tensor] = []
        for ours, theirs in ((student.keys, target.keys), (student.values, target.values)):
            loss_BLM = self._per_position(ours, self._target(theirs), mask_BM)
            loss_BM = mean_over_layers(loss_BLM, layer_weights)
            loss_BM = weigh_positions(loss_BM, position_weights, mask_BM)
            terms.append(mean_over_items(loss_BM, mask_BM, num_items))
            cosines.append(mean_cosine(ours, theirs, mask_BM, num_items))
        keys, values = terms
        metrics = {
            "kv_k": keys.detach(),
            "kv_v": values.detach(),
            "kv_cos_k": cosines[0],
            "kv_cos_v": cosines[1],
        }
        return (self.key_weight * keys + self.value_weight * values) / 2, metrics

    def _target(self, theirs: Tensor) -> Tensor:
        return theirs.detach() if self.detach_target else theirs

    def _per_position(self, student: Tensor, target: Tensor, mask_BM: Tensor | None) -> Tensor:
        difference = student.float() - target.float()
        if mask_BM is not None:
            difference = difference.masked_fill(~expand_mask(mask_BM, difference), 0.0)
        if self.layer_std:
            difference = difference / target_std(target.detach(), mask_BM)[:, :, None, None, None]
        return self._element_loss()(difference).mean(dim=(2, 4))

    def _element_loss(self) -> Callable[[Tensor], Tensor]:
        if self.norm == "mse":
            return torch.square
        if self.norm == "l1":
            return torch.abs
        return lambda x: smooth_l1_loss(
            x, x.new_zeros(()).expand_as(x), reduction="none", beta=self.beta
        )


def target_std(target: Tensor, mask_BM: Tensor | None) -> Tensor:
    """[B, L]: the standard deviation over heads, valid positions and dims of each sample's layer.

    Args:
        target: [B, L, H, M, D] keys or values.
        mask_BM: [B, M] bool, or None where all positions are valid.

    Returns:
        [B, L], float32, with 1 where the deviation is no more than `MIN_STD`.
    """
    target = zero_padding(target, mask_BM)
    _, _, H, M, D = target.shape
    if mask_BM is None:
        count_B11: Tensor | float = float(H * M * D)
    else:
        count_B11 = (mask_BM.sum(dim=1) * H * D).clamp(min=1)[:, None, None, None, None]
    mean = target.sum(dim=(2, 3, 4), keepdim=True) / count_B11
    squares = zero_padding(target - mean, mask_BM).square().sum(dim=(2, 3, 4), keepdim=True)
    std_BL = (squares / count_B11).sqrt()[:, :, 0, 0, 0]
    return torch.where(std_BL > MIN_STD, std_BL, 1.0)


@register_kv_loss("smooth_l1")
def smooth_l1(
    *,
    beta: float = 1.0,
    layer_std: bool = False,
    layer_weights: Sequence[float] | None = None,
    key_weight: float = 1.0,
    value_weight: float = 1.0,
    detach_target: bool = True,
) -> KVLoss:
    """`KVLoss` with smooth-L1, the paper's choice for Llama-3.2 on equation-only reasoning."""
    return KVLoss(
        norm="smooth_l1",
        beta=beta,
        layer_std=layer_std,
        layer_weights=layer_weights,
        key_weight=key_weight,
        value_weight=value_weight,
        detach_target=detach_target,
    )


@register_kv_loss("mse")
def mse(
    *,
    layer_std: bool = False,
    layer_weights: Sequence[float] | None = None,
    key_weight: float = 1.0,
    value_weight: float = 1.0,
    detach_target: bool = True,
) -> KVLoss:
    """`KVLoss` with the squared error, the paper's choice for Qwen2.5."""
    return KVLoss(
        norm="mse",
        layer_std=layer_std,
        layer_weights=layer_weights,
        key_weight=key_weight,
        value_weight=value_weight,
        detach_target=detach_target,
    )


@register_kv_loss("l1")
def l1(
    *,
    layer_std: bool = False,
    layer_weights: Sequence[float] | None = None,
    key_weight: float = 1.0,
    value_weight: float = 1.0,
    detach_target: bool = True,
) -> KVLoss:
    """`KVLoss` with the absolute error."""
    return KVLoss(
        norm="l1",
        layer_std=layer_std,
        layer_weights=layer_weights,
        key_weight=key_weight,
        value_weight=value_weight,
        detach_target=detach_target,
    )


@register_kv_loss("smooth_l1_alpha")
def smooth_l1_alpha(
    *,
    alpha_k: float = 1.0,
    alpha_v: float = 1.0,
    beta: float = 1.0,
    layer_std: bool = False,
    layer_weights: Sequence[float] | None = None,
    detach_target: bool = True,
) -> KVLoss:
    """Smooth-L1 as (alpha_k · K + alpha_v · V) / 2, so that weights of 1 give `smooth_l1`.

    Deviation: in earlier public code one alpha scales both terms; that is alpha_k = alpha_v here.
    """
    return KVLoss(
        norm="smooth_l1",
        beta=beta,
        layer_std=layer_std,
        layer_weights=layer_weights,
        key_weight=alpha_k,
        value_weight=alpha_v,
        detach_target=detach_target,
    )
