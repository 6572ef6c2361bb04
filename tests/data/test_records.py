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
    assert Template().written_reasoning(record) == "1+1=2\n2+1=3"
    assert Template(drop_last_step=False).written_reasoning(record) == record.reasoning.strip()
    one = Record(id="a", question="?", reasoning="dbca", answer="dbca", step_separator=" ")
    assert Template().written_reasoning(one) == ""
    two = Record(id="a", question="?", reasoning="dbca acbd", answer="acbd", step_separator=" ")
    assert Template().written_reasoning(two) == "dbca"


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
