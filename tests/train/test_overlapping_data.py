"""Questions that training and evaluation share: refused where they are used, else warned of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kava.models.load import load_tokenizer
from kava.study.plan import DataPlan
from kava.study.questions import test_records as questions_of_the_test
from kava.train.build import build_run
from kava.train.config import TrainConfig
from kava.train.data import load_data, read_data
from train.runs import small


def write(path: Path, *questions: str) -> str:
    rows = [
        {"question": question, "reasoning": "It is so.\nIt is one.", "answer": "1"}
        for question in questions
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def config(folder: Path, test: list[str], eval_size: int) -> TrainConfig:
    train = write(folder / "train.jsonl", *(f"What is {n:,} + 1?" for n in (1000, 2000, 3000)))
    return small(
        folder / "run", model_name="kava/tiny-gpt2", dataset_name=train, target_len=1,
        eval_dataset_name=write(folder / "test.jsonl", *test), eval_size=eval_size,
        max_length=256, keep_short=True, max_new_tokens=8,
    )  # fmt: skip


def test_a_question_in_both_is_refused_in_any_spelling(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"share 1 questions \(train-1 = test-0\): leave them out"):
        read_data(config(tmp_path, ["what is 2000+1", "And 5 + 1?"], eval_size=2))


def test_one_behind_those_that_are_used_is_warned_of(tmp_path: Path) -> None:
    test = ["And 5 + 1?", "what is 2000+1", "And 6 + 1?"]
    settings = config(tmp_path, test, eval_size=1)
    train, held_out = read_data(settings)
    assert (len(train), len(held_out)) == (3, 1)
    (notice,) = load_data(settings, load_tokenizer("kava/tiny-gpt2")).notices
    assert notice.startswith(
        f"1 of the 2 questions of {tmp_path}/test.jsonl behind the first 1 are in the training "
        f"data too (test-1): the score on them says nothing of others"
    )
    assert build_run(settings).start.notices == (notice,)


def test_the_test_of_a_study_is_compared_with_what_a_run_trains_on(tmp_path: Path) -> None:
    settings = config(tmp_path, ["And 5 + 1?", "And 6 + 1?", "what is 2000+1"], eval_size=1)
    data = DataPlan(
        train=settings.dataset_name, test=str(settings.eval_dataset_name), curve_items=1
    )
    train, _ = read_data(settings)
    assert len(questions_of_the_test(settings, data, train[:1])) == 2
    with pytest.raises(ValueError, match=r"train and test share 1 questions \(train-1 = test-2\)"):
        questions_of_the_test(settings, data, train)
