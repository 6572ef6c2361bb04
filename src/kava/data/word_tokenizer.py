"""The tokenizer of the built-in word problems: byte-pair encoding, one token a word or number.

It is trained on the words of the phrasings of the train split, the names and the numbers of two
digits, until each of them is one token; other words of ASCII letters are spelled in pieces. Blanks
and line breaks are no tokens: a number is the same token wherever it stands, so that a small model
learns it once. Decoding writes one blank between words and none before a mark.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING

from kava.data.builtin_tokenizer import EOS, PAD, UNKNOWN, builtin_tokenizer
from kava.data.word_phrases import GOODS, LETTERS, MONTHS, PARTS, PEOPLE, SUMS, THEMES, TIMES
from kava.data.word_problems import ASK, WORD_PROBLEMS_TEMPLATE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

LARGEST_NUMBER = 99
SHORT = 4
"""Words of up to this many characters are one token, however many pieces a word may have."""
_END = "</w>"
_MARKS = (".", ",", ";", ":", "?", "!")


def word_problems_tokenizer(pieces: int = 1) -> PreTrainedTokenizerFast:
    """Build the tokenizer of the word problems.

    Args:
        pieces: the most tokens of a word; a number, and a word of up to four letters, is one.

    A character outside ASCII becomes "<unk>", which `encode_records` refuses by name.

    Example:
        >>> tokenizer = word_problems_tokenizer()
        >>> tokenizer.decode(tokenizer("Ann has 12 apples. Results:")["input_ids"])
        'Ann has 12 apples. Results:'
    """
    from tokenizers import Tokenizer, decoders
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import Punctuation, Sequence, WhitespaceSplit

    alphabet, merges = _trained(pieces)
    tokens = (PAD, EOS, UNKNOWN, *alphabet, *(a + b for a, b in merges))
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(BPE(vocabulary, list(merges), unk_token=UNKNOWN, end_of_word_suffix=_END))
    tokenizer.pre_tokenizer = Sequence([WhitespaceSplit(), Punctuation()])
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.BPEDecoder(_END),
            decoders.Fuse(),
            *(decoders.Replace(" " + mark, mark) for mark in _MARKS),
        ]
    )
    return builtin_tokenizer(tokenizer)


@lru_cache(maxsize=2)
def _trained(pieces: int) -> tuple[tuple[str, ...], tuple[tuple[str, str], ...]]:
    """The characters and the merges, in order: the most frequent pair first, ties by the alphabet.

    The trainer of `tokenizers` breaks ties at random, and would give every build other ids.
    """
    characters = [*string.ascii_letters, *string.digits, *string.punctuation]
    words = [[*word[:-1], word[-1] + _END] for word in sorted(_words())]
    merges: list[tuple[str, str]] = []
    # a word's characters: the last one carries the end mark
    most = [1 if len(word) <= SHORT else pieces for word in words]
    while pairs := Counter(
        pair for word, length in zip(words, most) if len(word) > length for pair in pairwise(word)
    ):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word in words:
            for place in range(len(word) - 1, 0, -1):
                if (word[place - 1], word[place]) == best:
                    word[place - 1 : place + 1] = ["".join(best)]
    return (*characters, *(one + _END for one in characters)), tuple(merges)


def _words() -> set[str]:
    """Every word and number that shall be one token."""
    texts = [str(number) for number in range(LARGEST_NUMBER + 1)]
    texts += [*PEOPLE, *GOODS, *MONTHS, *LETTERS, *TIMES.values()]
    # what may begin a sentence is written with a capital there
    texts += [word for part in PARTS.values() for word in (part, part.capitalize())]
    texts += [*ASK.values(), WORD_PROBLEMS_TEMPLATE.cue]
    for theme in (*THEMES, SUMS):
        texts += [*theme.subjects, *theme.goods, *(one.capitalize() for one in theme.subjects)]
        for phrases in theme.phrases.values():
            texts += [re.sub(r"{.}|{times}|{part}", " ", sentence) for sentence in phrases.train]
    return set(re.findall(r"[A-Za-z0-9]+", " ".join(texts)))
