"""CKA loss: student and target vary in the same way over positions, in any basis.

Shapes: B batch, L layers, H key/value heads, M slots, D head dim, N valid positions of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kava.align.layers.cka import MIN_ROWS, MIN_ROWS_DEBIASED, linear_cka
from kava.losses.positions import NumItems, check_pair, common_mask, divide_by_count
from kava.losses.weights import LayerWeights, check_weights, unit_sum_weights
from kava.trace import KVTrace


@dataclass(frozen=True, kw_only=True)
class CKALoss:
    """1 − CKA between the two caches, layer by layer, keys and values apart.

        n/num_items · Σ_l w_l · ½ · [w_K · (1 − CKA(K^s_l, K^t_l)) + w_V · (1 − CKA(V^s_l, V^t_l))]

    where the rows of K_l and V_l are the n valid positions of the batch and their features all
    heads and dims of a layer. Linear CKA (Kornblith et al., arXiv 1905.00414) does not change
    when either side is rotated, scaled or shifted by a constant: it asks the student to
    distinguish the same positions, not to use the target's basis. It is meant to be added to a KV
    loss; alone it helps little, since the student's own heads read one particular basis.

    **A statistic of a batch.** Unlike a KV loss it looks beyond its own sample, so that the loss
    and its gradient depend on which samples share a forward pass. For an accumulated batch it
    is the mean over the micro-batches, each weighted by its share of the valid positions.

    Args:
        key_weight: w_K.
        value_weight: w_V.
        debiased: estimate CKA without bias; the plain one is high with few positions and many
            features, whatever they hold, but lies between 0 and 1 and has the smoother gradient.
        detach_target: send no gradient into the target.

    Raises:
        ValueError: weights below 0 or all 0.

    Example:
        >>> keys, turn = torch.randn(4, 2, 2, 3, 8), torch.linalg.qr(torch.randn(8, 8)).Q
        >>> loss, metrics = CKALoss()(KVTrace(3 * keys @ turn, keys), KVTrace(keys, keys))
        >>> abs(round(loss.item(), 5)), round(metrics["cka_k"].item(), 5)
        (0.0, 1.0)
    """

    key_weight: float = 1.0
    value_weight: float = 1.0
    debiased: bool = False
    detach_target: bool = True

    def __post_init__(self) -> None:
        check_weights("key_weight and value_weight", (self.key_weight, self.value_weight))

    def __call__(
        self,
        student: KVTrace,
        target: KVTrace,
        num_items: NumItems = None,
        layer_weights: LayerWeights = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare two traces at the positions where both are valid.

        Args:
            student: keys and values [B, L, H, M, D]; they carry the gradient.
            target: the same shapes; detached here, unless `detach_target` is off.
            num_items: the valid positions of the whole accumulated batch, by default of this one.
            layer_weights: [L], normalised to a sum of 1.

        Returns:
            The loss, and `cka_k` and `cka_v`, the CKA of keys and of values, with the same
            weights. A batch of fewer than two valid positions (four, debiased) has no CKA: its
            loss is 0, and so are its metrics.

        Raises:
            ValueError: traces that do not fit each other, or weights that do not fit their layers.
        """
        check_pair(student, target)
        mask_BM = common_mask(student, target)
        mask_N = None if mask_BM is None else mask_BM.flatten()
        B, L, _, M, _ = student.keys.shape
        num_rows = B * M if mask_N is None else int(mask_N.sum())
        weights_L = unit_sum_weights(layer_weights, L).to(student.keys.device)
        if num_rows < (MIN_ROWS_DEBIASED if self.debiased else MIN_ROWS):
            nothing = student.keys.new_zeros((), dtype=torch.float32)
            return nothing, {"cka_k": nothing, "cka_v": nothing}
        share = divide_by_count(
            weights_L.new_tensor(num_rows), num_rows if num_items is None else num_items
        )

        def cka(ours: Tensor, theirs: Tensor) -> Tensor:
            theirs = theirs.detach() if self.detach_target else theirs
            with torch.autocast(ours.device.type, enabled=False):
                cka_L = linear_cka(rows(ours), rows(theirs), self.debiased, mask=mask_N)
            return (cka_L * weights_L).sum() * share

        keys, values = cka(student.keys, target.keys), cka(student.values, target.values)
        loss = self.key_weight * (share - keys) + self.value_weight * (share - values)
        return loss / 2, {"cka_k": keys.detach(), "cka_v": values.detach()}


def rows(part_BLHMD: Tensor) -> Tensor:
    """[L, B·M, H·D] in float32: a row is one position of one sample."""
    return part_BLHMD.permute(1, 0, 3, 2, 4).flatten(3, 4).flatten(1, 2).float()
