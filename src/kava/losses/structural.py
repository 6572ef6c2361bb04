"""Structural loss: match the directions of keys and values, and the attention of the queries.

Queries are not compared directly, only the attention weights that they produce, so the student may
use any rotation of queries and keys that leaves these unchanged.

Shapes: B batch, L layers, H key/value heads, Hq query heads, T positions, D head dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from kava.attention import AttentionForm
from kava.losses.attention_kl import AttentionSide, attention_kl
from kava.losses.base import KVLossFunction, register_kv_loss
from kava.losses.positions import (
    NumItems,
    check_pair,
    check_same_shape,
    common_mask,
    cosine_distance,
    mean_over_items,
    zero_padding,
)
from kava.losses.weights import LayerWeights, check_weights, mean_over_layers, weigh_positions
from kava.trace import KVTrace


class _Side(NamedTuple):
    """Keys, values, queries and attention form of the student or of its target."""

    keys: Tensor
    values: Tensor
    queries: Tensor | None
    form: AttentionForm | None = None
    positions: Tensor | None = None

    @classmethod
    def of(cls, trace: KVTrace) -> _Side:
        return cls(trace.keys, trace.values, trace.queries, trace.attention, trace.positions)

    def detach(self) -> _Side:
        return self._replace(
            keys=self.keys.detach(),
            values=self.values.detach(),
            queries=None if self.queries is None else self.queries.detach(),
            form=None if self.form is None else self.form.detach(),
        )


@dataclass(frozen=True)
class StructuralKVLoss:
    """alpha_k · (1 − cos K) + alpha_v · (1 − cos V) + alpha_attn · KL(teacher ‖ student).

    The divergence is between the two causal attention distributions, over the valid keys of every
    valid query row. Each side's is computed as its model does (`KVTrace.attention`: scaling, soft
    cap, window, sinks), and as softmax(Q Kᵀ / √D) where no trace says how. Cosines are averaged
    over layers and heads, the divergence over layers and query heads, both over valid positions,
    so the scale does not grow with T, L or H.

    This loss comes from earlier public code of the project. Deviations: there the attention is
    not causal, whole query rows are blanked instead of padded keys (NaN with padding), and the
    divergence is summed over layers, heads and rows. A term whose weight is 0 leaves no graph.

    The keys and queries of each side must share one rotation; a trace records it in `rotated`.
    Above 128 positions the attention is computed in chunks of rows, again in the backward pass,
    so that memory grows linearly in T.

    Args:
        alpha_k: weight of the keys.
        alpha_v: weight of the values.
        alpha_attn: weight of the attention; at 0 no queries are needed.
        detach_target: send no gradient into the target; off for an aligner that learns beside
            the student, whose own weights are behind the target.

    Raises:
        ValueError: a weight below 0, or all 0.

    Example:
        >>> x = torch.randn(1, 2, 2, 5, 4)
        >>> loss, metrics = StructuralKVLoss()(x, x, x, x, x, x)
        >>> abs(round(loss.item(), 5)), sorted(metrics)
        (0.0, ['attn_loss', 'k_cos_sim', 'k_loss', 'v_cos_sim', 'v_loss'])
    """

    alpha_k: float = 1.0
    alpha_v: float = 1.0
    alpha_attn: float = 0.5
    detach_target: bool = True

    def __post_init__(self) -> None:
        alphas = (self.alpha_k, self.alpha_v, self.alpha_attn)
        check_weights("alpha_k, alpha_v and alpha_attn", alphas)

    def __call__(
        self,
        s_k: Tensor,
        s_v: Tensor,
        s_q: Tensor | None,
        t_k: Tensor,
        t_v: Tensor,
        t_q: Tensor | None,
        attention_mask: Tensor | None = None,
        *,
        attention: AttentionForm | None = None,
        num_items: NumItems = None,
        position_weights: Tensor | None = None,
        layer_weights: LayerWeights = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare the student's keys, values and queries with the aligned teacher's.

        Args:
            s_k: student keys [B, L, H, T, D].
            s_v: student values [B, L, H, T, D].
            s_q: student queries [B, L, Hq, T, D], Hq a multiple of H; None with alpha_attn 0.
            t_k: teacher keys, as `s_k`; detached here, as all of the teacher, unless
                `detach_target` is off.
            t_v: teacher values, as `s_v`.
            t_q: teacher queries, as `s_q`.
            attention_mask: [B, T], true at valid positions.
            attention: how both sides' queries and keys become attention weights; None: by 1/√D
                and nothing else.
            num_items: the number to divide by, by default the valid positions of this batch.
            position_weights: [B, T], normalised to a mean of 1 in each sample.
            layer_weights: [L], normalised to a sum of 1.

        Returns:
            The loss, and `k_loss`, `v_loss`, `attn_loss`, `k_cos_sim`, `v_cos_sim`.

        Raises:
            ValueError: shapes that differ between student and teacher, or missing queries.
        """
        return self._compare(
            _Side(s_k, s_v, s_q, attention),
            _Side(t_k, t_v, t_q, attention),
            None if attention_mask is None else attention_mask.bool(),
            num_items,
            position_weights,
            layer_weights,
        )

    def _compare(
        self,
        student: _Side,
        target: _Side,
        mask_BT: Tensor | None,
        num_items: NumItems,
        position_weights: Tensor | None,
        layer_weights: LayerWeights,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        if self.detach_target:
            target = target.detach()
        (s_k, s_v, s_q), (t_k, t_v, t_q) = student[:3], target[:3]
        check_same_shape("keys", s_k, t_k)
        check_same_shape("values", s_v, t_v)

        def mean(values_BLT: Tensor) -> Tensor:
            values_BT = mean_over_layers(values_BLT, layer_weights)
            return mean_over_items(
                weigh_positions(values_BT, position_weights, mask_BT), mask_BT, num_items
            )

        k_distance_BLT = self._distance(self.alpha_k, s_k, t_k, mask_BT)
        v_distance_BLT = self._distance(self.alpha_v, s_v, t_v, mask_BT)
        k_loss, v_loss = mean(k_distance_BLT), mean(v_distance_BLT)
        attn_loss = k_loss.new_zeros(())
        if self.alpha_attn > 0:
            if s_q is None or t_q is None:
                raise ValueError(
                    f"alpha_attn={self.alpha_attn} needs the queries of student and teacher; "
                    f"pass both, or set alpha_attn to 0"
                )
            check_same_shape("queries", s_q, t_q)
            if s_q.shape[2] % s_k.shape[2]:
                raise ValueError(
                    f"{s_q.shape[2]} query heads are no multiple of {s_k.shape[2]} key/value heads"
                )
            ours = AttentionSide(s_q, s_k, student.form, student.positions)
            theirs = AttentionSide(t_q, t_k, target.form, target.positions)
            attn_loss = mean(attention_kl(ours, theirs, mask_BT))
        loss = self.alpha_k * k_loss + self.alpha_v * v_loss + self.alpha_attn * attn_loss
        k_cosine_BT, v_cosine_BT = (
            1.0 - distance.detach().mean(dim=1) for distance in (k_distance_BLT, v_distance_BLT)
        )
        metrics = {
            "k_loss": k_loss.detach(),
            "v_loss": v_loss.detach(),
            "attn_loss": attn_loss.detach(),
            "k_cos_sim": mean_over_items(k_cosine_BT, mask_BT, num_items),
            "v_cos_sim": mean_over_items(v_cosine_BT, mask_BT, num_items),
        }
        return loss, metrics

    def compare_traces(
        self,
        student: KVTrace,
        target: KVTrace,
        num_items: NumItems = None,
        position_weights: Tensor | None = None,
        layer_weights: LayerWeights = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of two traces where both are valid, with the queries that they carry.

        Raises:
            ValueError: traces that do not fit, or that carry no queries while alpha_attn is
                above 0.
        """
        check_pair(student, target)
        for name, trace in (("student", student), ("target", target)):
            if self.alpha_attn > 0 and trace.queries is None:
                raise ValueError(
                    f"alpha_attn={self.alpha_attn} needs queries, and the {name} trace has none; "
                    f"capture it with queries=True, or set alpha_attn to 0"
                )
        loss, parts = self._compare(
            _Side.of(student),
            _Side.of(target),
            common_mask(student, target),
            num_items,
            position_weights,
            layer_weights,
        )
        metrics = {
            "kv_k": parts["k_loss"],
            "kv_v": parts["v_loss"],
            "kv_attn": parts["attn_loss"],
            "kv_cos_k": parts["k_cos_sim"],
            "kv_cos_v": parts["v_cos_sim"],
        }
        return loss, metrics

    @staticmethod
    def _distance(alpha: float, student: Tensor, teacher: Tensor, mask_BT: Tensor | None) -> Tensor:
        """[B, L, T]: the cosine distance, averaged over heads, without a graph at an alpha of 0."""
        with torch.set_grad_enabled(alpha > 0 and torch.is_grad_enabled()):
            student = zero_padding(student, mask_BT)
            teacher = zero_padding(teacher, mask_BT)
            return cosine_distance(student, teacher).mean(dim=2)


@register_kv_loss("structural")
def structural(
    *,
    alpha_k: float = 1.0,
    alpha_v: float = 1.0,
    alpha_attn: float = 0.5,
    detach_target: bool = True,
) -> KVLossFunction:
    """`StructuralKVLoss` over traces."""
    return StructuralKVLoss(alpha_k, alpha_v, alpha_attn, detach_target).compare_traces
