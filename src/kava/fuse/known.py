"""Fusion of lists of tensors, by the names that users of the method know.

Shapes: B batch, T positions, D features, N teachers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kava.fuse.prototypes import compute_routing_weights
from kava.fuse.router import LearnableRouter


def fuse_kvs_fixed(kvs_list: Sequence[Tensor], weights: Sequence[float] | None = None) -> Tensor:
    """The weighted mean of the teachers' tensors.

    Args:
        kvs_list: N tensors of one shape, [B, T, D] or any other.
        weights: one for each, 0 or more, divided by their sum; None: equal.

    Raises:
        ValueError: no tensors, shapes that differ, another number of weights, a weight below 0 or
            a sum of 0.

    Example:
        >>> fuse_kvs_fixed([torch.zeros(1, 2, 3), torch.ones(1, 2, 3)], [1, 3])[0, 0, 0].item()
        0.75
    """
    stacked = _stack(kvs_list)
    if weights is None:
        weights = [1.0] * len(kvs_list)
    if len(weights) != len(kvs_list):
        raise ValueError(f"{len(weights)} weights do not fit {len(kvs_list)} teachers")
    total = sum(weights)
    if min(weights) < 0 or not 0 < total < float("inf"):
        raise ValueError(f"weights {list(weights)} must be 0 or more, and not all 0")
    shares = torch.tensor([w / total for w in weights], dtype=stacked.dtype, device=stacked.device)
    return torch.einsum("n...,n->...", stacked, shares)


def fuse_kvs_similarity(
    kvs_list: Sequence[Tensor],
    query: Tensor,
    prototypes: Sequence[Tensor],
    temperature: float = 1.0,
    similarity_method: str = "cosine",
) -> tuple[Tensor, Tensor]:
    """Fuse by how alike the query is to each teacher's prototype.

    Args:
        kvs_list: N tensors [B, T, D].
        query: [B, D], or [B, T, D] for weights of each position.
        prototypes: N tensors [D] or [B, D], or [K, D] clusters.
        temperature: of the softmax.
        similarity_method: cosine, dot or l2.

    Returns:
        fused [B, T, D], weights [B, N] or [B, T, N].
    """
    stacked = _stack(kvs_list)
    shaped = [_beside(query, one) for one in prototypes]
    if len(shaped) != len(kvs_list):
        raise ValueError(f"{len(shaped)} prototypes do not fit {len(kvs_list)} teachers")
    weights = compute_routing_weights(query, shaped, temperature, similarity_method)
    return _weighted(stacked, weights), weights


def fuse_kvs_learnable(
    kvs_list: Sequence[Tensor], query: Tensor, router: LearnableRouter
) -> tuple[Tensor, Tensor]:
    """Fuse by a router's shares.

    Args:
        kvs_list: N tensors [B, T, D].
        query: [B, D], or [B, T, D] for weights of each position.
        router: of N teachers.

    Returns:
        fused [B, T, D], weights [B, N] or [B, T, N].
    """
    weights = router(query)
    return _weighted(_stack(kvs_list), weights), weights


def merge_multi_teacher_kvs(
    kvs: Mapping[str, tuple[Tensor, Tensor]] | Sequence[tuple[Tensor, Tensor]],
    fusion_weights: Mapping[str, float] | Sequence[float] | None = None,
) -> tuple[Tensor, Tensor]:
    """The weighted mean of the teachers' aligned keys and values.

    Args:
        kvs: (keys, values) of each teacher, aligned to one shape; by name or in a list.
        fusion_weights: in the same form; divided by their sum; None: equal.

    Returns:
        keys, values.

    Raises:
        ValueError: as `fuse_kvs_fixed`; a name without a weight, or a weight without a teacher.
    """
    if isinstance(kvs, Mapping):
        if fusion_weights is not None:
            if not isinstance(fusion_weights, Mapping) or set(fusion_weights) != set(kvs):
                raise ValueError(
                    f"fusion_weights must name the teachers {', '.join(kvs)}, got {fusion_weights}"
                )
            fusion_weights = [fusion_weights[name] for name in kvs]
        kvs = list(kvs.values())
    elif isinstance(fusion_weights, Mapping):
        raise ValueError("fusion_weights by name need teachers by name")
    keys, values = ([pair[part] for pair in kvs] for part in (0, 1))
    return fuse_kvs_fixed(keys, fusion_weights), fuse_kvs_fixed(values, fusion_weights)


def _stack(kvs_list: Sequence[Tensor]) -> Tensor:
    if not kvs_list:
        raise ValueError("there are no teachers: give the keys or values of at least one")
    shapes = {tuple(one.shape) for one in kvs_list}
    if len(shapes) > 1:
        raise ValueError(
            f"teachers of shapes {sorted(shapes)} cannot be fused: align them to the student first"
        )
    return torch.stack(list(kvs_list))


def _beside(query: Tensor, prototype: Tensor) -> Tensor:
    """A prototype with the axes of the query: [B, D] beside [B, T, D]."""
    if query.ndim == 3 and prototype.ndim == 2 and len(prototype) == len(query):
        return prototype[:, None]
    return prototype


def _weighted(stacked: Tensor, weights: Tensor) -> Tensor:
    """stacked [N, B, T, D], weights [B, N] or [B, T, N]."""
    spelled = "nbtd,bn->btd" if weights.ndim == 2 else "nbtd,btn->btd"
    return torch.einsum(spelled, stacked, weights.to(stacked.dtype))
