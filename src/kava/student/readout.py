"""Read latents as tokens: the likeliest tokens of each, with their probabilities.

A latent is made from a hidden state; the model's output head turns that state into a distribution
over tokens: what the student would have written at that position.

Shapes: B batch, M latents, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kava.student.latent import LatentStudent, embedding_weight


class ReadToken(NamedTuple):
    """A token that a latent can be read as, and its probability."""

    text: str
    probability: float


Reading = tuple[ReadToken, ...]
"""The likeliest tokens of one latent, in descending order of probability."""


def check_readable(model: PreTrainedModel, name: str, top_k: int) -> None:
    """Refuse a request to read latents of a model that has none.

    Args:
        model: a student.
        name: its name in messages.
        top_k: requested tokens per latent.

    Raises:
        ValueError: a model that writes its reasoning, latents that are not made from hidden states,
            or a `top_k` outside 1 to the size of the vocabulary.
    """
    if not isinstance(model, LatentStudent):
        raise ValueError(
            f"--show_latents: {name} writes its reasoning and has no latents; leave it out, or "
            f"take a latent student"
        )
    config = model.config
    if not config.makes_latents:
        what = "has no latents" if config.num_latents == 0 else "has pause tokens for latents"
        raise ValueError(
            f"--show_latents: {name} {what}: there is no hidden state to read; leave it out"
        )
    size = embedding_weight(model).shape[0]
    if not 1 <= top_k <= size:
        raise ValueError(f"--top_k {top_k} must be from 1 to the {size} tokens there are")


def likeliest(
    readings: Tensor, tokenizer: PreTrainedTokenizerBase, top_k: int
) -> list[tuple[Reading, ...]]:
    """The likeliest tokens of every latent of a batch.

    Args:
        readings: [B, M, V] logits.
        tokenizer: the student's.
        top_k: number of tokens per latent.

    Returns:
        M readings for each of the B samples.

    Example:
        >>> output = student.answer(prompt_ids, readings=True)
        >>> likeliest(output.readings, tokenizer, top_k=3)[0][0][0]  # doctest: +SKIP
        ReadToken(text='bdca', probability=0.98)
    """
    probabilities_BMK, tokens_BMK = readings.float().softmax(-1).topk(top_k)
    return [
        tuple(
            tuple(
                ReadToken(str(tokenizer.decode([token])), probability)
                for token, probability in zip(tokens_K, probabilities_K)
            )
            for tokens_K, probabilities_K in zip(tokens_MK, probabilities_MK)
        )
        for tokens_MK, probabilities_MK in zip(tokens_BMK.tolist(), probabilities_BMK.tolist())
    ]


def describe(readings: tuple[Reading, ...]) -> str:
    """The readings of one sample, one line per latent."""
    return "\n".join(
        f"    latent {number}: "
        + ", ".join(f"{token.text!r} {token.probability:.1%}" for token in reading)
        for number, reading in enumerate(readings, start=1)
    )
