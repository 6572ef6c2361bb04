"""Special tokens in texts: `</s>` in a user's text is four characters, in a template a token.

A tokenizer reads the characters of a special token as that token everywhere, so that a question
about `<|endoftext|>` would end in the middle. Texts are therefore read without special tokens,
unless the template writes some itself, as chat templates do. A user's text that could then be
confused with the template's is refused, and also a text whose characters are a normal word of the
vocabulary (T5, the shell game's tokenizer).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kava.data.text_tokens import TextTokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from kava.data.records import Record, Template

logger = logging.getLogger(__name__)

TAKEN = "which would be read as a special token and not as text: write it otherwise"


def special_texts(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """The texts of a tokenizer's special tokens.

    Example:
        >>> from kava.models.tokenizers import byte_tokenizer
        >>> sorted(special_texts(byte_tokenizer()))
        ['<|endoftext|>', '<|pad|>']
    """
    added = tokenizer.added_tokens_decoder.values()
    return frozenset([*tokenizer.all_special_tokens, *(str(one) for one in added if one.special)])


@dataclass(frozen=True)
class SpecialTokens:
    """The special tokens of a tokenizer, and whether a template uses them.

    Attributes:
        texts: the result of `special_texts`.
        ids: their ids, without the unknown token's.
        in_template: whether the template writes one, so that texts are read with special tokens.
    """

    texts: frozenset[str]
    ids: frozenset[int]
    in_template: bool

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, template: Template) -> SpecialTokens:
        """The special tokens of a tokenizer."""
        texts = special_texts(tokenizer)
        vocabulary = tokenizer.get_vocab()
        ids = {vocabulary[text] for text in texts if text in vocabulary}
        # GPT-2 covers every byte, and declares its end token as the unknown token
        if tokenizer.unk_token_id != tokenizer.eos_token_id:
            ids -= {tokenizer.unk_token_id}
        parts = (template.question, template.reasoning, template.cue)
        return cls(texts, frozenset(ids), _held(parts, texts) is not None)

    def held(self, fields: Sequence[str]) -> str | None:
        """The text of a special token in a user's fields, or None."""
        return _held(fields, self.texts)

    def taken(self, fields: Sequence[str], items: Iterable[TextTokens]) -> str | None:
        """The text in a user's fields that would be read as a special token, or None.

        Args:
            fields: a record's question, reasoning and answer.
            items: the tokens of the texts that the template made from them.
        """
        held = self.held(fields)
        if held is None or self.in_template:
            return held
        became = any(
            token in self.ids and stop > start
            for item in items
            for token, (start, stop) in zip(item.ids, item.offsets)
        )
        return held if became else None


def fields_of(record: Record) -> list[str]:
    """The parts of a record that a user wrote."""
    return [record.question, record.student_question or "", record.reasoning, record.answer]


def warn_of_special(records: Sequence[Record], special: SpecialTokens) -> None:
    """Log how many records contain the text of a special token, in case the token was meant."""
    held = [(record, mark) for record in records if (mark := special.held(fields_of(record)))]
    if held:
        record, mark = held[0]
        logger.warning(
            "%d records hold the text of a special token, as %s holds %r: it is read as text, "
            "not as the token",
            len(held),
            record.named,
            mark,
        )


def _held(texts: Sequence[str], marks: Iterable[str]) -> str | None:
    return next((mark for mark in sorted(marks) if any(mark in text for text in texts)), None)
