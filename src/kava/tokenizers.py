"""The built-in tokenizer: one token per byte, so that any text works without a download."""

from __future__ import annotations

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 258 tokens: the 256 bytes, end of text and padding.

    Tiny built-in models need a vocabulary that covers every text, with character offsets that
    segments are cut by. Bytes are spelled as GPT-2 spells them; nothing is merged. A character
    of several bytes gives several tokens, each with the offsets of the whole character.

    Example:
        >>> tokenizer = byte_tokenizer()
        >>> tokenizer.decode(tokenizer("3 × 4 = 12")["input_ids"])
        '3 × 4 = 12'
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {character: index for index, character in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
    )
