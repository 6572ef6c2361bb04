"""What latents read as, for the eye: the likeliest tokens of each, with their probabilities.

A latent is made of a hidden state; the model's own output head turns that state into a
distribution over tokens: what the student would have written in the latent's place.

Shapes: B batch, M latents, V vocabulary.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from kava.student.latent import LatentStudent, embedding_weight


class ReadToken(NamedTuple):
    """A token that a latent may be read as, and how likely that is."""

    text: str
    probability: float


Reading = tuple[ReadToken, ...]
"""The likeliest tokens of one latent, the likeliest first."""


def check_readable(model: PreTrainedModel, name: str, top_k: int) -> None:
    """Refuse to read latents where there are none, before anything is answered.

    Args:
        model: a student.
        name: what it is called in messages.
        top_k: how many tokens are asked for.

    Raises:
        ValueError: a model that writes its reasoning, latents that are made of no hidden state,
            or a `top_k` that is not from 1 to the size of the vocabulary.
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
        top_k: how many tokens for each latent.

    Returns:
        For each of the B samples, M readings.

    Example:
        >>> output = student.generate(prompt_ids, readings=True)
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
    """The readings of one sample, a line for each latent."""
    return "\n".join(
        f"    latent {number}: "
        + ", ".join(f"{token.text!r} {token.probability:.1%}" for token in reading)
        for number, reading in enumerate(readings, start=1)
    )
