"""Ends of a generated answer: the end tokens of model and tokenizer, or a next question.

Shapes: B batch, N tokens generated so far.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kava.data.records import Template
from kava.data.special_tokens import special_texts


def generation_ends(model: PreTrainedModel) -> list[int]:
    """The end token or tokens of a model's generation configuration."""
    config = model.generation_config
    named = None if config is None else config.eos_token_id
    return [] if named is None else [named] if isinstance(named, int) else [int(i) for i in named]


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Every token that ends a generation, the tokenizer's own first.

    Instruction-tuned models often end a turn with another token than their tokenizer's
    end-of-sequence token, which a student is trained to write.

    Args:
        model: the causal model that generates; for a latent student, its base.
        tokenizer: the model's.

    Example:
        >>> end_ids(student.base, tokenizer)
        [256]
    """
    own = tokenizer.eos_token_id
    ends = [*([] if own is None else [int(own)]), *generation_ends(model)]
    return list(dict.fromkeys(ends))


_INDENT = re.compile(r"^[ \t]*+", re.MULTILINE)


@dataclass(frozen=True)
class NextQuestion:
    """A next question that a model invents after its answer, found by its template's mark.

    Attributes:
        mark: `Template.next_question`.
        tokenizer: the model's.
    """

    mark: str
    tokenizer: PreTrainedTokenizerBase

    @classmethod
    def of(cls, template: Template, tokenizer: PreTrainedTokenizerBase) -> NextQuestion | None:
        """The next question of a template; None if nothing marks it."""
        mark = template.next_question(special_texts(tokenizer))
        return None if mark is None else cls(mark, tokenizer)

    def cut(self, text: str) -> str:
        """A text up to its next question."""
        place = self._place(text)
        return text if place is None else text[:place]

    def ends(self, tokens_BN: Tensor) -> Tensor:
        """Mask [B] of the samples that reached a next question with their last tokens.

        Only as many tokens are decoded as the mark can have: `cut` finds what this misses.
        """
        N = tokens_BN.shape[1]
        window = min(len(self.mark.encode()) + 8, N)
        texts = self.tokenizer.batch_decode(
            tokens_BN[:, N - window :].tolist(), skip_special_tokens=True
        )
        # a window that starts inside the text does not start a line
        heads = [0 if window == N else text.find("\n") for text in texts]
        found = [
            head >= 0 and self._place(text, head) is not None for text, head in zip(texts, heads)
        ]
        return torch.tensor(found, device=tokens_BN.device)

    def _place(self, text: str, start: int = 0) -> int | None:
        """Index of the first line at or after `start` that begins with the mark."""
        for indent in _INDENT.finditer(text, start):
            if text.startswith(self.mark, indent.end()):
                return indent.start()
        return None
