"""Which records a student is scored on."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from kava.data.sources import load_records
from kava.data.splits import data_hash
from kava.data_settings import RowSettings
from kava.evaluate.data import evaluation_records
from kava.models.load import load_tokenizer
from kava.train.config import TrainConfig
from kava.train.data import load_data

GAME = "kava/shell-game?num_moves=3&num_train=50&num_test=20"


def settings(config: TrainConfig) -> dict[str, Any]:
    return {"config": asdict(config), "data_hash": "another"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.jsonl"
    rows = [
        {"id": f"q{i}", "query": f"{i}+1?", "reasoning": f"{i}+1\n={i + 1}", "answer": i + 1}
        for i in range(20)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_test_split_of_what_it_was_trained_on() -> None:
    data = evaluation_records(settings(TrainConfig(dataset_name=GAME)))
    assert (data.dataset_name, data.split, data.warning) == (GAME, "test", None)
    assert data.records == load_records(GAME, split="test")
    assert data.data_hash == data_hash(data.records)


def test_the_runs_own_evaluation_data() -> None:
    config = TrainConfig(dataset_name="elsewhere", eval_dataset_name=GAME, eval_split="train")
    data = evaluation_records(settings(config))
    assert (data.dataset_name, data.split) == (GAME, "train")
    assert evaluation_records(settings(config), split="test").split == "test"


def test_the_part_of_a_file_that_the_run_set_apart(file: Path) -> None:
    config = TrainConfig(
        dataset_name=str(file), question_field="query", eval_size=6, seed=3, target_len=1
    )
    trained = load_data(config, load_tokenizer("kava/tiny-gpt2"))
    data = evaluation_records({"config": asdict(config), "data_hash": trained.hash})
    assert data.records == trained.eval_records
    assert (data.split, data.warning) == ("set apart", None)
    some = evaluation_records(settings(config), subset_size=2).records
    assert len(some) == 2
    assert {record.id for record in some} < {record.id for record in data.records}
    with pytest.raises(ValueError, match="subset_size=7 must be from 1 to the 6 records"):
        evaluation_records(settings(config), subset_size=7)


def test_scoring_the_training_records_is_said(file: Path) -> None:
    config = TrainConfig(dataset_name=str(file), question_field="query")
    assert "trained on these very records" in str(evaluation_records(settings(config)).warning)
    fields = {"question_field": "query"}
    records = load_records(str(file), rows=RowSettings(question_field="query"))
    said = {"data_hash": data_hash(records)}
    data = evaluation_records(said, dataset_name=str(file), fields=fields)
    assert "trained on these very records" in str(data.warning)
    said = {"data_hash": data_hash(records[1:])}
    assert evaluation_records(said, dataset_name=str(file), fields=fields).warning is None


def test_another_data_set_is_read_with_the_fields_of_the_run_or_others(file: Path) -> None:
    run = settings(TrainConfig(dataset_name=GAME, question_field="query"))
    data = evaluation_records(run, dataset_name=str(file), subset_size=3)
    assert len(data.records) == 3
    with pytest.raises(ValueError, match="has no field 'ask'"):
        evaluation_records(run, dataset_name=str(file), fields={"question_field": "ask"})


def test_a_model_that_was_not_trained_here_names_no_data() -> None:
    with pytest.raises(ValueError, match="pass --dataset_name"):
        evaluation_records({})


def test_questions_that_are_in_the_training_data_are_told(file: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    other = [{**row, "id": f"x{i}"} for i, row in enumerate(rows[:4])]
    other += [{**rows[0], "id": "y", "query": "new?"}]
    test = tmp_path / "test.jsonl"
    test.write_text("".join(json.dumps(row) + "\n" for row in other))
    config = TrainConfig(dataset_name=str(file), question_field="query")
    data = evaluation_records(settings(config), dataset_name=str(test))
    assert str(data.warning).startswith("4 of the 5 questions are in the training data too (x0, x1")
    new = {**rows[0], "id": "y", "query": "new?"}
    test.write_text(json.dumps(new) + "\n")
    assert evaluation_records(settings(config), dataset_name=str(test)).warning is None
    # of a file that was divided, the part that was set apart was not trained on
    divided = TrainConfig(dataset_name=str(file), question_field="query", eval_size=6, target_len=1)
    apart = load_data(divided, load_tokenizer("kava/tiny-gpt2")).eval_records
    test.write_text("".join(json.dumps(rows[int(r.id[1:])]) + "\n" for r in apart))
    assert evaluation_records(settings(divided), dataset_name=str(test)).warning is None
    gone = TrainConfig(dataset_name=str(tmp_path / "gone.jsonl"), question_field="query")
    told = evaluation_records(settings(gone), dataset_name=str(test)).warning
    assert "cannot be read here" in str(told)


def test_a_run_of_a_built_in_task_is_compared_with_other_data(tmp_path: Path) -> None:
    run = settings(TrainConfig(dataset_name=GAME))
    rows = [
        {"question": record.question, "reasoning": "a\nb", "answer": record.answer}
        for record in load_records(GAME)[:3]
    ]
    test = tmp_path / "test.jsonl"
    test.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = evaluation_records(run, dataset_name=str(test)).warning
    assert str(told).startswith("3 of the 3 questions are in the training data too")
    other = GAME.replace("num_train=50", "num_train=20")
    told = evaluation_records(run, dataset_name=other, split="train").warning
    assert str(told).startswith("20 of the 20 questions are in the training data too")
    assert evaluation_records(run, dataset_name=other).warning is None


@pytest.mark.shared
def test_the_leak_of_gsm8k_aug_is_told(shared: Path) -> None:
    config = TrainConfig(dataset_name=f"gsm8k:{shared}/data/gsm8k")
    name = f"gsm8k_aug:{shared}/data/gsm8k_aug"
    leak = evaluation_records(settings(config), dataset_name=name, split="valid")
    assert str(leak.warning).startswith("500 of the 500 questions are in the training data too")
    fair = evaluation_records(settings(config), dataset_name=name, split="test")
    assert fair.warning is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dataset_name", 3, "config.dataset_name 3 is not text"),
        ("text_field", [[]], r"config.text_field \[\[\]\] is not text"),
        ("reasoning_triggers", "text", "config.reasoning_triggers 'text' is not a list of texts"),
        ("eval_size", None, "config.eval_size None is not a whole number"),
    ],
)
def test_a_recorded_value_of_another_type_is_named(
    file: Path, key: str, value: object, message: str
) -> None:
    recorded = {"config": {"dataset_name": str(file), key: value}}
    with pytest.raises(ValueError, match=message):
        evaluation_records(recorded)


def test_a_run_of_an_earlier_version_recorded_less(file: Path) -> None:
    whole = settings(TrainConfig(dataset_name=str(file), question_field="query"))
    less = {"config": {"dataset_name": str(file), "question_field": "query"}}
    assert evaluation_records(less).records == evaluation_records(whole).records
