"""Measures of an evaluation besides losses: cache similarity, and attention of the latents.

Both are computed from what the evaluation captures, in memory that does not grow with the number of
samples; attention is measured on the first samples, which are read a second time. Neither depends
on how the samples are divided into batches.

Shapes: B batch, L layers, H key/value heads, Hq query heads, T columns, M latents, D head dim.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kava.align.layers.cka import MIN_ROWS_DEBIASED
from kava.align.layers.streaming_cka import StreamingCKA
from kava.attention import attention_logits
from kava.data.collate import Batch
from kava.eviction.heads import cut, flat_keys, head_form, hide_out_of_reach, per_head
from kava.losses.positions import common_mask
from kava.models.capture import capture, rebuilds_attention, trace_from_cache
from kava.student.latent import LatentStudent
from kava.student.passes import Passes
from kava.trace import KVTrace, Segment

ENTROPY_SAMPLES = 32


class CacheLikeness:
    """CKA between the student's cache and its target, over all batches of an evaluation.

    Each layer is compared with the same layer of the target by the debiased estimate over all
    positions; the mean over layers is reported. CKA does not depend on the basis, so it shows
    whether the student distinguishes the same positions, independently of the loss.
    """

    def __init__(self) -> None:
        self._layers: dict[str, list[StreamingCKA]] = {}

    def look(self, student: KVTrace | None, target: KVTrace | None) -> None:
        """Add a batch; a batch without a target adds nothing."""
        if student is None or target is None:
            return
        mask_BM = common_mask(student, target)
        for part in ("keys", "values"):
            ours, theirs = getattr(student, part), getattr(target, part)
            layers = self._layers.setdefault(
                part, [StreamingCKA(1, 1) for _ in range(student.num_layers)]
            )
            for index, cka in enumerate(layers):
                one = slice(index, index + 1)
                cka.update(ours[:, one].float(), theirs[:, one].float(), mask_BM)

    def metrics(self) -> dict[str, float]:
        """`cka_keys` and `cka_values`; empty if nothing was compared."""
        return {
            f"cka_{part}": sum(float(cka.matrix()) for cka in layers) / len(layers)
            for part, layers in self._layers.items()
            if layers[0].num_rows >= MIN_ROWS_DEBIASED
        }


class Entropy(NamedTuple):
    """The mean entropy of attention over some queries."""

    nats: float
    num_queries: int
    """Pairs of sample and column; each counts with all layers and heads."""


def mean_entropy(parts: Sequence[Entropy]) -> float | None:
    """The mean over the queries of several batches, in nats; None without any."""
    total = sum(part.num_queries for part in parts)
    return sum(part.nats * part.num_queries / total for part in parts) if total else None


@torch.no_grad()
def attention_entropy(
    student: PreTrainedModel, batch: Batch, num_samples: int = ENTROPY_SAMPLES
) -> Entropy | None:
    """Entropy of the attention from the student's latents, in nats.

    The entropy of each latent query's attention (for an explicit student: each reasoning token's)
    over all columns up to its own, averaged over queries, heads, layers and the batch's first
    samples. 0 means attention to a single column, ln n equal attention to n columns; an attention
    sink is one more column. Attention is computed from recorded queries and cached keys, as the
    model's own layers compute it.

    Args:
        student: a `LatentStudent`, or a causal model that writes its reasoning.
        batch: as the collator makes it.
        num_samples: how many of its first samples are read.

    Returns:
        None if there is no latent or no reasoning token, or if the family's attention cannot be
        rebuilt.

    Example:
        >>> 0 <= attention_entropy(student, batch).nats <= math.log(64)
        True
    """
    base = student.base if isinstance(student, LatentStudent) else student
    if not rebuilds_attention(base):
        return None
    if isinstance(student, LatentStudent):
        if student.config.num_latents == 0:
            return None
        return _of_latents(student, batch, slice(0, num_samples))
    return _of_text(student, batch, slice(0, num_samples))


def _of_latents(student: LatentStudent, batch: Batch, few: slice) -> Entropy:
    run = Passes(student.parts(), batch["prompt_ids"][few], batch["prompt_mask"][few], queries=True)
    run.begin(None)
    run.think()
    tokens = student.get_input_embeddings()(batch["answer_ids"][few, :1])
    output = run.answer(tokens, hidden_states=False, trace=True)
    assert output.trace is not None
    assert output.trace.queries is not None
    M = student.config.num_latents
    stop = run.P + 1 + M
    mask_BT = run.mask(stop)
    whole = trace_from_cache(
        run.cache,
        start=0,
        stop=stop,
        mask=mask_BT,
        positions=run.positions(0, stop),
        attention=output.trace.attention,
    )
    columns = torch.arange(stop - M, stop, device=whole.keys.device)
    return _mean_entropy(output.trace.queries, whole, columns, whole.valid_BT()[:, columns])


def _of_text(student: PreTrainedModel, batch: Batch, few: slice) -> Entropy | None:
    segments = batch["segment_ids"][few]
    wanted_BT = segments.eq(Segment.REASONING)
    if not wanted_BT.any():
        return None
    _, trace = capture(
        student,
        batch["input_ids"][few],
        batch["attention_mask"][few],
        segments,
        queries=True,
        hidden_states=False,
        logits_to_keep=1,
    )
    assert trace.queries is not None
    columns = torch.arange(trace.length, device=segments.device)
    return _mean_entropy(trace.queries, trace, columns, wanted_BT)


def _mean_entropy(
    queries_BLQRD: Tensor, trace: KVTrace, columns_R: Tensor, wanted_BR: Tensor
) -> Entropy:
    """Mean entropy over the wanted queries at `columns_R`; blocks of heads limit the memory.

    A row that is not wanted may see no column at all: its attention is uniform, and left out.
    """
    B, L, H, T, D = trace.keys.shape
    form = head_form(trace, None)
    queries_NGRD = queries_BLQRD.unflatten(2, (H, -1)).flatten(0, 2)
    seen_BRT = (torch.arange(T, device=columns_R.device) <= columns_R[:, None])[None]
    hidden_NRT = per_head(trace, ~(seen_BRT & trace.valid_BT()[:, None]))
    columns_NR = columns_R.expand(len(hidden_NRT), -1)
    hidden_NRT = hide_out_of_reach(hidden_NRT, trace, form, columns_NR, 0, T)
    wanted_NR, keys_NTD = per_head(trace, wanted_BR), flat_keys(trace, 0, T)
    G, R = queries_NGRD.shape[1:3]
    total = 0.0
    for heads in cut(B * L * H, max(G * R * T, T * D), keys_NTD.device):
        queries, keys = queries_NGRD[heads].float(), keys_NTD[heads].float()
        logits = attention_logits(queries, keys, form[heads], hidden_NRT[heads][:, None])
        entropy_NGR = torch.special.entr(logits.softmax(dim=-1)).sum(dim=-1)
        total += float(torch.where(wanted_NR[heads][:, None], entropy_NGR, 0.0).sum())
    return Entropy(total / (G * int(wanted_NR.sum())), int(wanted_BR.sum()))
