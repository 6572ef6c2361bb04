"""Records (question, written reasoning, answer) and the template that turns them into text.

A record's text is one string, prompt + reasoning + cue + answer, with the exact character index at
which each part begins; the segments of tokens follow from these indices.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, NamedTuple


@dataclass(frozen=True, kw_only=True)
class Record:
    """One sample as text.

    Example:
        >>> Record(id="a", question="1+1, then +1?", reasoning="1+1=2\\n2+1=3", answer="3").steps
        ('1+1=2', '2+1=3')
    """

    id: str = field(metadata={"help": "stable name of the sample, used in messages and results"})
    question: str = field(metadata={"help": "what the model is asked"})
    reasoning: str = field(metadata={"help": "the written reasoning, step after step"})
    answer: str = field(metadata={"help": "the answer's value, without a cue"})
    student_question: str | None = field(
        default=None, metadata={"help": "the student's own question, where it is not the teacher's"}
    )
    step_separator: str = field(
        default="\n", metadata={"help": "what stands between two reasoning steps"}
    )
    states_answer: bool = field(
        default=True,
        metadata={"help": "whether the last reasoning step may state the answer"},
    )
    missing: tuple[str, ...] = field(
        default=(),
        metadata={"help": "parts that were not found in a raw text; such a record is not used"},
    )
    meta: Mapping[str, Any] = field(
        default_factory=dict, hash=False, metadata={"help": "what a task keeps beside the text"}
    )
    where: str = field(
        default="",
        compare=False,
        metadata={"help": "file and line that it was read from, for messages"},
    )

    @property
    def steps(self) -> tuple[str, ...]:
        """The reasoning steps, without blank ones."""
        parts = _separator(self.step_separator).split(self.reasoning)
        return tuple(part.strip() for part in parts if part.strip())

    @property
    def without_last_step(self) -> str:
        """The reasoning up to its last step, as written."""
        text, stop, met = self.reasoning, len(self.reasoning), False
        found = [match.span() for match in _separator(self.step_separator).finditer(text)]
        for start, end in [*reversed(found), (0, 0)]:
            if text[end:stop].strip():
                if met:
                    return text[:stop].strip()
                met = True
            stop = start
        return ""

    @property
    def named(self) -> str:
        """The name of the sample in messages: its place, if known, and its id."""
        return f"{self.where}: sample {self.id!r}" if self.where else f"sample {self.id!r}"


@cache
def _separator(text: str) -> re.Pattern[str]:
    """Pattern of a step separator; a line break in it matches LF, CR LF or CR."""
    if not text:
        raise ValueError("step_separator='' divides no steps; give what stands between them")
    return re.compile(r"(?>\r\n|\r|\n)".join(map(re.escape, text.split("\n"))))


class Rendered(NamedTuple):
    """A record as text, with the character index in `text` at which each part begins."""

    text: str
    prompt: str
    student_prompt: str
    reasoning_start: int
    answer_start: int
    value_start: int


@dataclass(frozen=True, kw_only=True)
class Template:
    """Turns a record into text; the end-of-sequence token is added when it is encoded.

    The last reasoning step usually states the answer. KaVa (arXiv 2510.02312) removes it from the
    reasoning, and reports a loss of 5 to 6 points if it is kept: the student would learn to read
    the answer from the last kept position. A record whose steps do not state the answer
    (`states_answer`, as for StrategyQA's facts) keeps all steps.

    Raises:
        ValueError: a part that is not text, or lacks its placeholder.

    Example:
        >>> record = Record(id="a", question="1+1?", reasoning="1+1=2", answer="2")
        >>> Template(drop_last_step=False).render(record).text
        '1+1?\\n1+1=2\\n#### 2'
    """

    question: str = field(
        default="{question}\n", metadata={"help": "the prompt; {question} is filled in"}
    )
    reasoning: str = field(
        default="{reasoning}\n", metadata={"help": "the reasoning; {reasoning} is filled in"}
    )
    cue: str = field(default="#### ", metadata={"help": "what stands before the answer's value"})
    drop_last_step: bool = field(
        default=True, metadata={"help": "leave the last reasoning step out of the text"}
    )

    def __post_init__(self) -> None:
        for name in ("question", "reasoning", "cue"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"template {name}={getattr(self, name)!r:.40} must be text")
        if not isinstance(self.drop_last_step, bool):
            raise ValueError(f"drop_last_step={self.drop_last_step!r:.40} must be true or false")
        for name in ("question", "reasoning"):
            part, hole = getattr(self, name), "{" + name + "}"
            if part.count(hole) != 1:
                raise ValueError(f"template {name}={part!r} must hold {hole} exactly once")

    def prompt(self, question: str) -> str:
        """The text of the prompt that a model should answer."""
        return self.question.replace("{question}", question.strip())

    def next_question(self, marks: Iterable[str] = ()) -> str | None:
        """The mark of a next question at the start of a line; None if nothing marks one.

        It is the text before `{question}` on its line, or else the line before it. Text without a
        letter, or text that a student writes itself, is not used as a mark.

        Args:
            marks: texts of special tokens, which decoded text does not show.

        Example:
            >>> Template(question="Question: {question}\\nAnswer:").next_question()
            'Question:'
            >>> Template().next_question() is None
            True
        """
        before = self.question.partition("{question}")[0]
        for mark in marks:
            before = before.replace(mark, "")
        lines = [line for line in before.splitlines(keepends=True) if line.strip()]
        mark = lines[-1].lstrip() if lines else ""
        bare = mark.rstrip()
        # a mark that ends with a letter, such as "Q", must not match a longer word
        mark = mark[: len(bare) + 1] if bare[-1:].isalnum() else bare
        if not any(character.isalpha() for character in mark) or mark[-1:].isalnum():
            return None
        return None if mark in self.reasoning + self.cue else mark

    def written_steps(self, record: Record) -> tuple[str, ...]:
        """The reasoning steps that are written into the text."""
        return record.steps[:-1] if self._drops_last_of(record) else record.steps

    def written_reasoning(self, record: Record) -> str:
        """The reasoning in the text; "" if no step is left."""
        if not self._drops_last_of(record):
            return record.reasoning.strip()
        return record.without_last_step

    def render(self, record: Record) -> Rendered:
        """Write a record as text, with the index at which each part begins."""
        prompt = self.prompt(record.question)
        written = self.written_reasoning(record)
        # a record without reasoning gets no empty line
        reasoning = self.reasoning.replace("{reasoning}", written) if written else ""
        answer_start = len(prompt) + len(reasoning)
        return Rendered(
            text=prompt + reasoning + self.cue + record.answer.strip(),
            prompt=prompt,
            student_prompt=prompt
            if record.student_question is None
            else self.prompt(record.student_question),
            reasoning_start=len(prompt),
            answer_start=answer_start,
            value_start=answer_start + len(self.cue),
        )

    def _drops_last_of(self, record: Record) -> bool:
        return self.drop_last_step and record.states_answer
