"""What an evaluation looks at beside losses: how alike the caches are, where latents look.

Both are read off what the evaluation captures, in memory that does not grow with the number of
samples; the attention is that of a few samples, which are read once more for it.

Shapes: B batch, L layers, H key/value heads, Hq query heads, T columns, M latents, D head dim.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel

from kava.align.cka import MIN_ROWS_DEBIASED
from kava.align.streaming_cka import StreamingCKA
from kava.capture import capture, trace_from_cache
from kava.data.collate import Batch
from kava.losses.positions import common_mask
from kava.student.latent import LatentStudent
from kava.student.passes import Passes
from kava.trace import KVTrace, Segment

ENTROPY_SAMPLES = 32


class CacheLikeness:
    """CKA between the student's cache and its target, over all batches of an evaluation.

    The debiased estimate over all positions at once, layer by layer, each with the target's of
    the same layer; the mean over layers is reported. CKA does not depend on the basis, so that it
    says whether the student tells the same positions apart, whatever the loss says.
    """

    def __init__(self) -> None:
        self._layers: dict[str, list[StreamingCKA]] = {}

    def look(self, student: KVTrace | None, target: KVTrace | None) -> None:
        """Add a batch; one without a target adds nothing."""
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
        """`cka_keys` and `cka_values`; empty with nothing to compare."""
        return {
            f"cka_{part}": sum(float(cka.matrix()) for cka in layers) / len(layers)
            for part, layers in self._layers.items()
            if layers[0].num_rows >= MIN_ROWS_DEBIASED
        }


@torch.no_grad()
def attention_entropy(student: PreTrainedModel, batch: Batch) -> float | None:
    """How widely the student's thought looks around, in nats.

    The entropy of the attention of every latent's query (of an explicit student: of every
    reasoning token's) over all columns up to its own, averaged over queries, heads, layers and
    the batch's first samples. 0 looks at one column alone, ln n at n alike. The attention is
    computed from recorded queries and cached keys with the scale 1/√D.

    Args:
        student: a `LatentStudent`, or a causal model that writes its reasoning.
        batch: as the collator makes it; its first 32 samples are read.

    Returns:
        None where there is no latent, or no reasoning token.

    Example:
        >>> 0 <= attention_entropy(student, batch) <= math.log(64)
        True
    """
    if isinstance(student, LatentStudent):
        if student.config.num_latents == 0:
            return None
        return _of_latents(student, batch)
    return _of_text(student, batch)


def _of_latents(student: LatentStudent, batch: Batch) -> float:
    few = slice(0, ENTROPY_SAMPLES)
    run = Passes(student, batch["prompt_ids"][few], batch["prompt_mask"][few], queries=True)
    run.begin(None)
    run.think()
    tokens = student.get_input_embeddings()(batch["answer_ids"][few, :1])
    output = run.answer(tokens, hidden_states=False, trace=True)
    assert output.trace is not None
    assert output.trace.queries is not None
    M = student.config.num_latents
    stop = run.P + 1 + M
    keys = trace_from_cache(run.cache, start=0, stop=stop).keys
    mask_BT = run.mask(stop)
    valid_BT = keys.new_ones(keys.shape[0], stop) if mask_BT is None else mask_BT
    columns = torch.arange(stop - M, stop, device=keys.device)
    wanted_BM = valid_BT[:, columns].bool()
    return _mean_entropy(output.trace.queries, keys, valid_BT.bool(), columns, wanted_BM)


def _of_text(student: PreTrainedModel, batch: Batch) -> float | None:
    few = slice(0, ENTROPY_SAMPLES)
    segments = batch["segment_ids"][few]
    _, trace = capture(
        student,
        batch["input_ids"][few],
        batch["attention_mask"][few],
        segments,
        queries=True,
        hidden_states=False,
        logits_to_keep=1,
    )
    wanted_BT = segments.eq(Segment.REASONING)
    if not wanted_BT.any():
        return None
    assert trace.queries is not None
    columns = torch.arange(trace.length, device=segments.device)
    return _mean_entropy(trace.queries, trace.keys, trace.valid_BT(), columns, wanted_BT)


def _mean_entropy(
    queries_BLQND: Tensor,
    keys_BLHTD: Tensor,
    valid_BT: Tensor,
    columns_N: Tensor,
    wanted_BN: Tensor,
) -> float:
    """Over the queries at `columns_N`, where wanted; a layer at a time bounds the memory."""
    T, D = keys_BLHTD.shape[3:]
    groups = queries_BLQND.shape[2] // keys_BLHTD.shape[2]
    causal_NT = torch.arange(T, device=columns_N.device) <= columns_N[:, None]
    hidden_BNT = ~(causal_NT & valid_BT[:, None])
    total, count = 0.0, 0
    for layer in range(keys_BLHTD.shape[1]):
        keys_BQTD = keys_BLHTD[:, layer].float().repeat_interleave(groups, dim=1)
        scores_BQNT = queries_BLQND[:, layer].float() @ keys_BQTD.mT * D**-0.5
        shares_BQNT = scores_BQNT.masked_fill(hidden_BNT[:, None], -torch.inf).softmax(-1)
        entropy_BQN = torch.special.entr(shares_BQNT).sum(-1)
        chosen = entropy_BQN.transpose(1, 2)[wanted_BN]
        total += float(chosen.sum())
        count += chosen.numel()
    return total / count
