"""The pictures of an aligner between two models: its layers, its heads, one text's tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from kava.align_pictures import (
    head_map_picture,
    head_norms,
    layer_map_picture,
    time_map_picture,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kava.align import MapProjectionAligner
    from kava.align.overlap import TokenAlignmentMode
    from kava.data.encoded import Encoded

Draw = Callable[..., "Figure"]
"""A picture, drawn when it is called; `narrow=True` for small screens."""


def draw_aligner(aligner: MapProjectionAligner) -> dict[str, Draw]:
    """Its layer map, and how much of each head goes into each.

    Example:
        >>> figure = draw_aligner(aligner)["heads"]()
    """
    norms = {part: head_norms(aligner.projectors()[part]) for part in ("keys", "values")}
    source, target = aligner.direction.split("_to_")
    return {
        "layers": partial(layer_map_picture, aligner.layer_weights.tolist()),
        "heads": partial(head_map_picture, norms, (target, source)),
    }


def draw_tokens(sample: Encoded, text: str, mode: TokenAlignmentMode) -> Draw | None:
    """One text in both models' tokens; None where both read the same.

    Args:
        sample: with what its teacher reads.
        text: the sample's, whose characters the tokens' offsets count.
        mode: how the teacher's tokens are read.
    """
    paired = paired_tokens(sample, text, mode)
    if paired is None:
        return None
    reasoning = range(sample.prompt_length, sample.answer_start)
    return partial(time_map_picture, *paired, reasoning)


class PairedTokens(NamedTuple):
    """One text in the tokens of two models."""

    student: list[str]
    teacher: list[str]
    weights_ST: list[list[float]]
    """How much of each of the student's tokens is each of the teacher's."""


def paired_tokens(sample: Encoded, text: str, mode: TokenAlignmentMode) -> PairedTokens | None:
    """The tokens of `draw_tokens` and their weights; None where both models read the same."""
    if sample.teacher is None:
        return None
    # the last token, the end of the sequence, is no text
    ours, theirs = (
        token_labels(text, part.offsets[:-1].tolist()) for part in (sample, sample.teacher.encoded)
    )
    weights_ST = sample.teacher.alignment.dense(mode)[:-1, :-1].tolist()
    return PairedTokens(ours, theirs, weights_ST)


def token_labels(text: str, offsets: Sequence[Sequence[int]]) -> list[str]:
    """What each token of a text stands for.

    SentencePiece puts a blank in front of a text. Where that is a token of its own, its offsets
    are those of the first character, which has then more tokens than bytes.

    Example:
        >>> token_labels("Once", [(0, 1), (0, 1), (1, 4)])
        [' ', 'O', 'nce']
    """
    labels = [text[start:end] for start, end in offsets]
    first = next((at for at, label in enumerate(labels) if label), len(labels))
    alike = sum(tuple(span) == tuple(offsets[first]) for span in offsets[first:])
    if alike > 1 and len(labels[first]) == 1 and alike > len(labels[first].encode()):
        labels[first] = " "
    return labels
