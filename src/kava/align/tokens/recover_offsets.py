"""Recover the character offsets of tokens from their pieces, for tokenizers that report none.

Vocabularies write their pieces in a few known ways, and normalisers change a text in a few. Every
way to decode pieces is tried with every normalisation of characters, the strictest first; the first
pair that gives back the whole text is used. If there is none, there are no offsets.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise

import numpy as np

BLANK = "▁"
"""How SentencePiece writes a blank (U+2581)."""

PieceDecoder = Callable[[str], bytes]
"""From a piece of the vocabulary to the bytes that it stands for."""

Normalisation = Callable[[str], str]
"""From a character to what is left of it for a comparison."""


def _sentencepiece(piece: str) -> bytes:
    """`▁two` is " two", `<0xF0>` the byte of that value; what has neither is plain text."""
    if re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", piece):
        return bytes.fromhex(piece[3:5])
    return piece.replace(BLANK, " ").encode()


def _byte_level(piece: str) -> bytes:
    """`Ġtwo` is " two": GPT-2 writes every byte as one visible character."""
    return bytes(_gpt2_bytes()[character] for character in piece)


def _affixed(piece: str) -> bytes:
    """`##ing` and `two</w>`, `tw@@`: WordPiece and older BPE mark where words go on or end."""
    return piece.removeprefix("##").removesuffix("</w>").removesuffix("@@").encode()


def _latin(piece: str) -> bytes:
    """ByT5 writes every byte as the character of that number."""
    return piece.encode("latin-1")


@cache
def _gpt2_bytes() -> dict[str, int]:
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    visible += range(ord("®"), ord("ÿ") + 1)
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {
        chr(256 + place): byte for place, byte in enumerate(others)
    }


PIECE_DECODERS: tuple[PieceDecoder, ...] = (_sentencepiece, _byte_level, _affixed, _latin)


@cache
def _compatible(character: str) -> str:
    """Without case, compatibility forms and blanks."""
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    return "".join(one for one in folded if not one.isspace() and one != BLANK)


@cache
def _visible(character: str) -> str:
    """Without control and format characters too."""
    return "".join(
        one for one in _compatible(character) if not unicodedata.category(one).startswith("C")
    )


@cache
def _unmarked(character: str) -> str:
    """Without combining marks too."""
    return "".join(
        one for one in _visible(character) if not unicodedata.category(one).startswith("M")
    )


NORMALISATIONS: tuple[Normalisation, ...] = (str, _compatible, _visible, _unmarked)


def recover_offsets(
    text: str, pieces: Sequence[str], unknown: str | None = None
) -> np.ndarray | None:
    """The characters of the text that each piece stands for.

    Args:
        text: what was tokenized.
        pieces: the T pieces of its tokens, without what the tokenizer added at the ends.
        unknown: the piece that stands for what the vocabulary lacks.

    Returns:
        [T, 2] begin and end; parts of one character each carry the whole character, and a piece
        of which nothing is left in the text (a blank) has what lies between its neighbours, which
        may be nothing. None where no way to decode gives back the text, or where an unknown
        piece can stand for more than one part of it.

    Example:
        >>> recover_offsets("Two  ½", ["▁two", "▁1", "⁄", "2"]).tolist()
        [[0, 3], [5, 6], [5, 6], [5, 6]]
    """
    gaps = [at for at, piece in enumerate(pieces) if piece == unknown]
    spelled = []
    for decode in PIECE_DECODERS:
        try:
            parts = [decode(piece) for piece in pieces]
            spelled.append((parts, b"".join(parts).decode()))
        except (KeyError, UnicodeError):
            continue
    for normalise in NORMALISATIONS:
        for parts, joined in spelled:
            spans = _lay_over(text, parts, joined, normalise)
            if spans is not None:
                return spans
    for normalise in NORMALISATIONS[1:] if gaps else ():
        for parts, _ in spelled:
            filled = _fill(text, parts, gaps, normalise)
            if filled is not None:
                return _lay_over(text, filled, b"".join(filled).decode(), normalise)
    return None


def _fill(
    text: str, parts: Sequence[bytes], gaps: Sequence[int], normalise: Normalisation
) -> list[bytes] | None:
    """The parts with what each gap must stand for; None where that is not certain.

    A gap is one letter or more of one word: blanks end a word in every vocabulary that has gaps.
    """
    line, source = _normalised(text, normalise)
    word = np.cumsum([one.isspace() for one in text])[source]
    word_end = np.searchsorted(word, word, side="right")
    runs: list[str | None] = [None] * (2 * len(gaps) + 1)
    for place, (a, b) in enumerate(pairwise([-1, *gaps, len(parts)])):
        runs[2 * place] = _normalised(
            b"".join(parts[a + 1 : b]).decode(errors="replace"), normalise
        )[0]
    # Forward, all places in the line that each run can begin at; backward, the one it must.
    begins = [[0]]
    for run in runs:
        ends: list[int] = []
        for begin in begins[-1]:
            if run is None and begin < len(line):
                ends.extend(range(max([begin, *ends[-1:]]) + 1, word_end[begin] + 1))
            elif run is not None and line.startswith(run, begin):
                ends.append(begin + len(run))
        begins.append(ends)
    if len(line) not in begins.pop():
        return None
    filled, end = list(parts), len(line)
    for place in reversed(range(len(runs))):
        run = runs[place]
        if run is None:
            possible = [one for one in begins[place] if one < end <= word_end[one]]
        else:
            possible = [end - len(run)]
        if len(possible) != 1:
            return None
        if run is None:
            filled[gaps[place // 2]] = line[possible[0] : end].encode()
        (end,) = possible
    return filled


def _lay_over(
    text: str, parts: Sequence[bytes], joined: str, normalise: Normalisation
) -> np.ndarray | None:
    # The blank that SentencePiece puts in front of a text is none of the text's characters.
    dummy = int(normalise is str and joined == " " + text)
    folded_text, in_text = _normalised(text, normalise)
    folded_joined, in_joined = _normalised(joined[dummy:], normalise)
    if folded_text != folded_joined:
        return None
    # The characters of `joined` that each part touches, and what is left of them when folded.
    character_end = np.cumsum([len(character.encode()) for character in joined])
    part_end = np.cumsum([len(part) for part in parts])
    first = np.searchsorted(character_end, np.append(0, part_end)[:-1], side="right")
    past = np.searchsorted(character_end, part_end, side="left") + 1
    low, high = np.searchsorted(in_joined + dummy, np.stack([first, past]))
    left = (low < high) & (np.diff(part_end, prepend=0) > 0)
    begin, end = np.zeros_like(low), np.zeros_like(high)
    begin[left], end[left] = in_text[low[left]], in_text[high[left] - 1] + 1
    before = np.maximum.accumulate(end)
    after = np.minimum.accumulate(np.where(left, begin, len(text))[::-1])[::-1]
    return np.stack(
        [np.where(left, begin, np.minimum(before, after)), np.where(left, end, after)], 1
    )


def _normalised(text: str, normalise: Normalisation) -> tuple[str, np.ndarray]:
    """The folded text, and the character of the text that each of its characters comes from."""
    folded = [normalise(character) for character in text]
    return "".join(folded), np.repeat(np.arange(len(text)), [len(one) for one in folded])
