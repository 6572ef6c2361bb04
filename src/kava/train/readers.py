"""How each teacher of a run reads its samples: with which tokenizer, and under which prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from transformers import PreTrainedTokenizerBase

from kava.data.chat import Chats
from kava.data.records import Record, Template
from kava.models.tokenizers import reads_alike
from kava.train.teacher_names import TEACHER_CHATS, TeacherName

Reader = tuple[str, PreTrainedTokenizerBase | None, Template]
Readers = Sequence[Reader]


def reader_of(
    one: TeacherName,
    theirs: PreTrainedTokenizerBase,
    tokenizer: PreTrainedTokenizerBase,
    plain: Template,
    template: Template,
    records: Sequence[Record],
) -> Reader:
    """Label, tokenizer (None where it reads the student's tokens) and template of a teacher.

    Args:
        one: the teacher.
        theirs: its tokenizer.
        tokenizer: the student's.
        plain: the data's template, outside any chat.
        template: the student's.
        records: what both read.
    """
    chats = Chats(theirs, one.chat, one.model, TEACHER_CHATS)
    own = chats.template(plain if one.prompt is None else replace(plain, question=one.prompt))
    chats.check_replies(records, own)
    texts = (template.render(record).text for record in records)
    alike = own == template and (theirs is tokenizer or reads_alike(tokenizer, theirs, texts))
    return one.label, None if alike else theirs, own
