"""Knockout: what the teacher cannot predict once no later query may look at a position.

The text is read once and its cache kept. Then, for each reasoning column, only what follows it
runs again, over the cached prefix in which that column is hidden: a pass of the suffix in place
of the whole text, and no mask of pairs. The columns are taken from the last to the first, so that
every pass may overwrite what the one before left behind it, and the prefix is never copied.

Shapes: B batch, T columns, S columns of a suffix, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import PreTrainedModel

from kava.data.collate import IGNORED, Batch
from kava.importance.hiding import hiding
from kava.models.capture import position_ids_from_mask
from kava.student.cache import PreallocatedCache
from kava.trace import Segment


@torch.no_grad()
def knockout(model: PreTrainedModel, batch: Batch, stages_BT: Tensor | None = None) -> Tensor:
    """The rise in cross-entropy when a reasoning position is hidden from all later queries.

    For a reasoning position i, with every query after i kept from attending to it in all layers
    and heads (the position itself still reads what it read), the score is

        Σ_t [−log p(x_t | i hidden) + log p(x_t)]   over counted tokens t,

    the tokens that are supervised and of a later stage than i. The token right after i is
    predicted by i itself and cannot change.

    Args:
        model: a causal model; it is asked in evaluation mode.
        batch: as the collator makes it.
        stages_BT: [B, T] as `token_stages` gives them, −1 at padding. None counts every later
            supervised token.

    Returns:
        [B, T] float32, in nats; zero at other columns than reasoning. It may be negative.

    Raises:
        ValueError: a teacher whose cross-entropy is not a number.

    Example:
        >>> scores_BT = knockout(teacher, batch)
        >>> kept, _ = compress(trace, "knockout", target_len=3, scores=scores_BT)
    """
    mask_BT = batch["attention_mask"]
    T = mask_BT.shape[1]
    stages_BT = stages_of(batch, stages_BT)
    positions_BT = position_ids_from_mask(mask_BT)
    reasoning_BT = batch["segment_ids"] == Segment.REASONING
    columns = reasoning_BT.any(dim=0).nonzero()[:, 0].tolist()
    first = columns[0]
    scores_BT = torch.zeros(mask_BT.shape, device=mask_BT.device)
    training = model.training
    model.eval()
    try:
        cache = PreallocatedCache(model.config.num_hidden_layers, T - 1)
        # the last token is predicted by the one before it, and predicts nothing
        plain_BS = _losses(model, batch, slice(0, T - 1), positions_BT, cache, first)
        columns_T = torch.arange(T - 1, device=mask_BT.device)
        with hiding(model) as hidden:
            for column in reversed(columns):
                if column + 2 >= T:
                    continue
                hidden.shown = (columns_T != column).expand(len(mask_BT), -1)
                cache.rewind(column + 1)
                suffix = slice(column + 1, T - 1)
                losses_BS = _losses(model, batch, suffix, positions_BT, cache, column + 1)
                rise_BS = losses_BS - plain_BS[:, column + 1 - first :]
                counted_BS = stages_BT[:, column + 2 :] > stages_BT[:, column, None]
                # a token that is not counted may be infinite without harm
                scores_BT[:, column] = torch.where(counted_BS, rise_BS, 0.0).sum(dim=1)
    finally:
        model.train(training)
    scores_BT = torch.where(reasoning_BT, scores_BT, 0.0)
    refuse_broken(scores_BT, batch)
    return scores_BT


def stages_of(batch: Batch, stages_BT: Tensor | None) -> Tensor:
    """[B, T]: the given stages, or the columns' own numbers; −1 where nothing is supervised."""
    if stages_BT is None:
        stages_BT = torch.arange(batch["labels"].shape[1], device=batch["labels"].device)
    return torch.where(batch["labels"] == IGNORED, -1, stages_BT)


def refuse_broken(scores_BT: Tensor, batch: Batch) -> None:
    """Raise a `ValueError` that names the first sample whose score is not finite."""
    broken_B = ~scores_BT.isfinite().all(dim=1)
    if broken_B.any():
        sample = batch["ids"][int(broken_B.nonzero()[0])]
        raise ValueError(
            f"the teacher's loss on sample {sample!r} is not a finite number, so that no position "
            f"can be scored; try --dtype float32"
        )


def _losses(
    model: PreTrainedModel,
    batch: Batch,
    columns: slice,
    positions_BT: Tensor,
    cache: PreallocatedCache,
    first: int,
) -> Tensor:
    """[B, S] the cross-entropy of the token after each of the columns from `first` on."""
    outputs: Any = model(
        input_ids=batch["input_ids"][:, columns],
        attention_mask=batch["attention_mask"][:, : columns.stop],
        position_ids=positions_BT[:, columns],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=columns.stop - first,
    )
    labels_BS = batch["labels"][:, first + 1 :]
    return cross_entropy(
        outputs.logits.flatten(0, 1).float(),
        labels_BS.flatten(),
        ignore_index=IGNORED,
        reduction="none",
    ).view_as(labels_BS)
