"""Which positions of a teacher's text are kept, in the key space of the target.

    teacher's trace ─► student's tokens ─► compress ─► un-rotate ─► kept positions

This part of a target depends on the teacher alone, and on the student's tokens: it can be stored.

Shapes: B batch, L layers, H key/value heads, T columns, M kept positions, D head dim.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kava.align.time.resample import SegmentResampling
from kava.align.tokens.trace import blend
from kava.data.collate import Batch
from kava.eviction import EVICTIONS, build_eviction
from kava.eviction.base import Eviction
from kava.fit.paired_traces import read_tokens, to_student_tokens
from kava.losses import attention_weights
from kava.rope import Rotary, at_length_of, unrotate_trace
from kava.store.teacher import Kept
from kava.trace import KVTrace, Segment
from kava.train.config import TrainConfig
from kava.train.matching import compares_queries


class Keeper:
    """Compress and un-rotate a teacher's trace, as a configuration says.

    Args:
        config: the run's configuration.
        rotary: the teacher's rotary embedding; None where its positions are learned.
        target_len: kept positions; None: the run's, of which several teachers may have a part.
        queries: keep queries too, whether or not the run's loss reads them.
        weights: also say how much the answer looks at each position.

    Raises:
        ValueError: options that the eviction does not have.
    """

    def __init__(
        self,
        config: TrainConfig,
        rotary: Rotary | None,
        target_len: int | None = None,
        *,
        queries: bool = False,
        weights: bool = False,
    ):
        self.config = config
        self.weighs = weights or config.attention_weighted_kv
        self.target_len = config.target_len if target_len is None else target_len
        self.rotary = rotary if config.unrotates else None
        self.resampling = config.resampling
        self.compares_queries = queries or compares_queries(config)
        self.options = eviction_options(config)
        if config.kv_method != "positions" and not EVICTIONS[config.kv_method].needs_scores:
            build_eviction(config.kv_method, **self.options)

    def __call__(self, trace: KVTrace, batch: Batch, *, scores: bool = False) -> Kept:
        """What is kept of a trace.

        Args:
            trace: over the teacher's text.
            batch: as the collator makes it.
            scores: also give the scores by which positions were kept, where the method has some.
        """
        trace = trace.detach()
        tokens = self.config.token_alignment if "teacher" in batch else "none"
        if self.resampling is None:
            return self._compress(trace, batch, tokens, scores)
        return Kept(*self._resample(self.resampling, trace, batch, tokens))

    def _compress(self, trace: KVTrace, batch: Batch, tokens: str, scores: bool) -> Kept:
        """The positions that an eviction keeps, their columns, weights and scores."""
        at_tokens = trace if tokens == "none" else read_tokens(trace, batch)
        at_tokens, bare_B = _stand_in(at_tokens)
        eviction = self._eviction(batch)
        indices_BLHM, mask_BM = eviction.choose(at_tokens, self.target_len)
        kept = eviction.take(self._compared(at_tokens), indices_BLHM, mask_BM & ~bare_B[:, None])
        columns = indices_BLHM[:, 0, 0] if kept.scope == "model" else indices_BLHM
        weights = attention_weights(at_tokens, columns) if self.weighs else None
        kept = kept.in_float32()
        if self.config.unrotates:
            kept = unrotate_trace(kept, at_length_of(trace, self.rotary))
        if tokens == "soft":
            kept = self._mean_over_tokens(kept, self._compared(trace), columns, batch)
        found = eviction.scores_at(at_tokens, indices_BLHM) if scores else None
        return Kept(kept, columns, weights, found)

    def _compared(self, trace: KVTrace) -> KVTrace:
        """A trace of what the loss will read: an eviction may look at queries that it does not."""
        return trace if self.compares_queries else replace(trace, queries=None)

    def _resample(
        self, resampling: SegmentResampling, trace: KVTrace, batch: Batch, tokens: str
    ) -> tuple[KVTrace, Tensor]:
        """The whole text at the student's slots, segment by segment, and their columns."""
        trace = self._compared(trace).in_float32()
        if self.config.unrotates:
            trace = unrotate_trace(trace, self.rotary)
        if tokens != "none":
            trace = to_student_tokens(trace, batch, tokens)
        if self.config.student == "latent":
            return resampling.to_latents(trace, self.target_len)
        return resampling.to_text(trace, batch["segment_ids"], batch["attention_mask"])

    def _mean_over_tokens(
        self, kept: KVTrace, trace: KVTrace, columns: Tensor, batch: Batch
    ) -> KVTrace:
        """What was kept, each the mean over the teacher's tokens under a token."""
        theirs = batch["teacher"]
        if columns.ndim != 2:
            raise ValueError(
                "--token_alignment soft needs positions shared by all heads and layers: pass "
                "--kv_scope model"
            )
        plain = trace.in_float32()
        if self.config.unrotates:
            plain = unrotate_trace(plain, self.rotary)
        wide = columns[:, :, None].expand(-1, -1, theirs["covered"].shape[2])
        return blend(
            plain, theirs["covered"].gather(1, wide), theirs["shares"].gather(1, wide), kept
        )

    def _eviction(self, batch: Batch) -> Eviction:
        options: dict[str, Any] = dict(self.options)
        if self.config.kv_method == "positions":
            if "positions" not in batch:
                raise ValueError(
                    "--kv_method positions needs data that give the kept positions, such as "
                    "kava/shell-game?form=verbose or kava/word-problems?form=equations; choose "
                    "another method"
                )
            options["positions"] = batch["positions"]
        if EVICTIONS[self.config.kv_method].needs_scores:
            own = self.config.token_alignment == "none" and "teacher" in batch
            part = batch["teacher"] if own else batch
            if "scores" not in part:
                raise ValueError(
                    f"--kv_method {self.config.kv_method} needs samples with scores: give them "
                    f"theirs by kava.train.scores.with_scores"
                )
            options["scores"] = part["scores"]
        if self.config.kv_method == "random":
            options["sample_ids"] = batch["ids"]
        return build_eviction(self.config.kv_method, **options)


def _stand_in(trace: KVTrace) -> tuple[KVTrace, Tensor]:
    """A trace whose samples without reasoning have their last prompt position for it.

    An eviction keeps at least one position of each sample; what it keeps of these is masked.

    Returns:
        the trace, and which samples [B] have no reasoning.
    """
    segments_BT = trace.segment_ids
    assert segments_BT is not None
    bare_B = ~segments_BT.eq(Segment.REASONING).any(1)
    if not bare_B.any():
        return trace, bare_B
    last_B = segments_BT.eq(Segment.PROMPT).cumsum(1).argmax(1)
    marked = torch.arange(segments_BT.shape[1], device=last_B.device) == last_B[:, None]
    segments_BT = segments_BT.masked_fill(marked & bare_B[:, None], int(Segment.REASONING))
    return replace(trace, segment_ids=segments_BT), bare_B


def eviction_options(config: TrainConfig) -> dict[str, Any]:
    """The options of the configured eviction.

    Where heads are mixed, or text positions are supervised, one choice of positions is shared by
    the whole model: another head's position would be compared with an unrelated one.
    """
    options: dict[str, Any] = {}
    scope = config.kv_scope
    if scope is None and (config.alignment_mode != "identity" or config.student == "explicit"):
        scope = "model"
    if scope is not None:
        options["scope"] = scope
    fields = EVICTIONS[config.kv_method].__dataclass_fields__
    if config.rkv_lambda is not None:
        if "lam" not in fields:
            raise ValueError(
                f"--rkv_lambda is read by rkv and rkv_official, not by {config.kv_method}; "
                f"leave it out"
            )
        options["lam"] = config.rkv_lambda
    if config.kv_method == "random":
        options["seed"] = config.seed
    return options
