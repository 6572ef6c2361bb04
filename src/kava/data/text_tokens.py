"""Tokenise texts with character offsets, and find text that is unknown to a tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kava.data.fields import check_characters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TextTokens:
    """A text's tokens, and the character range of each."""

    ids: list[int]
    offsets: list[tuple[int, int]]


def tokenize(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, *, marks: bool = False
) -> list[TextTokens]:
    """Ids and offsets, with the special tokens added at the start but not those at the end.

    Args:
        texts: the texts to tokenise.
        tokenizer: a fast tokenizer.
        marks: whether the characters of a special token become that token, as needed by a template
            that writes them; else they are ordinary text (`kava.data.special_tokens`).

    Raises:
        ValueError: a tokenizer without offsets, or a text with half a surrogate pair.
    """
    if not texts:
        return []
    if not tokenizer.is_fast:
        raise ValueError(
            f"{type(tokenizer).__name__} gives no character offsets, which segments need: load a "
            f"fast tokenizer (a tokenizer.json)"
        )
    for text in texts:
        check_characters(text, f"the text {text[:40]!r}")
    output: Any = tokenizer(
        texts,
        add_special_tokens=True,
        return_offsets_mapping=True,
        return_special_tokens_mask=True,
        return_attention_mask=False,
        padding=False,
        truncation=False,
        split_special_tokens=not marks,
        verbose=False,
    )
    items = []
    for ids, offsets, special in zip(
        output["input_ids"], output["offset_mapping"], output["special_tokens_mask"]
    ):
        end = len(ids)
        while end and special[end - 1]:
            end -= 1
        items.append(TextTokens(ids[:end], offsets[:end]))
    return items


def unknown_text(item: TextTokens, text: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The text unknown to the tokenizer; None if there is none, or no unknown token."""
    unknown = tokenizer.unk_token_id
    # GPT-2 covers every byte, and declares its end token, which a template may use, as unknown
    if unknown is None or unknown == tokenizer.eos_token_id or unknown not in item.ids:
        return None
    start, end = item.offsets[item.ids.index(unknown)]
    return text[start:end]
