"""A cheap estimate of knockout: how sharply later losses hang on a position's values.

One forward, and one backward per step of the reasoning, in place of a pass per position.

Shapes: B batch, T columns, S columns that predict a supervised token.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from kava.data.collate import IGNORED, Batch
from kava.importance.knockout import refuse_broken, stages_of
from kava.models.capture import position_ids_from_mask
from kava.trace import Segment, iter_past


def gradient(model: PreTrainedModel, batch: Batch, stages_BT: Tensor | None = None) -> Tensor:
    """The length of the gradient of later losses with respect to a position's values.

        s_i = Σ_layers Σ_heads ‖∂(Σ_t ℓ_t) / ∂v_i‖₂   over counted tokens t,

    the tokens that are supervised and of a later stage than i, as in `knockout`. The loss is the
    negated log-odds, ℓ = log(1 − p(x_t)) − log p(x_t): the gradient of the cross-entropy is the
    same but for a factor 1 − p, all but zero where the teacher is sure, which would hide what
    makes it sure. The length is taken rather than the first-order change −v_i · ∂ℓ/∂v_i: hiding
    a position is too large a step for that. `docs/compression.md` has the comparison.

    Args:
        model: a causal model; it is asked in evaluation mode, and its weights get no gradients.
        batch: as the collator makes it.
        stages_BT: [B, T] as `token_stages` gives them, −1 at padding. None counts every later
            supervised token in a single backward, the one right after a position too.

    Returns:
        [B, T] float32, not negative; zero at other columns than reasoning. They compare within
        a sample, and are not in nats.

    Raises:
        ValueError: a teacher whose loss is not a number.

    Example:
        >>> scores_BT = gradient(teacher, batch)
        >>> kept, _ = compress(trace, "knockout_gradient", target_len=3, scores=scores_BT)
    """
    reasoning_BT = batch["segment_ids"] == Segment.REASONING
    # one stage for all reasoning: no token before a position hangs on its values
    supervised_BT = (batch["labels"] != IGNORED).long() - 1
    own_BT = supervised_BT - 1 if stages_BT is None else stages_BT
    counted_BT = supervised_BT if stages_BT is None else stages_of(batch, stages_BT)
    scores_BT = torch.zeros(reasoning_BT.shape, device=reasoning_BT.device)
    training = model.training
    model.eval()
    try:
        with torch.enable_grad():
            losses_BS, values = _read(model, batch, reasoning_BT)
            counted_BS = counted_BT[:, -losses_BS.shape[1] :]
            for stage in own_BT[reasoning_BT].unique().tolist():
                later_BS = counted_BS > stage
                if not later_BS.any():
                    continue
                loss = torch.where(later_BS, losses_BS, 0.0).sum()
                gradients = torch.autograd.grad(loss, values, retain_graph=True)
                length_BT = torch.stack([g.float().norm(dim=-1).sum(1) for g in gradients]).sum(0)
                columns = slice(0, length_BT.shape[1])
                of_stage_BT = (reasoning_BT & (own_BT == stage))[:, columns]
                scores_BT[:, columns] = torch.where(of_stage_BT, length_BT, scores_BT[:, columns])
    finally:
        model.train(training)
    refuse_broken(scores_BT, batch)
    return scores_BT


def _read(
    model: PreTrainedModel, batch: Batch, reasoning_BT: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """The negated log-odds [B, S] of the last S tokens, and each layer's values [B, H, T − 1, D].

    The graph begins at the embeddings, so that it is there for frozen weights too.
    """
    first = int(reasoning_BT.any(dim=0).nonzero()[0])
    ids, mask = batch["input_ids"][:, :-1], batch["attention_mask"][:, :-1]
    embeddings: Any = model.get_input_embeddings()
    cache = DynamicCache()
    outputs: Any = model(
        inputs_embeds=embeddings(ids).detach().requires_grad_(),
        attention_mask=mask,
        position_ids=position_ids_from_mask(mask),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=ids.shape[1] - first,
    )
    logits_BSV = outputs.logits.float()
    labels_BS1 = batch["labels"][:, first + 1 :].clamp(min=0)[..., None]
    gold_BS = logits_BSV.gather(-1, labels_BS1)[..., 0]
    others_BS = logits_BSV.scatter(-1, labels_BS1, -torch.inf).logsumexp(dim=-1)
    return others_BS - gold_BS, [values for _, values in iter_past(cache)]
