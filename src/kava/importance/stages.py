"""Which later tokens count when a position is judged by what the teacher cannot predict without it.

Written reasoning is full of forms that only its own line needs: the operator that announces a
result, the mark that ends a step. A student that reasons in latents writes none of them. So the
default counts, for a position, the tokens of *later steps* and of the answer's value; everything
that the teacher writes later can be asked for instead.

Shapes: T tokens of a sample.
"""

from __future__ import annotations

import numpy as np

from kava.data.encoded import Encoded
from kava.data.records import Record, Template
from kava.names import REACHES, Reach

UNCOUNTED = -1


def token_stages(record: Record, encoded: Encoded, template: Template, reach: Reach) -> np.ndarray:
    """The stage of every token: a position is judged by the tokens of stages after its own.

    Args:
        record: the record that `encoded` was made of.
        encoded: a sample.
        template: how the record became text.
        reach: "later_steps": reasoning tokens have the number of their step, the answer's value
            and the end of sequence the number of steps, and the cue, the same in all samples, is
            not counted. "all": every token has its own index.

    Returns:
        [T] int64; −1 at tokens that are never counted.

    Raises:
        ValueError: an unknown reach, or a sample of another record or without offsets.

    Example:
        >>> token_stages(records[0], encoded[0], template, "later_steps")
        array([-1, -1, -1, -1, -1, -1, -1, -1, -1,  0,  0,  0,  0,  0,  1,  1,  1,
                1,  1,  2,  2,  2,  2,  2, -1,  3,  3])
    """
    if reach not in REACHES:
        raise ValueError(f"reach={reach!r} is unknown; choose from {', '.join(REACHES)}")
    index = np.arange(len(encoded.input_ids))
    if reach == "all":
        return index
    if record.id != encoded.id:
        raise ValueError(f"record {record.id!r} and encoded sample {encoded.id!r} differ")
    if len(encoded.offsets) != len(index):
        raise ValueError(
            f"sample {encoded.id!r} has {len(encoded.offsets)} offsets for {len(index)} tokens; "
            f"encode it with encode_records"
        )
    text, starts = template.render(record), []
    place = text.reasoning_start
    for step in template.written_steps(record):
        place = text.text.index(step, place)
        starts.append(place)
        place += len(step)
    # a token that runs over a boundary belongs to the step in which it ends
    steps = np.searchsorted(starts, encoded.offsets[:, 1] - 1, side="right") - 1
    stages = np.where(index < encoded.answer_start, steps.clip(min=0), UNCOUNTED)
    stages[: encoded.prompt_length] = UNCOUNTED
    stages[encoded.value_start :] = len(starts)
    return stages
