"""Fusion of lists of tensors, by the names that users of the method know.

Shapes: B batch, T positions, D features, K clusters, N teachers, L_s/L_t layers of student and
teacher.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kava.align.layers.layer_map import check_layer_map
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
        prototypes: N tensors [D], [B, D], or [B, K, D] of K clusters, of which the most alike
            counts.
        temperature: of the softmax.
        similarity_method: cosine, dot or l2.

    Returns:
        fused [B, T, D], weights [B, N] or [B, T, N].

    Raises:
        ValueError: shapes or numbers that do not fit, an unknown method, or a temperature that is
            not above 0.
    """
    stacked = _stack(kvs_list)
    _check_query(query, stacked)
    if len(prototypes) != len(kvs_list):
        raise ValueError(f"{len(prototypes)} prototypes do not fit {len(kvs_list)} teachers")
    shaped = [_beside(query, one) for one in prototypes]
    weights = compute_routing_weights(query, shaped, temperature, similarity_method)
    return _weighted(stacked, weights), weights


def fuse_kvs_learnable(
    kvs_list: Sequence[Tensor], query: Tensor, router: LearnableRouter
) -> tuple[Tensor, Tensor]:
    """Fuse by a router's shares.

    Args:
        kvs_list: N tensors [B, T, D].
        query: [B, C], or [B, T, C] for weights of each position, with the features that the
            router reads.
        router: of N teachers.

    Returns:
        fused [B, T, D], weights [B, N] or [B, T, N].

    Raises:
        ValueError: shapes that do not fit, or a router of another number of teachers.
    """
    stacked = _stack(kvs_list)
    _check_query(query, stacked)
    if router.num_teachers != len(kvs_list):
        raise ValueError(
            f"the router shares out {router.num_teachers} teachers, and there are {len(kvs_list)}"
        )
    weights = router(query)
    return _weighted(stacked, weights), weights


def fuse_multi_teacher_kv(
    aligned_kvs: Mapping[str, tuple[Tensor, Tensor]],
    teacher_weights: Mapping[str, float] | None = None,
) -> tuple[Tensor, Tensor]:
    """The weighted mean of the teachers' aligned keys and values, by the teachers' names.

    Args:
        aligned_kvs: keys and values of each teacher, all of one shape.
        teacher_weights: of each, 0 or more, divided by their sum; None: equal.

    Returns:
        keys, values.

    Raises:
        ValueError: as `fuse_kvs_fixed`; a name without a weight, or a weight without a teacher.

    Example:
        >>> zero, one = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
        >>> keys, values = fuse_multi_teacher_kv({"a": (zero, one), "b": (one, one)})
        >>> keys[0, 0, 0].item(), values[0, 0, 0].item()
        (0.5, 1.0)
    """
    weights = None
    if teacher_weights is not None:
        if set(teacher_weights) != set(aligned_kvs):
            raise ValueError(
                f"the weights are of {', '.join(teacher_weights) or 'no teacher'}, and the "
                f"teachers are {', '.join(aligned_kvs)}: give one weight for each"
            )
        weights = [teacher_weights[name] for name in aligned_kvs]
    keys, values = ([pair[part] for pair in aligned_kvs.values()] for part in (0, 1))
    return fuse_kvs_fixed(keys, weights), fuse_kvs_fixed(values, weights)


def merge_multi_teacher_kvs(
    teacher_kvs_list: Sequence[Sequence[Tensor]],
    layer_maps: Sequence[Tensor],
    num_student_layers: int | None = None,
    fusion_weights: Sequence[float] | None = None,
) -> list[Tensor]:
    """The teachers' layers mapped to the student's, and their weighted mean.

    Args:
        teacher_kvs_list: of each teacher its L_t layers' keys, or values, [B, T, D] or any other
            shape that all share.
        layer_maps: of each teacher [L_s, L_t], as `build_multi_teacher_layer_map` gives them.
        num_student_layers: L_s; None: that of the first map.
        fusion_weights: one for each teacher, 0 or more, divided by their sum; None: equal.

    Returns:
        L_s tensors.

    Raises:
        ValueError: as `fuse_kvs_fixed`; another number of maps than of teachers, or a map of other
            layers.

    Example:
        >>> maps = [torch.eye(2), torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])]
        >>> layers = [torch.full((1, 1, 1), float(n)) for n in range(3)]
        >>> [one.item() for one in merge_multi_teacher_kvs([layers[:2], layers], maps)]
        [0.0, 1.5]
    """
    if len(layer_maps) != len(teacher_kvs_list):
        raise ValueError(
            f"{len(layer_maps)} layer maps do not fit {len(teacher_kvs_list)} teachers"
        )
    if num_student_layers is None and layer_maps:
        num_student_layers = len(layer_maps[0])
    merged = []
    for n, (layers, weights_ST) in enumerate(zip(teacher_kvs_list, layer_maps)):
        stacked = _stack(layers, "layers")
        weights_ST = check_layer_map(
            weights_ST, len(layers), num_student_layers or 0, f"the layer map of teacher {n}"
        ).to(stacked)
        merged.append(torch.einsum("st,t...->s...", weights_ST, stacked))
    return list(fuse_kvs_fixed(merged, fusion_weights))


def _stack(tensors: Sequence[Tensor], of: str = "teachers") -> Tensor:
    if not len(tensors):
        raise ValueError(f"there are no {of}: give the keys or values of at least one")
    shapes = {tuple(one.shape) for one in tensors}
    if len(shapes) > 1:
        shown = ", ".join(str(list(shape)) for shape in sorted(shapes))
        raise ValueError(f"{of} of shapes {shown} cannot be fused: align them to the student first")
    return torch.stack(list(tensors))


def _check_query(query: Tensor, stacked: Tensor) -> None:
    """Whether a query [B, C] or [B, T, C] belongs to stacked [N, B, T, D]."""
    if stacked.ndim != 4:
        raise ValueError(f"the teachers' tensors must be [B, T, D], got {list(stacked.shape[1:])}")
    if query.ndim not in (2, 3) or query.shape[:-1] != stacked.shape[1 : query.ndim]:
        B, T = stacked.shape[1:3]
        raise ValueError(f"query must be [{B}, D] or [{B}, {T}, D], got {list(query.shape)}")


def _beside(query: Tensor, prototype: Tensor) -> Tensor:
    """A prototype [D], [B, D] or [B, K, D] with the axes of the query [B, D] or [B, T, D]."""
    B, D = query.shape[0], query.shape[-1]
    leads = {1: (), 2: (B,), 3: (B, prototype.shape[-2] if prototype.ndim == 3 else 0)}
    if prototype.ndim not in leads or prototype.shape != (*leads[prototype.ndim], D):
        raise ValueError(
            f"a prototype must be [{D}], [{B}, {D}] or [{B}, K, {D}] for this query, got "
            f"{list(prototype.shape)}"
        )
    return prototype[:, None] if query.ndim == 3 and prototype.ndim > 1 else prototype


def _weighted(stacked: Tensor, weights: Tensor) -> Tensor:
    """The mean of stacked [N, B, T, D] by weights [B, N] or [B, T, N]."""
    spelled = "nbtd,bn->btd" if weights.ndim == 2 else "nbtd,btn->btd"
    return torch.einsum(spelled, stacked, weights.to(stacked.dtype))
