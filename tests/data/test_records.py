"""Records as text: parts at the places told, the last step left out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kava.data import Record, Template

words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=12)


@given(words, st.lists(words, max_size=4), words, st.booleans())
def test_the_parts_stand_where_they_are_said_to(
    question: str, steps: list[str], answer: str, drop: bool
) -> None:
    record = Record(id="a", question=question, reasoning="\n".join(steps), answer=answer)
    template = Template(cue="#### ", drop_last_step=drop)
    text = template.render(record)
    assert text.text[: text.reasoning_start] == text.prompt == question.strip() + "\n"
    written = template.written_reasoning(record)
    assert text.text[text.reasoning_start : text.answer_start] == (
        written + "\n" if written else ""
    )
    assert text.text[text.answer_start : text.value_start] == "#### "
    assert text.text[text.value_start :] == answer.strip()


def test_the_last_step_is_left_out() -> None:
    record = Record(id="a", question="?", reasoning="1+1=2\n\n 2+1=3 \n3+1=4\n", answer="4")
    assert record.steps == ("1+1=2", "2+1=3", "3+1=4")
    assert Template().written_reasoning(record) == "1+1=2\n\n 2+1=3"
    assert Template(drop_last_step=False).written_reasoning(record) == record.reasoning.strip()
    one = Record(id="a", question="?", reasoning="dbca", answer="dbca", step_separator=" ")
    assert Template().written_reasoning(one) == ""
    two = Record(id="a", question="?", reasoning="dbca acbd", answer="acbd", step_separator=" ")
    assert Template().written_reasoning(two) == "dbca"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_what_is_kept_is_kept_as_it_is_written(end: str) -> None:
    code = f"def f(x):{end}    y = 2 * x{end}{end}    return y {end}f(2) = 4"
    record = Record(id="a", question="?", reasoning=code, answer="4")
    assert record.steps == ("def f(x):", "y = 2 * x", "return y", "f(2) = 4")
    assert Template().written_reasoning(record) == code.removesuffix(f" {end}f(2) = 4")


def test_a_separator_of_line_breaks_divides_at_as_many_of_any_kind() -> None:
    text = "one\r\nstill one\r\n\r\ntwo\n\nthree\r\rfour"
    record = Record(id="a", question="?", reasoning=text, answer="4", step_separator="\n\n")
    assert record.steps == ("one\r\nstill one", "two", "three", "four")
    empty = Record(id="a", question="?", reasoning=text, answer="4", step_separator="")
    with pytest.raises(ValueError, match="step_separator='' divides no steps"):
        empty.steps  # noqa: B018


def test_a_record_is_named_by_its_place_where_it_has_one() -> None:
    record = Record(id="a", question="?", reasoning="r", answer="4")
    assert record.named == "sample 'a'"
    placed = Record(id="a", question="?", reasoning="r", answer="4", where="a.csv, line 3, row 1")
    assert placed.named == "a.csv, line 3, row 1: sample 'a'"
    assert placed == record


def test_steps_that_do_not_state_the_answer_are_all_kept() -> None:
    record = Record(id="a", question="?", reasoning="1\n 2", answer="yes", states_answer=False)
    assert Template().written_reasoning(record) == "1\n 2"
    assert Template().written_steps(record) == ("1", "2")
    assert Template().render(record).text == "?\n1\n 2\n#### yes"


def test_the_student_may_have_its_own_question() -> None:
    record = Record(id="a", question="long?", student_question="short?", reasoning="r", answer="1")
    template = Template(question="Q: {question}\nA: ")
    assert template.render(record).prompt == "Q: long?\nA: "
    assert template.render(record).student_prompt == "Q: short?\nA: "


def test_text_with_braces_is_left_as_it_is() -> None:
    record = Record(id="a", question="{reasoning} {0}", reasoning="{question}", answer="{}")
    text = Template(drop_last_step=False, cue="{").render(record).text
    assert text == "{reasoning} {0}\n{question}\n{{}"


@pytest.mark.parametrize("bad", [{"question": "no hole"}, {"reasoning": "{reasoning}{reasoning}"}])
def test_a_template_without_its_placeholder_is_refused(bad: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="exactly once"):
        Template(**bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("question", "mark"),
    [
        ("Question: {question}\nAnswer:", "Question:"),
        ("Solve it.\n\n  Question: {question}\n", "Question:"),
        ("Q {question}\n", "Q "),
        ("### Instruction:\n{question}\n", "### Instruction:"),
        ("<|im_start|>user\n{question}<|im_end|>\n", "user\n"),
        # nothing that could be told from what a student writes
        ("{question}\n", None),
        ("- {question}\n", None),
        ("#### {question}\n", None),
        ("Q{question}\n", None),
        ("<|im_start|>{question}\n", None),
    ],
)
def test_what_begins_a_next_question(question: str, mark: str | None) -> None:
    marks = ("<|im_start|>", "<|im_end|>")
    assert Template(question=question).next_question(marks) == mark


def test_a_mark_that_a_student_writes_itself_begins_no_question() -> None:
    assert Template(question="So: {question}\n", cue="So: 5").next_question() is None
