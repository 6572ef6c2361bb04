"""Gold answers that can be right: each is judged in its own text where it is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kava.data import load_records
from kava.data.answers import judge
from kava.data.gold import check_golds
from kava.data.records import Record, Template
from kava.evaluate.data import evaluation_records

GOOD = {"question": "1+1?", "reasoning": "1+1\n=2", "answer": "2"}


def write(path: Path, *rows: dict[str, object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        # the answer mark is followed by another line
        ({"question": "9*2?", "answer": "9 * 2\n#### 18\nThat is all."}, "goes on behind '18'"),
        ({**GOOD, "answer": "18\neggs"}, "goes on behind '18'"),
        ({**GOOD, "answer": "yes\nbecause it rains"}, "goes on behind 'yes'"),
        ({**GOOD, "answer": "\u200b"}, "has no visible character"),
        (
            {**GOOD, "reasoning": "#### Step 1\n1+1"},
            "its reasoning holds '####', .* take the row out .--overflow skip leaves out what is "
            "too long or empty, and not this",
        ),
    ],
)
def test_a_gold_answer_that_cannot_be_right_is_named_by_file_and_line(
    row: dict[str, object], problem: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "rows.jsonl", GOOD, row)
    for load in (
        lambda: load_records(path),
        lambda: load_records(f"mix:{path}=1"),
        lambda: evaluation_records({}, dataset_name=path),
    ):
        with pytest.raises(ValueError, match=problem) as error:
            load()
        assert f"{path}, line 2: sample 'rows-1'" in str(error.value)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "answer",
    ["-1/2", "10²", "C++", "?", "3,14", "(1, 2)", "Wash it.\nDry it.", "18 eggs", "#### 5"],
)
def test_what_can_be_right_is_loaded_and_judged_right(answer: str, tmp_path: Path) -> None:
    (record,) = load_records(write(tmp_path / "rows.jsonl", {**GOOD, "answer": answer}))
    text = Template(drop_last_step=False).render(record)
    for start in (text.reasoning_start, text.answer_start):
        assert judge(text.text[start:], record.answer, "#### ").correct


def test_the_letter_of_no_choice_is_named() -> None:
    record = Record(id="a", question="?", reasoning="", answer="C", meta={"choices": ("x", "y")})
    with pytest.raises(ValueError, match=r"sample 'a': its answer 'C' .* letters of its 2 choices"):
        check_golds([record], Template())


@given(st.text(max_size=20), st.text(max_size=20))
def test_an_accepted_gold_answer_is_right_in_its_own_text(reasoning: str, answer: str) -> None:
    record = Record(id="a", question="?", reasoning=reasoning, answer=answer)
    try:
        check_golds([record], Template())
    except ValueError:
        return
    text = Template(drop_last_step=False).render(record)
    for start in (text.reasoning_start, text.answer_start):
        right = judge(text.text[start:], record.answer, "#### ").correct
        assert right == bool(answer.strip())


def test_an_empty_gold_answer_is_refused_by_evaluation_or_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", GOOD, {**GOOD, "question": "2+2?", "answer": " "})
    with pytest.raises(ValueError, match="line 2: sample 'rows-1' has an empty answer"):
        evaluation_records({}, dataset_name=path)
    run = {"config": {"overflow": "skip"}}
    data = evaluation_records(run, dataset_name=path)
    assert [record.id for record in data.records] == ["rows-0"]
    assert "1 records without their segments are left out (rows-1)" in str(data.warning)


def test_blanks_around_a_gold_answer_do_not_count() -> None:
    for gold in ("\\\r", " 7 ", "\t\\frac{1}{2}\n"):
        assert judge("#### " + gold.strip(), gold, "#### ").correct
