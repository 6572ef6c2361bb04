"""Layer maps from a measured similarity of layers; those of `layer_map` use depths alone.

Shapes: L_t teacher layers, L_s student layers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

CKALayerMap = Callable[[Tensor, int], Tensor]

CKA_LAYER_MAPS: dict[str, CKALayerMap] = {}

DEFAULT_TOP_K = 2


def register_cka_layer_map(name: str) -> Callable[[CKALayerMap], CKALayerMap]:
    """Make a strategy (cka [L_s, L_t], top_k) -> weights [L_s, L_t] known under `name`."""

    def register(strategy: CKALayerMap) -> CKALayerMap:
        CKA_LAYER_MAPS[name] = strategy
        return strategy

    return register


@register_cka_layer_map("top_k")
def top_k_map(cka_ST: Tensor, top_k: int) -> Tensor:
    """Average the k teacher layers that are most alike, weighted by their CKA.

    A layer below 0, which a debiased estimate can be, has no weight. The result follows the
    measurement wherever it leads: it need not be monotone, nor reach the first and last layer.

    Raises:
        ValueError: k out of range, or a student layer without CKA above 0.
    """
    if not 1 <= top_k <= cka_ST.shape[1]:
        raise ValueError(
            f"top_k={top_k} must be from 1 to the number of teacher layers, {cka_ST.shape[1]}"
        )
    best = cka_ST.clamp(min=0).topk(top_k, dim=1)
    totals = best.values.sum(1, keepdim=True)
    unlike = (totals[:, 0] <= 0).nonzero()
    if len(unlike):
        raise ValueError(
            f"student layer {int(unlike[0])} has no CKA above 0 with any teacher layer; measure on "
            f"more samples, or choose a map by depth"
        )
    return torch.zeros_like(cka_ST).scatter(1, best.indices, best.values / totals)


@register_cka_layer_map("monotone")
def monotone_map(cka_ST: Tensor, top_k: int) -> Tensor:
    """Give each student layer one teacher layer, along the monotone path of the highest total CKA.

    Student layers ascend by at least one teacher layer each, or by at most one where the teacher
    has fewer, so that the path is the identity for equal depths and leaves out no layer of the
    shallower model. It begins at the first and ends at the last layer; a single student layer
    reads the last. Found by dynamic programming, O(L_s · L_t); `top_k` is not used.
    """
    S, T = cka_ST.shape
    if S == 1:
        return torch.eye(T, dtype=cka_ST.dtype)[-1:]
    column_T = torch.arange(T)
    total_T = torch.where(column_T == 0, cka_ST[0], -torch.inf)
    came_from = []
    for own_T in cka_ST[1:]:
        previous = torch.cat([total_T.new_full((1,), -torch.inf), total_T[:-1]])
        if T >= S:  # from any earlier layer
            best, where = previous.cummax(0)
            source_T = where - 1
        else:  # from the layer itself or the one before
            best = torch.maximum(total_T, previous)
            source_T = column_T - (previous > total_T).long()
        came_from.append(source_T)
        total_T = best + own_T
    path = [T - 1]
    for source_T in reversed(came_from):
        path.append(int(source_T[path[-1]]))
    return torch.eye(T, dtype=cka_ST.dtype)[path[::-1]]


def cka_layer_map(cka: Tensor, strategy: str = "top_k", top_k: int = DEFAULT_TOP_K) -> Tensor:
    """Weights with which each student layer reads the teacher's layers, from their similarity.

    Args:
        cka: [L_s, L_t], as `StreamingCKA.matrix` gives it.
        strategy: "top_k" (an average of the most similar layers) or "monotone" (one teacher
            layer each, in order, first and last reached).
        top_k: k of top_k, from 1 to L_t.

    Returns:
        [L_s, L_t], float32, rows summing to 1.

    Raises:
        ValueError: an unknown strategy; not a finite matrix; under top_k, k out
            of range, or a student layer without CKA above 0.

    Example:
        >>> cka_layer_map(torch.tensor([[0.6, 0.2, 0.0], [0.1, 0.4, 0.4]]), "top_k")
        tensor([[0.7500, 0.2500, 0.0000],
                [0.0000, 0.5000, 0.5000]])
    """
    if strategy not in CKA_LAYER_MAPS:
        raise ValueError(
            f"strategy={strategy!r} is unknown; choose from {', '.join(CKA_LAYER_MAPS)}"
        )
    if cka.ndim != 2 or not cka.numel() or not cka.isfinite().all():
        raise ValueError(f"cka must be a finite matrix [L_s, L_t], got {list(cka.shape)}")
    return CKA_LAYER_MAPS[strategy](cka.detach().cpu().double(), top_k).float()
