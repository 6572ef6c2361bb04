"""Prototypes of caches, and how alike a query is to them.

Shapes: B batch, L layers, T positions, D features, K clusters, N teachers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from kava.names import PROTOTYPES, SIMILARITIES

KNOWN_SIMILARITIES = {"euclidean": "l2"}
ROUNDS = 10
"""Rounds of Lloyd's algorithm."""


def compute_teacher_prototype(
    kvs: Tensor,
    method: str = "mean",
    attention_mask: Tensor | None = None,
    num_clusters: int = 8,
) -> Tensor:
    """One vector, or several, that stand for the positions of each sample.

    Args:
        kvs: [B, T, D] or [L, B, T, D].
        method: "mean" or "max" over positions, "cls" the first valid position, "kmeans" the centres
            of clusters of positions (Lloyd's algorithm, starting from evenly spaced positions, so
            that it needs no seed).
        attention_mask: [B, T], 1 at valid positions; None: all are valid.
        num_clusters: K of kmeans; no more than the sample's positions count.

    Returns:
        [B, D] or [L, B, D]; of kmeans [B, K, D] or [L, B, K, D]. A sample without a valid position
        has zeros.

    Raises:
        ValueError: another shape, an unknown method, fewer than 1 cluster, or a mask of another
            shape.

    Example:
        >>> compute_teacher_prototype(torch.ones(2, 5, 4)).shape
        torch.Size([2, 4])
    """
    if kvs.ndim not in (3, 4):
        raise ValueError(f"kvs must be [B, T, D] or [L, B, T, D], got {list(kvs.shape)}")
    if method not in PROTOTYPES:
        raise ValueError(f"method={method!r} is unknown; choose from {', '.join(PROTOTYPES)}")
    if num_clusters < 1:
        raise ValueError(f"num_clusters={num_clusters} must be at least 1")
    B, T = kvs.shape[-3], kvs.shape[-2]
    valid_BT = kvs.new_ones(B, T) if attention_mask is None else attention_mask.to(kvs.dtype)
    if valid_BT.shape != (B, T):
        raise ValueError(f"attention_mask must be [{B}, {T}], got {list(valid_BT.shape)}")
    valid = valid_BT[..., None].expand((*kvs.shape[:-1], 1)).bool()
    inside = kvs.masked_fill(~valid, 0.0)
    if method == "mean":
        return inside.sum(-2) / valid.sum(-2).clamp(min=1)
    if method == "max":
        lowest = kvs.masked_fill(~valid, float("-inf")).amax(-2)
        return torch.where(valid.any(-2), lowest, 0.0)
    if method == "cls":
        first_B = valid_BT.bool().int().argmax(-1)
        index = first_B[:, None, None].expand(B, 1, kvs.shape[-1])
        taken = inside.gather(-2, index.expand((*kvs.shape[:-2], 1, kvs.shape[-1])))
        return taken.squeeze(-2)
    return _kmeans(inside, valid, min(num_clusters, T))


def _kmeans(x: Tensor, valid: Tensor, num_clusters: int) -> Tensor:
    """Centres [.., K, D] of the valid rows of x [.., T, D]; valid [.., T, 1]."""
    count = valid.sum(-2, keepdim=True).clamp(min=1)  # [.., 1, 1]
    steps = torch.arange(num_clusters, device=x.device)[:, None]
    nth = (steps * (count - 1)).div(max(num_clusters - 1, 1), rounding_mode="floor")
    order = torch.argsort((~valid).int(), dim=-2, stable=True)
    centres = x.gather(-2, order.gather(-2, nth).expand(*nth.shape[:-1], x.shape[-1]))
    for _ in range(ROUNDS):
        nearest = torch.cdist(x, centres).argmin(-1)
        member = torch.nn.functional.one_hot(nearest, num_clusters).to(x.dtype) * valid
        sizes = member.sum(-2)[..., None]
        moved = member.mT @ x / sizes.clamp(min=1)
        centres = torch.where(sizes > 0, moved, centres)
    return centres


def compute_multi_teacher_prototypes(
    kvs_list: Sequence[Tensor],
    method: str = "mean",
    attention_masks: Sequence[Tensor | None] | None = None,
) -> list[Tensor]:
    """`compute_teacher_prototype` of every teacher.

    Raises:
        ValueError: as that; another number of masks than of teachers.
    """
    masks = [None] * len(kvs_list) if attention_masks is None else attention_masks
    if len(masks) != len(kvs_list):
        raise ValueError(f"{len(masks)} attention_masks do not fit {len(kvs_list)} teachers")
    return [compute_teacher_prototype(kvs, method, mask) for kvs, mask in zip(kvs_list, masks)]


def compute_similarity(query: Tensor, prototype: Tensor, method: str = "cosine") -> Tensor:
    """How alike a query is to a prototype; larger is more alike.

    Args:
        query: [.., D].
        prototype: [.., D], broadcast against the query, or [.., K, D] with one more axis: the most
            alike of K clusters counts.
        method: "cosine", "dot" (divided by √D), or "l2" (the negated root mean square distance).

    Returns:
        [..].

    Raises:
        ValueError: an unknown method, or features that differ.
    """
    method = KNOWN_SIMILARITIES.get(method, method)
    if method not in SIMILARITIES:
        raise ValueError(f"method={method!r} is unknown; choose from {', '.join(SIMILARITIES)}")
    if query.shape[-1] != prototype.shape[-1]:
        raise ValueError(
            f"a query of {query.shape[-1]} features cannot be compared with a prototype of "
            f"{prototype.shape[-1]}: align the teacher's cache to the student first"
        )
    clustered = prototype.ndim > query.ndim
    if clustered:
        query = query[..., None, :]
    if method == "cosine":
        alike = cosine_similarity(query, prototype, dim=-1)
    elif method == "dot":
        alike = (query * prototype).sum(-1) / query.shape[-1] ** 0.5
    else:
        alike = -(query - prototype).square().mean(-1).sqrt()
    return alike.amax(-1) if clustered else alike


def compute_routing_weights(
    query: Tensor,
    prototypes: Sequence[Tensor],
    temperature: float = 1.0,
    method: str = "cosine",
) -> Tensor:
    """Softmax over teachers of how alike the query is to the prototype of each.

    Args:
        query: [.., D].
        prototypes: one for each teacher, as `compute_similarity` takes them.
        temperature: of the softmax.
        method: as in `compute_similarity`.

    Returns:
        [.., N].

    Raises:
        ValueError: no prototypes; a temperature that is not above 0.
    """
    if not prototypes:
        raise ValueError("there are no prototypes: give one for each teacher")
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature={temperature} must be finite and above 0")
    alike = torch.stack([compute_similarity(query, one, method) for one in prototypes], dim=-1)
    return (alike / temperature).softmax(-1)
