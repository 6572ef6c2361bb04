"""Another tokenizer for the shell game: states in pieces of two letters, blanks in the tokens.

The task's own tokenizer reads a state as one word. This one reads " bdca" as " bd" and "ca", as a
sub-word tokenizer does: a reasoning step takes two tokens, and a token that follows a blank
covers it. A teacher that reads in pieces and
a student that reads in words are a heterogeneous pair on the same text.
"""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

from kava.data.builtin_tokenizer import EOS, PAD, UNKNOWN, builtin_tokenizer
from kava.data.shell_game import MOVES, WORDS

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_PATTERN = r" ?[a-d]{2}| ?[1-4]{4}| ?[A-Za-z]+| ?[?>;]|\s"


def shell_piece_tokenizer() -> PreTrainedTokenizerFast:
    """Build the piece tokenizer; it writes blanks and line breaks, so that texts round-trip.

    Example:
        >>> tokenizer = shell_piece_tokenizer()
        >>> tokenizer.tokenize("Cups bdca")
        ['Cups', ' bd', 'ca']
    """
    from tokenizers import Regex, Tokenizer, decoders
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Split

    pieces = [*WORDS, *MOVES, *(a + b for a, b in permutations("abcd", 2))]
    tokens = (PAD, EOS, UNKNOWN, "\n", " ", *pieces, *(" " + piece for piece in pieces))
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = Split(Regex(_PATTERN), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return builtin_tokenizer(tokenizer)
