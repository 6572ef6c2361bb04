"""The columns of the largest batch that a configuration trains on, from its data alone."""

from __future__ import annotations

from collections.abc import Sequence

from kava.data.encoded import Encoded
from kava.profile.shapes import Widths
from kava.train.config import TrainConfig
from kava.train.data import load_data
from kava.train.limits import check_models, fit_data
from kava.train.longest import longest
from kava.train.models import build_teacher_tokenizer, build_teacher_tokenizers, build_tokenizer


def largest_batch(config: TrainConfig) -> Widths:
    """Read a configuration's data with its tokenizers, and measure its longest samples.

    Raises:
        ValueError, OSError: data, tokenizers or models' configurations that cannot be read.
    """
    readers = check_models(config)
    tokenizer = build_tokenizer(config)
    theirs = build_teacher_tokenizer(config, tokenizer)
    several = build_teacher_tokenizers(config, tokenizer)
    data = fit_data(config, load_data(config, tokenizer, theirs, several), tokenizer, readers)
    return widths_of(longest(data.train, config.batch_size))


def widths_of(samples: Sequence[Encoded]) -> Widths:
    """The columns of a batch of these samples.

    Example:
        >>> widths_of(samples)
        Widths(batch=2, prompt=41, reasoning=24, answer=6, teacher=(71,))
    """
    sides = max(len(sample.sides) for sample in samples)
    teachers = range(sides or 1)
    return Widths(
        batch=len(samples),
        prompt=max(sample.prompt_length for sample in samples),
        reasoning=max(sample.answer_start - sample.prompt_length for sample in samples),
        answer=max(len(sample.input_ids) - sample.answer_start for sample in samples),
        teacher=tuple(max(_columns(sample, n) for sample in samples) for n in teachers),
    )


def _columns(sample: Encoded, n: int) -> int:
    """The tokens that a teacher reads of a sample."""
    text = sample.teacher
    if sample.sides:
        side = sample.sides[n]
        text = side.own or side.text
    return len(sample.input_ids if text is None else text.encoded.input_ids)
