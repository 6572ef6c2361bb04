"""The pictures of an aligner between two models: its layers, its heads, one text's tokens."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kava.align.heads.head_norms import head_norms
from kava.data.paired_tokens import paired_tokens
from kava.pictures.alignment import (
    head_map_picture,
    layer_map_picture,
    time_map_picture,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from kava.align import MapProjectionAligner
    from kava.align.tokens.overlap import TokenAlignmentMode
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
