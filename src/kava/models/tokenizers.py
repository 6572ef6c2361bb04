"""Tokenizers: the built-in one, requirements, and whether two give the same ids.

The built-in tokenizer has one token per byte, so that any text works without a download.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"

PROBES = (
    "",
    "Upper, lower; MIXED CaSe: don't, it's, we'll.",
    " a blank in front, and one behind ",
    "two  blanks\tand a tab\n\nand lines\r\n    indented",
    "48/2 = 24, 1,234.50 × 3; $5.00 or 12%",
    "ﬁ ½ ① Ａ Å e\u0301 \u00a0 \u200b \u2028",
    "日本語の文 русский текст العربية 한국어 🙂👩\u200d🔬",
    "<s></s><unk><pad><|endoftext|>[CLS][SEP]<bos><eos>",
)
"""Texts on which tokenizers differ: case, blanks, letter forms, scripts, special tokens."""

_CHUNK = 1024


def reads_alike(
    ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase, texts: Iterable[str]
) -> bool:
    """Whether two tokenizers give the same ids for all of these texts.

    Equal vocabularies are not enough: a start token, another normaliser (lower case, NFKC), an
    added blank or other merges give other ids, and a teacher that gets the student's ids would read
    nonsense. Tokenizers in the same state give the same ids by construction; others are compared on
    a few texts that separate most tokenizers, and then on the given texts.

    Args:
        ours: the student's.
        theirs: the teacher's.
        texts: all texts that both will read; used only if needed.

    Example:
        >>> reads_alike(byte_tokenizer(), byte_tokenizer(), ["2 + 2"])
        True
    """
    if ours is theirs:
        return True
    if ours.eos_token_id != theirs.eos_token_id:
        return False  # the end token of every text
    if not _all_alike(ours, theirs, PROBES):
        return False
    state = _state(ours)
    return (state is not None and state == _state(theirs)) or _all_alike(ours, theirs, texts)


def check_tokenizer(
    tokenizer: PreTrainedTokenizerBase, source: str, num_embeddings: int | None = None
) -> None:
    """Refuse a tokenizer that lacks a feature needed to read data.

    Args:
        tokenizer: tokenizer of a model.
        source: the model's name, for messages.
        num_embeddings: rows of the model's embedding table; None if unknown.

    Raises:
        ValueError: no character offsets, no end-of-sequence token, or a special token that the
            model has no embedding for.

    Example:
        >>> check_tokenizer(byte_tokenizer(), "kava/tiny-gpt2", 258)
    """
    if not tokenizer.is_fast:
        raise ValueError(
            f"the tokenizer of {source!r} ({type(tokenizer).__name__}) gives no character offsets, "
            f"which segments are cut by: pass a model with a fast tokenizer (a tokenizer.json)"
        )
    if tokenizer.eos_token_id is None:
        raise ValueError(
            f"the tokenizer of {source!r} has no end-of-sequence token, which ends an answer: set "
            f"eos_token in its tokenizer_config.json"
        )
    for role in ("pad", "eos", "bos", "unk"):
        index = getattr(tokenizer, f"{role}_token_id")
        if num_embeddings is not None and index is not None and index >= num_embeddings:
            text = getattr(tokenizer, f"{role}_token")
            mend = (
                "let the end-of-sequence token pad (pad_token in tokenizer_config.json), or "
                if role == "pad"
                else ""
            )
            raise ValueError(
                f"the tokenizer of {source!r} has the {role} token {text!r} with id {index}, but "
                f"the model has {num_embeddings} embeddings: {mend}resize the model by "
                f"model.resize_token_embeddings(len(tokenizer)) and save it"
            )


def _all_alike(
    ours: PreTrainedTokenizerBase, theirs: PreTrainedTokenizerBase, texts: Iterable[str]
) -> bool:
    rest = iter(texts)
    while part := list(islice(rest, _CHUNK)):
        if _ids(ours, part) != _ids(theirs, part):
            return False
    return True


def _state(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Everything that affects a fast tokenizer's ids, as text; None for a slow one."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    # set by an earlier call; every call sets its own
    backend.no_padding()
    backend.no_truncation()
    return backend.to_str()


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> tuple[Any, Any]:
    """The ids of texts as read in training, and which of them are special tokens."""
    output: Any = tokenizer(
        texts,
        return_special_tokens_mask=True,
        padding=False,
        truncation=False,
        verbose=False,
    )
    return output["input_ids"], output["special_tokens_mask"]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level tokenizer of 258 tokens: the 256 bytes, end of text and padding.

    Tiny built-in models need a vocabulary that covers every text, with character offsets for
    segments. Bytes are spelled as in GPT-2, without merges. A character of several bytes gives
    several tokens, each with the offsets of the whole character.

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
