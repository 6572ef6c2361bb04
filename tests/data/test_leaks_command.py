"""`kava leaks`: counts, examples, an exit code, and every wrong question in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kava.cli import run
from kava.commands.leaks import main
from kava.data.sources import load_questions
from kava.data_settings import RowSettings
from one_line import refusal

QUESTIONS = [f"How many of the {n:,} pens are left?" for n in (1000, 2000, 3000, 4000)]


def write(path: Path, *rows: dict[str, object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.fixture
def train(tmp_path: Path) -> str:
    """Rows in the form of a training set whose answers are no records of ours."""
    rows = [{"instruction": question, "output": "A: #### so\nit is"} for question in QUESTIONS]
    return write(tmp_path / "train.jsonl", *rows, rows[1])


@pytest.fixture
def test(tmp_path: Path) -> str:
    texts = (
        "how many of the 2000 pens are left",
        "And now?",
        "How many of the 4000.0 pens are left",
    )
    return write(tmp_path / "test.jsonl", *({"question": text, "answer": 1} for text in texts))


FIELDS = ["--question_field", "instruction", "--test_question_field", "question"]


def test_shared_questions_are_counted_and_shown(
    train: str, test: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(main, [train, test, *FIELDS, "--examples", "1"]) == 1
    printed = capsys.readouterr()
    assert printed.err == ""
    assert printed.out.splitlines() == [
        f"train  {train}, train: 5 rows",
        f"test   {test}, test: 3 rows",
        "leaks  2 of the 3 rows (66.7 %) have their question in the training data, in 3 rows of it",
        "       test-0 = train-1: how many of the 2000 pens are left",
        "       … and 1 more questions",
    ]


def test_json_has_every_shared_question(
    train: str, test: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(main, [train, test, *FIELDS, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["train"] == {"name": train, "split": "train", "num_rows": 5}
    (one,) = found["tests"]
    counts = {name: one[name] for name in ("num_rows", "num_leaked", "num_train_rows")}
    assert counts == {"num_rows": 3, "num_leaked": 2, "num_train_rows": 3}
    assert [leak["train_ids"] for leak in one["leaks"]] == [["train-1", "train-4"], ["train-3"]]
    assert [leak["test_ids"] for leak in one["leaks"]] == [["test-0"], ["test-2"]]


def test_no_shared_question_is_exit_code_0(
    train: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clean = write(tmp_path / "clean.jsonl", {"instruction": "And now?"})
    argv = [train, clean, "kava/shell-game?num_test=5", "--question_field", "instruction"]
    assert run(main, argv) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("leaks")] == ["leaks  none"] * 2
    assert lines[1] == f"test   {clean}, test: 1 row"


def test_the_splits_of_a_task_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("train", "test"):
        rows = ({"question": f"{name} {n}?", "answer": f"so\n#### {n}"} for n in range(3))
        write(tmp_path / f"{name}.jsonl", *rows)
    task = f"gsm8k:{tmp_path}"
    assert run(main, [task, task]) == 0
    assert run(main, [task, task, "--test_split", "train"]) == 1
    assert "3 of the 3 rows (100.0 %)" in capsys.readouterr().out


def test_a_raw_text_has_its_question_before_the_marker(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"story": "Two pens? <think>two</think> 2"})
    rows = RowSettings(text_field="story", reasoning_triggers=["<think>"])
    assert [record.question for record in load_questions(path, rows=rows)] == ["Two pens?"]


@pytest.mark.parametrize(
    ("argv", "complaint"),
    [
        (["{train}"], "alone has nothing to be compared with"),
        (["{train}", "{test}"], "train.jsonl, line 1 has no field 'question' (it has 'instr"),
        (["{train}", "{test}", "--question_field", "instruction"], "test.jsonl, line 1 has no"),
        (["nowhere.jsonl", "{test}"], "'nowhere.jsonl' is neither a file nor a known name"),
        (["{test}", "gsm8k"], "gsm8k cannot be loaded from the Hugging Face hub"),
        (["{test}", "kava/shell-game?moves=3"], "has no option 'moves'"),
        (["{test}", "{test}", "--examples", "-1"], "--examples -1 must be from 0"),
    ],
)
def test_wrong_asking_is_one_line(
    argv: list[str],
    complaint: str,
    train: str,
    test: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [word.format(train=train, test=test) for word in argv]
    assert complaint in refusal(main, words, capsys)
