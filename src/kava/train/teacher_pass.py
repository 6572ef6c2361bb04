"""What one pass of a teacher over its text leaves behind."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from kava.losses import hidden_at
from kava.trace import KVTrace


class TeacherPass(NamedTuple):
    """A teacher's pass over its text."""

    logits: Tensor
    """[B, N, V], at the columns that predict reasoning and answer."""
    labels: Tensor
    answer_labels: Tensor
    writes: bool
    """Whether the text is trained, so that there are logits."""
    hidden_states: Any
    cache: Any
    trace: KVTrace
    codi_columns: Tensor

    def before_answer(self) -> Tensor:
        """[B, L+1, W]: the hidden states at the token before the answer's value."""
        return hidden_at(self.hidden_states, self.codi_columns)
