"""The written chain of thought in the layout of the latents: what a latent student must be able to
read before latents can mean anything to it.

    [padding] prompt | begin-of-thought | chain of thought | end-of-thought | answer [padding]

A pretrained model reads its own chain of thought, but not between two vectors that it has never
seen, at positions that they move. Cross-entropy on this layout trains that, and nothing about the
latents themselves.

Shapes: B batch, R columns of reasoning, A of the answer, C = R + A + 1 columns behind the prompt,
W width, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kava.student.cache import Pairs, pairs_of
from kava.student.passes import LatentParts, Passes

IGNORED = -100


class WrittenText(NamedTuple):
    """What follows the prompt, one row a sample, padded on the right.

    Attributes:
        ids: [B, C] tokens; arbitrary at begin- and end-of-thought and in the padding.
        thought: [B, C], 0 at begin-of-thought, 1 at end-of-thought, −1 elsewhere.
        labels: [B, C], the token that each column predicts; −100 where it predicts none: at the
            last token of the reasoning, which end-of-thought follows, and in the padding.
        answers: [B, C], the columns that predict the answer.
    """

    ids: Tensor
    thought: Tensor
    labels: Tensor
    answers: Tensor


class Written(NamedTuple):
    """One pass over the written chain of thought.

    Attributes:
        logits: [B, C, V].
        text: what was read, with its labels.
        prompt_pairs: each layer's keys and values over the prompt's columns.
    """

    logits: Tensor
    text: WrittenText
    prompt_pairs: Pairs

    @property
    def answer_labels(self) -> Tensor:
        """[B, C], −100 where no token of the answer is predicted."""
        return self.text.labels.masked_fill(~self.text.answers, IGNORED)


def lay_out(
    reasoning_ids: Tensor, reasoning_mask: Tensor, answer_ids: Tensor, answer_mask: Tensor
) -> WrittenText:
    """Put the thought vectors around each sample's reasoning and its answer right behind them.

    Args:
        reasoning_ids: [B, R], right-padded; a sample may have none.
        reasoning_mask: [B, R], true at its tokens.
        answer_ids: [B, A], right-padded.
        answer_mask: [B, A], true at its tokens.

    Example:
        >>> ids = torch.tensor([[5, 6], [7, 0]])
        >>> text = lay_out(ids, ids > 0, torch.tensor([[8, 9], [8, 9]]), torch.ones(2, 2))
        >>> text.labels.tolist()
        [[5, 6, -100, 8, 9], [7, -100, 8, 9, -100]]
    """
    R, A = reasoning_ids.shape[1], answer_ids.shape[1]
    lengths_B1 = reasoning_mask.long().sum(1, keepdim=True)
    column_C = torch.arange(R + A + 1, device=reasoning_ids.device)[None]
    behind_BC = column_C - lengths_B1  # 1 at end-of-thought
    token_BC = torch.where(behind_BC <= 0, column_C - 1, R + behind_BC - 2)
    both_ids, both_mask = (
        torch.cat(pair, dim=1)
        for pair in ((reasoning_ids, answer_ids), (reasoning_mask.bool(), answer_mask.bool()))
    )

    def take(source: Tensor, index: Tensor) -> Tensor:
        return source.gather(1, index.clamp(0, R + A - 1))

    next_BC = torch.where(behind_BC < 0, column_C, R + behind_BC - 1)
    answers_BC = (behind_BC > 0) & (next_BC < R + A) & take(both_mask, next_BC)
    predicts_BC = answers_BC | (behind_BC < 0)
    thought_BC = torch.full_like(token_BC, -1)
    thought_BC[:, 0] = 0
    thought_BC = thought_BC.masked_fill(behind_BC == 1, 1)
    return WrittenText(
        ids=take(both_ids, token_BC),
        thought=thought_BC,
        labels=take(both_ids, next_BC).masked_fill(~predicts_BC, IGNORED),
        answers=answers_BC,
    )


def read_written(
    parts: LatentParts,
    prompt_ids: Tensor,
    prompt_mask: Tensor | None,
    text: WrittenText,
    prompt_pairs: Pairs | None = None,
) -> Written:
    """Read prompt and text in one pass, with gradients.

    Args:
        parts: of the student.
        prompt_ids: [B, P], left-padded.
        prompt_mask: [B, P], 1 at valid columns; None means no padding.
        text: what follows the prompt.
        prompt_pairs: each layer's keys and values over the P prompt columns, from a pass that the
            same weights have made; left out, the prompt is read here.
    """
    run = Passes(parts, prompt_ids, prompt_mask)
    embeds = parts.base.get_input_embeddings()(text.ids)
    vectors = parts.thought_embeddings.to(embeds.dtype)
    for index in (0, 1):
        embeds = torch.where(text.thought[..., None] == index, vectors[index], embeds)
    end_B1 = (text.thought == 1).long().argmax(1, keepdim=True)
    logits = run.read_behind_prompt(embeds, end_B1, prompt_pairs)
    return Written(logits, text, pairs_of(run.cache, run.P))
