"""Check gold answers: each must be judged correct in its own training text.

A student learns to write the cue and the gold answer. If the judge does not find the answer in that
same text, every student is wrong on the sample, and the accuracy is meaningless.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from kava.data.answers import Judge, find_cue, is_number, judge, normalize_answer
from kava.data.closed_answers import polarity
from kava.data.records import Record, Template


def check_golds(records: Sequence[Record], template: Template) -> None:
    """Refuse records whose gold answer is not judged correct in their own text.

    Records with a missing part or without an answer are not checked here.

    Args:
        records: the records as read.
        template: the template that turns them into text.

    Raises:
        ValueError: names the first such record by its place, and the fix.

    Example:
        >>> record = Record(id="a", question="1+1?", reasoning="1+1=2", answer="2")
        >>> check_golds([record], Template())
    """
    for record in records:
        if record.missing or not record.answer.strip():
            continue
        problem = _problem(record, template)
        if problem is not None:
            raise ValueError(f"{record.named}: {problem}")


def _problem(record: Record, template: Template) -> str | None:
    if template.cue.strip() and find_cue(record.reasoning + "\n", template.cue) is not None:
        return (
            f"its reasoning holds {template.cue.strip()!r}, behind which the answer is looked for: "
            f"write it otherwise there, or take the row out (--overflow skip leaves out what is "
            f"too long or empty, and not this)"
        )
    choices = tuple(record.meta.get("choices", ()))
    return _problem_of(record.answer.strip(), template.cue, choices, record.meta.get("judge"))


@lru_cache(maxsize=4096)
def _problem_of(answer: str, cue: str, choices: tuple[str, ...], own: Judge | None) -> str | None:
    """The problem of a gold answer, cached because many records share one."""
    first, *others = answer.splitlines()
    alone = not choices and own is None
    if others and alone and (is_number(first) or polarity(first) is not None):
        return (
            f"its answer goes on behind {first!r} ({answer!r:.60}): leave the answer alone there, "
            f"for whoever answers {first!r} would be judged wrong"
        )
    if not choices and not normalize_answer(answer):
        return f"its answer {answer!r:.60} has no visible character; mend it"
    if judge(cue + answer, answer, cue, choices, own).correct:
        return None
    kind = f"none of the letters of its {len(choices)} choices" if choices else "not found there"
    return f"its answer {answer!r:.60} is judged wrong in its own text ({kind}); mend it"
