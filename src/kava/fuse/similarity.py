"""Weights from how alike the student's cache is to each teacher's.

Shapes: B batch, L layers, H key/value heads, M slots, D head dim, N teachers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kava.fuse.answers import check_temperature
from kava.fuse.base import Fusion, Offers, needed, register_fusion
from kava.fuse.prototypes import compute_similarity
from kava.fuse.prototypes import compute_teacher_prototype as prototype_of
from kava.names import PROTOTYPES, SIMILARITIES
from kava.trace import KVTrace


@register_fusion
@dataclass(frozen=True, kw_only=True)
class SimilarityFusion(Fusion):
    """Softmax over teachers of the likeness between the student's cache and theirs.

    A cache is summed up by a prototype over its slots, of keys and values side by side. Learning
    from a teacher that is close to the student is the idea (arXiv 2601.13992); nothing in it knows
    which teacher is right.

    Args:
        prototype: mean, cls, max or kmeans over the teacher's slots; the student's is the mean.
        similarity: cosine, dot or l2.
        temperature: of the softmax.
        per_layer: weights of each layer, not of the sample.
    """

    name = "similarity"
    reads = frozenset({"student"})
    prototype: str = "mean"
    similarity: str = "cosine"
    temperature: float = 1.0
    per_layer: bool = False

    def __post_init__(self) -> None:
        check_temperature(self.temperature)
        for value, known in ((self.prototype, PROTOTYPES), (self.similarity, SIMILARITIES)):
            if value not in known:
                raise ValueError(f"{value!r} is unknown; choose from {', '.join(known)}")

    @torch.no_grad()  # maps that are trained beside the student do not learn to be liked
    def weigh(self, offers: Offers) -> Tensor:
        """[B, L or 1, 1, N]."""
        student = needed(offers.student, "student", self.name)
        query_LBC = prototype_of(_positions(student), "mean", student.valid_BT())
        alike = torch.stack(
            [
                compute_similarity(
                    query_LBC,
                    prototype_of(_positions(trace), self.prototype, trace.valid_BT()),
                    self.similarity,
                )
                for trace in offers.traces
            ],
            dim=-1,
        )
        alike_BLN = alike.transpose(0, 1)
        if not self.per_layer:
            alike_BLN = alike_BLN.mean(1, keepdim=True)
        alike_BLN = alike_BLN.masked_fill(~offers.present_BN[:, None], float("-inf"))
        return torch.nan_to_num((alike_BLN / self.temperature).softmax(-1), nan=0.0)[:, :, None]


def _positions(trace: KVTrace) -> Tensor:
    """[L, B, M, 2·H·D]: keys and values of all heads at each slot."""
    parts = torch.cat([trace.keys, trace.values], dim=-1)
    return parts.permute(1, 0, 3, 2, 4).flatten(3)
