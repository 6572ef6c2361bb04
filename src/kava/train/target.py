"""From a batch and its teacher's trace to the target that the student's cache is matched with.

    teacher's trace ─► student's tokens ─► compress ─► un-rotate ─► align ─► target at its slots

Where segments are resampled, un-rotating comes before, since a warp may read between positions.

The teacher never gets a gradient; a jointly trained aligner does.

Shapes: B batch, L layers, H key/value heads, T columns, M slots, D head dim.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from kava.align import MapProjectionAligner, align_trace
from kava.data.collate import Batch
from kava.eviction import EVICTIONS, build_eviction
from kava.losses.guard import sample_before, wrong_sample
from kava.rope import Rotary
from kava.store.teacher import Kept
from kava.trace import KVTrace
from kava.train.config import TrainConfig
from kava.train.kept import Keeper, eviction_options
from kava.train.matching import compares_queries
from kava.train.wrong_sample import wrong_weights


@dataclass(frozen=True)
class Target:
    """What the student's trace is compared with.

    Attributes:
        trace: [B, L_s, H, M, D], with a mask over the slots in use; H and D are the student's,
            or the teacher's where caches are compared in its geometry.
        columns: [B, M] or [B, L, H, M]: the columns that were kept, of the student's text, or
            of the teacher's where they have no common tokens.
        weights: [B, M], how much the teacher's answer looks at each slot, where that is asked
            for.
        points: [B, M, Z], the points of several teachers in the shared space, if there is one.
    """

    trace: KVTrace
    columns: Tensor
    weights: Tensor | None = None
    points: Tensor | None = None


class TargetBuilder:
    """Compress, un-rotate and align a teacher's trace, as a configuration says.

    Args:
        config: the run's configuration.
        aligner: maps the teacher's geometry to the student's.
        rotary: the teacher's rotary embedding; None where its positions are learned.
        target_len: slots of the target; None: the run's, of which several teachers may have a part.

    Raises:
        ValueError: options that the eviction does not have.
    """

    def __init__(
        self,
        config: TrainConfig,
        aligner: MapProjectionAligner,
        rotary: Rotary | None,
        target_len: int | None = None,
    ):
        self.config = config
        self.aligner = aligner
        self.keeper = Keeper(config, rotary, target_len)
        self.target_len = self.keeper.target_len

    def __call__(
        self, trace: KVTrace | Kept, batch: Batch, before: KVTrace | Kept | None = None
    ) -> Target:
        """The target, in float32, of a batch whose teacher left `trace` behind.

        Args:
            trace: over the teacher's text, or what was kept of it before.
            batch: as the collator makes it.
            before: over the text of the batch's `before`, where the target is the wrong sample's.
        """
        kept, columns, weights, _ = self._kept(trace, batch)
        if self.config.wrong_sample:
            other, looks = None, weights
            if before is not None:
                other, _, looks, _ = self._kept(before, batch["before"])
            # a latent is there whatever its sample's reasoning; a text has its own positions
            latent = self.config.student == "latent"
            kept = (sample_before if latent else wrong_sample)(kept, other)
            if weights is not None and looks is not None:
                weights = wrong_weights(weights, looks)
        slots = self.target_len
        warped = self._is_warped(kept)
        if warped and weights is not None:
            raise ValueError(
                f"--attention_weighted_kv weighs kept positions, but --kv_method "
                f"{self.config.kv_method} keeps {kept.length}, which are warped to {slots} "
                f"latents: choose a method that keeps --target_len positions"
            )
        length = slots if warped else None
        context = torch.enable_grad if self.config.trains_aligner else torch.no_grad
        with context():
            return Target(align_trace(self.aligner, kept, length), columns, weights)

    def _kept(self, trace: KVTrace | Kept, batch: Batch) -> Kept:
        return trace if isinstance(trace, Kept) else self.keeper(trace, batch)

    def _is_warped(self, kept: KVTrace) -> bool:
        """Whether the kept positions are warped to the latents; a text has a slot for each."""
        if self.config.student != "latent":
            return False
        if kept.length != self.target_len:
            return True
        # of a whole cache every sample is warped, however long the others of its batch are
        whole = self.config.kv_method == "full" and self.config.resampling is None
        return whole and not bool(kept.valid_BT().all())


def map_student(aligner: MapProjectionAligner, trace: KVTrace) -> KVTrace:
    """The student's trace where it is compared: in the teacher's geometry, or as it is."""
    if aligner.direction == "teacher_to_student":
        return trace
    mapped = aligner.map_student(trace.keys, trace.values, trace.queries)
    # in the teacher's geometry queries and keys attend as the target does
    return replace(
        trace, keys=mapped.keys, values=mapped.values, queries=mapped.queries, attention=None
    )


def scores_by_attention(config: TrainConfig) -> bool:
    """Whether the teacher's attention decides which positions are kept, or how they are weighed."""
    if not config.matches_cache:
        return False
    if config.attention_weighted_kv:
        return True
    if config.resampling is not None or not EVICTIONS[config.kv_method].needs_queries:
        return False
    return build_eviction(config.kv_method, **eviction_options(config)).reads_queries


def attention_flag(config: TrainConfig) -> str | None:
    """The flag by which a run looks at its teacher's attention; None where none does."""
    if compares_queries(config):
        return f"--kv_loss {config.kv_loss}"
    if not scores_by_attention(config):
        return None
    return (
        "--attention_weighted_kv"
        if config.attention_weighted_kv
        else f"--kv_method {config.kv_method}"
    )
