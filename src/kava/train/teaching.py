"""What teaches: a frozen model, or what one left behind in a store."""

from __future__ import annotations

from transformers import PreTrainedModel

from kava.models.capture import check_attention
from kava.models.rotary import rotary_of
from kava.rope import Rotary
from kava.store.teacher import StoredTeacher

Teacher = PreTrainedModel | StoredTeacher


def freeze(teacher: Teacher) -> Teacher:
    """A teacher that no step trains."""
    if isinstance(teacher, StoredTeacher):
        return teacher
    teacher.eval().requires_grad_(False)
    return teacher


def rotary_of_teacher(teacher: Teacher) -> Rotary | None:
    """A teacher's rotary embedding; None where its positions are learned.

    Raises:
        ValueError: as `rotary_of`.
    """
    return teacher.rotary if isinstance(teacher, StoredTeacher) else rotary_of(teacher)


def check_attention_of(teacher: Teacher, flag: str) -> None:
    """Refuse a teacher whose attention a flag reads and that cannot be rebuilt.

    A stored one was checked when it was extracted.

    Raises:
        ValueError: as `check_attention`.
    """
    if not isinstance(teacher, StoredTeacher):
        check_attention(teacher, flag)
