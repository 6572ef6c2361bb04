"""The similarity of the layers of two models, on texts that both read.

Shapes: B batch, T_s positions of the student's text, L_s/L_t layers of student and teacher.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedModel

from kava.align import StreamingCKA
from kava.data.collate import Batch
from kava.fit.paired_traces import paired_traces
from kava.models.traceable import check_traceable
from kava.store.teacher import StoredTeacher
from kava.trace import Segment


class LayerSimilarity(NamedTuple):
    """Debiased linear CKA of each student layer with each teacher layer."""

    keys: Tensor
    """[L_s, L_t] float64, of keys with their rotary embedding taken out."""
    values: Tensor
    """[L_s, L_t] float64."""
    num_positions: int
    """The number of tokens that were compared."""

    @property
    def mean(self) -> Tensor:
        """[L_s, L_t], of keys and values: a layer's keys and values have one map."""
        return (self.keys + self.values) / 2


def measure_layers(
    teacher: PreTrainedModel | StoredTeacher,
    student: PreTrainedModel,
    batches: Iterable[Batch],
    *,
    token_alignment: str = "hard",
    chunk: int | None = None,
) -> LayerSimilarity:
    """Compare all layers of two models over the reasoning of texts that both read.

    Reasoning tokens are what training compares; keys are compared un-rotated, since rotation by
    position would make them alike or unlike by frequency. One forward of each model a batch;
    memory does not grow with the number of batches.

    Args:
        teacher: reads the batch's `teacher` part where there is one, as in `paired_traces`.
        student: reads the batch's text.
        batches: as the collator makes them.
        token_alignment: "hard" or "soft", where the tokenizers differ.
        chunk: columns of a forward; None: whole texts.

    Raises:
        ValueError: a model whose layers hold no keys and values, no batches, or fewer than 4
            reasoning tokens in all.

    Example:
        >>> measure_layers(teacher, student, batches).mean
    """
    for model in (teacher, student):
        if not isinstance(model, StoredTeacher):
            check_traceable(model)
    keys = values = None
    reasoning = (int(Segment.REASONING),)
    for pair in paired_traces(
        teacher,
        student,
        batches,
        token_alignment=token_alignment,
        segments=reasoning,
        chunk=chunk,
    ):
        if keys is None or values is None:
            layers = pair.student.num_layers, pair.teacher.num_layers
            keys, values = StreamingCKA(*layers), StreamingCKA(*layers)
        keys.update(pair.student.keys, pair.teacher.keys, pair.mask)
        values.update(pair.student.values, pair.teacher.values, pair.mask)
    if keys is None or values is None:
        raise ValueError("there are no samples to compare layers on")
    return LayerSimilarity(keys.matrix(), values.matrix(), keys.num_rows)
