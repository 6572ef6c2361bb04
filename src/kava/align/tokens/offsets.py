"""The characters that every token of a text covers, for tokenizers of all kinds.

A fast tokenizer reports them. For one that does not (SentencePiece and Python tokenizers) they
are recovered: its pieces are spelled out and laid over the text, first letter by letter, then
with what normalisers change folded away (case, compatibility forms, blanks, marks).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np

from kava.align.tokens.recover_offsets import BLANK, recover_offsets


class Tokenizer(Protocol):
    """The part of a tokenizer that is used; every `PreTrainedTokenizerBase` has it."""

    @property
    def is_fast(self) -> bool:
        """Whether it reports offsets."""

    def __call__(self, *args: Any, **options: Any) -> Mapping[str, Any]:
        """Tokenize texts: `input_ids`, and `offset_mapping` on request."""

    @property
    def unk_token(self) -> Any:
        """The piece that stands for what the vocabulary lacks, or None."""

    def convert_ids_to_tokens(self, *args: Any, **options: Any) -> Any:
        """The pieces that ids stand for."""


class TokenOffsets(NamedTuple):
    """Token ids of every text, and the characters that they cover.

    Attributes:
        ids: of every text, T ids.
        offsets: of every text, [T, 2] int64: begin and end of each token.
    """

    ids: list[list[int]]
    offsets: list[np.ndarray]


def token_offsets(
    tokenizer: Tokenizer, texts: Sequence[str], *, add_special_tokens: bool = True
) -> TokenOffsets:
    """Tokenize texts and say which characters each token covers.

    Parts of one character (its bytes, say) each carry the offsets of the whole character. Tokens
    that the tokenizer adds cover none: begin = end. A piece that is nothing but a blank covers
    the blanks between its neighbours, and none where there are none: fast tokenizers report the
    character after it, also for the blank that SentencePiece puts in front of a text.

    Args:
        tokenizer: a fast one, whose offsets are taken, or one whose pieces spell its text.
        texts: the texts, neither truncated nor padded.
        add_special_tokens: let the tokenizer add its begin and end marks.

    Returns:
        ids and offsets; as a tuple it unpacks to the two lists.

    Raises:
        ValueError: a tokenizer without offsets whose pieces do not spell the text, for instance
            because it holds a character that the vocabulary lacks.

    Example:
        >>> from kava.models.tokenizers import byte_tokenizer
        >>> ids, offsets = token_offsets(byte_tokenizer(), ["2×2"])
        >>> offsets[0].tolist()
        [[0, 1], [1, 2], [1, 2], [2, 3]]
    """
    if not texts:
        return TokenOffsets([], [])
    if tokenizer.is_fast:
        return _reported(tokenizer, texts, add_special_tokens)
    return _recovered(tokenizer, texts, add_special_tokens)


def _reported(tokenizer: Tokenizer, texts: Sequence[str], special: bool) -> TokenOffsets:
    output = tokenizer(
        list(texts),
        add_special_tokens=special,
        return_offsets_mapping=True,
        return_attention_mask=False,
        return_token_type_ids=False,
        padding=False,
        truncation=False,
        verbose=False,
    )
    ids: list[list[int]] = output["input_ids"]
    counts = [len(row) for row in ids]
    pairs = chain.from_iterable(chain.from_iterable(output["offset_mapping"]))
    offsets = np.fromiter(pairs, dtype=np.int64, count=2 * sum(counts)).reshape(-1, 2)
    _place_blanks(tokenizer, ids, offsets)
    bounds = np.cumsum([0, *counts])
    return TokenOffsets(ids, [offsets[a:b] for a, b in pairwise(bounds)])


def _place_blanks(tokenizer: Tokenizer, ids: list[list[int]], offsets: np.ndarray) -> None:
    """Give blank pieces that carry the offsets of what follows their own place, in place.

    Args:
        tokenizer: knows the pieces.
        ids: of every text.
        offsets: [T, 2] of all texts, end to end.
    """
    text = np.repeat(np.arange(len(ids)), [len(row) for row in ids])
    solid = np.flatnonzero(offsets[:, 0] < offsets[:, 1])
    ours, after = solid[:-1], solid[1:]
    shared = (text[ours] == text[after]) & (offsets[after, 0] < offsets[ours, 1])
    at = np.flatnonzero(shared)
    if not at.size:
        return
    flat = np.fromiter(chain.from_iterable(ids), dtype=np.int64, count=len(text))
    known, which = np.unique(flat[ours[at]], return_inverse=True)
    pieces = tokenizer.convert_ids_to_tokens(known.tolist())
    at = at[np.array([not piece.strip(BLANK) for piece in pieces])[which]]
    begin = offsets[after[at], 0]
    before = solid[at - 1]
    first = (at == 0) | (text[before] != text[ours[at]])
    offsets[ours[at], 0] = np.minimum(np.where(first, 0, offsets[before, 1]), begin)
    offsets[ours[at], 1] = begin


def _recovered(tokenizer: Tokenizer, texts: Sequence[str], special: bool) -> TokenOffsets:
    text_ids: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
    all_ids: list[list[int]] = tokenizer(list(texts))["input_ids"] if special else text_ids
    offsets = []
    for text, inner, ids in zip(texts, text_ids, all_ids):
        lead = _find(inner, ids)
        spans = recover_offsets(text, tokenizer.convert_ids_to_tokens(inner), tokenizer.unk_token)
        if lead is None or spans is None:
            raise ValueError(
                f"{type(tokenizer).__name__} gives no character offsets, and its pieces do not "
                f"spell the text {text[:40]!r}{'…' if len(text) > 40 else ''}: load a fast "
                f"tokenizer (a tokenizer.json), or leave out what its vocabulary lacks"
            )
        span = np.full((len(ids), 2), len(text), dtype=np.int64)
        span[:lead] = 0
        span[lead : lead + len(inner)] = spans
        offsets.append(span)
    return TokenOffsets(all_ids, offsets)


def _find(inner: list[int], ids: list[int]) -> int | None:
    """Where the text's own tokens begin between those that the tokenizer adds."""
    added = len(ids) - len(inner)
    return next((at for at in range(added + 1) if ids[at : at + len(inner)] == inner), None)
