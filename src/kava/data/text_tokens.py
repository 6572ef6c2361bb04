"""Texts as tokens with the characters they cover, and what a tokenizer does not know of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kava.data.fields import check_characters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TextTokens:
    """A text's tokens, and the characters that each covers."""

    ids: list[int]
    offsets: list[tuple[int, int]]


def tokenize(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, *, marks: bool = False
) -> list[TextTokens]:
    """Ids and offsets, with what a tokenizer puts in front but not what it puts at the end.

    Args:
        texts: what to read.
        tokenizer: a fast one.
        marks: whether the characters of a special token are that token, as in a template that
            writes them; else they are text like any other (`kava.data.special_tokens`).

    Raises:
        ValueError: a tokenizer without offsets, or a text with half of a surrogate pair.
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
    """What the tokenizer does not know; None where it knows all, or has no token to say so."""
    unknown = tokenizer.unk_token_id
    # GPT-2 knows every byte, and names its end mark, which a template may hold, as its unknown
    if unknown is None or unknown == tokenizer.eos_token_id or unknown not in item.ids:
        return None
    start, end = item.offsets[item.ids.index(unknown)]
    return text[start:end]
