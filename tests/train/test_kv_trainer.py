"""`KVDistillTrainer` as users of transformers and TRL call it: the run of the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset, DatasetDict, IterableDataset
from runs import all_rows, run, small, weights
from transformers import EvalPrediction, TrainerCallback, TrainingArguments
from transformers.integrations import integration_utils

from kava import KVDistillTrainer, TrainConfig
from kava.data.sources import load_records
from kava.errors import KavaError
from kava.files.locks import lock_folder
from kava.models.load import load_model, load_tokenizer
from kava.student.checkpoint import latest_checkpoint, load_student
from kava.student.latent import LatentStudent

STUDENT, TEACHER = "kava/tiny-llama", "kava/tiny-gpt2"
SETTINGS: dict[str, Any] = {
    "target_len": 2, "max_length": 128, "batch_size": 8, "max_steps": 2, "lr": 1e-3,
    "logging_steps": 1, "no_progress": True, "device": "cpu", "max_new_tokens": 2,
}  # fmt: skip


def rows(split: str, number: int) -> list[dict[str, str]]:
    records = load_records(f"kava/shell-game?num_train={number}&num_test={number}", split=split)
    return [
        {"id": r.id, "question": r.question, "reasoning": "\n".join(r.steps), "answer": r.answer}
        for r in records
    ]


@pytest.fixture(scope="module")
def train_set() -> Dataset:
    return Dataset.from_list(rows("train", 32))


@pytest.fixture(scope="module")
def eval_set() -> Dataset:
    return Dataset.from_list(rows("test", 6))


def settings(folder: Path, **changes: Any) -> TrainConfig:
    return TrainConfig(**{**SETTINGS, "output_dir": str(folder), **changes})


def loaded(name: str) -> dict[str, Any]:
    return {"model": load_model(name), "processing_class": load_tokenizer(name)}


def test_a_dataset_is_trained_on_as_the_same_rows_in_a_file(
    tmp_path: Path, train_set: Dataset, eval_set: Dataset
) -> None:
    for name, dataset in (("train", train_set), ("test", eval_set)):
        dataset.to_json(tmp_path / f"{name}.jsonl")
    own = tmp_path / "own"
    trainer = KVDistillTrainer(
        model=STUDENT,
        teacher=TEACHER,
        args=settings(own),
        train_dataset=train_set,
        eval_dataset=eval_set,
    )
    trainer.train()
    files = {"dataset_name": str(tmp_path / "train.jsonl"), "eval_size": 6}
    files["eval_dataset_name"] = str(tmp_path / "test.jsonl")
    names = {"model_name": STUDENT, "teacher_name": TEACHER}
    run(settings(tmp_path / "files", **names, **files))
    assert all_rows(own) == all_rows(tmp_path / "files")
    ours, theirs = (latest_checkpoint(tmp_path / name) for name in ("own", "files"))
    assert ours is not None
    assert theirs is not None
    for name, part in load_student(ours).model.state_dict().items():
        assert torch.equal(part, load_student(theirs).model.state_dict()[name]), name
    a, b = (json.loads((folder / "kava.json").read_text()) for folder in (ours, theirs))
    assert a["data_hash"] == b["data_hash"]
    assert a["config"]["dataset_name"] == "Dataset (given in Python)"
    assert isinstance(trainer.student, LatentStudent)


def test_loaded_models_are_trained_as_their_names_are(tmp_path: Path, train_set: Dataset) -> None:
    def train(folder: str, **models: Any) -> list[dict[str, float]]:
        config = settings(tmp_path / folder, kv_method="uniform")
        trainer = KVDistillTrainer(**models, args=config, train_dataset=train_set)
        trainer.train()
        return all_rows(tmp_path / folder)

    named = train("named", model=STUDENT, teacher=TEACHER)
    teacher = load_model(TEACHER)
    before = weights(teacher)
    its = load_tokenizer(TEACHER)
    student = load_model(STUDENT)
    own = load_tokenizer(STUDENT)
    objects = train(
        "objects",
        model=student,
        teacher=teacher,
        processing_class=own,
        teacher_processing_class=its,
    )
    assert objects == named
    assert all(torch.equal(part, before[name]) for name, part in teacher.state_dict().items())
    trained = load_student(tmp_path / "objects").model.base
    assert torch.equal(trained.lm_head.weight, student.lm_head.weight)  # in place


def test_settings_that_were_left_out_are_decided_by_the_models(
    tmp_path: Path, train_set: Dataset
) -> None:
    config = settings(tmp_path, model_name=STUDENT)
    assert (config.alignment_mode, config.text_ce_weight) == ("identity", 0.0)
    trainer = KVDistillTrainer(teacher=TEACHER, args=config, train_dataset=train_set)
    assert trainer.config.alignment_mode == "structured"
    assert trainer.config.text_ce_weight == 1.0
    assert trainer.config.model_name == STUDENT


def test_a_loaded_teacher_keeps_its_dtype(tmp_path: Path, train_set: Dataset) -> None:
    teacher = load_model(TEACHER, dtype=torch.bfloat16)
    trainer = KVDistillTrainer(
        **loaded(STUDENT), teacher=teacher, args=settings(tmp_path), train_dataset=train_set
    )
    assert trainer.config.dtype == "bfloat16"
    assert teacher.dtype == torch.bfloat16
    assert trainer.student.dtype == torch.float32


def test_rows_may_be_as_gsm8ks_and_a_part_is_set_apart(tmp_path: Path) -> None:
    gsm8k = [
        {"question": f"What is {n} + 2 + 3?", "answer": f"{n} + 2 = {n + 2}\nall\n#### {n + 5}"}
        for n in range(12)
    ]
    args = {**SETTINGS, "output_dir": str(tmp_path), "eval_size": 4, "batch_size": 4}
    trainer = KVDistillTrainer("kava/tiny-gpt2", args=args, train_dataset=gsm8k)
    assert (len(trainer.train_dataset), len(trainer.questions)) == (8, 4)
    assert trainer.config.self_distillation


class Steps(TrainerCallback):
    def __init__(self) -> None:
        self.seen: list[int] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seen.append(state.global_step)


def test_callbacks_and_metrics_of_the_caller(
    tmp_path: Path, train_set: Dataset, eval_set: Dataset
) -> None:
    steps = Steps()
    golds = [row["answer"] for row in rows("test", 6)]

    def lengths(answers: EvalPrediction) -> dict[str, float]:
        assert list(answers.label_ids) == golds
        return {"length": float(np.mean([len(text) for text in answers.predictions]))}

    trainer = KVDistillTrainer(
        STUDENT, TEACHER, settings(tmp_path), train_set, eval_set,
        callbacks=[steps], compute_metrics=lengths,
    )  # fmt: skip
    trainer.train()
    assert steps.seen == [1, 2]
    (row,) = [row for row in all_rows(tmp_path) if "eval_accuracy" in row]
    assert row["eval_length"] > 0
    assert row["eval_num_items"] == 6
    assert trainer.evaluate()["eval_length"] == row["eval_length"]


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"accuracy": 1.0}, "compute_metrics gives eval_accuracy, which the run measures itself"),
        ({"text": "abc"}, "compute_metrics gives eval_text='abc', which is no number"),
        ([1.0], "compute_metrics gave a list, and a dictionary of numbers is logged"),
    ],
)
def test_metrics_that_cannot_be_logged_are_refused(
    metrics: Any, message: str, tmp_path: Path, train_set: Dataset, eval_set: Dataset
) -> None:
    trainer = KVDistillTrainer(
        STUDENT, args=settings(tmp_path), train_dataset=train_set, eval_dataset=eval_set,
        compute_metrics=lambda _: metrics,
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        trainer.evaluate()


def test_a_run_goes_on_where_its_args_say_so(tmp_path: Path, train_set: Dataset) -> None:
    models = {"model": STUDENT, "teacher": TEACHER, "train_dataset": train_set}
    # nothing of it follows from the length of the run, so that it can be extended
    steady = {"lr_scheduler": "constant", "text_ce_steps": 3}
    whole, parts = (
        {**SETTINGS, **steady, "output_dir": str(tmp_path / name)} for name in ("whole", "parts")
    )
    KVDistillTrainer(**models, args={**whole, "max_steps": 4}).train()
    KVDistillTrainer(**models, args=parts).train()
    trainer = KVDistillTrainer(**models, args={**parts, "max_steps": 4, "resume": True})
    with pytest.raises(ValueError, match=r"TrainConfig\(resume=True\)"):
        trainer.train(resume_from_checkpoint=True)
    trainer.train()
    assert [row for row in all_rows(tmp_path / "parts") if "loss" in row] == [
        row for row in all_rows(tmp_path / "whole") if "loss" in row
    ]


def test_a_folder_in_use_is_refused(tmp_path: Path, train_set: Dataset) -> None:
    with (
        lock_folder(tmp_path, "kava train"),
        pytest.raises(KavaError, match="is in use: kava train has been at work"),
    ):
        KVDistillTrainer(STUDENT, args=settings(tmp_path), train_dataset=train_set)
    trainer = KVDistillTrainer(STUDENT, args=settings(tmp_path), train_dataset=train_set)
    with lock_folder(tmp_path, "kava train"), pytest.raises(KavaError, match="is in use"):
        trainer.train()


ROWS = rows("train", 16)
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "arguments of another trainer": (
        {"args": TrainingArguments(report_to="none")},
        "args is a TrainingArguments; pass a kava.TrainConfig",
    ),
    "unknown setting": ({"args": {"kv_wieght": 1.0}}, r"args has no 'kv_wieght' \(did you mean"),
    "a model twice": (
        {"model": TEACHER, "args": {"model_name": STUDENT}},
        "args names model_name='kava/tiny-llama', and model is given too",
    ),
    "a number": ({"model": 3}, "model is a int; pass a name or a loaded PreTrainedModel"),
    "no tokenizer": (
        {"model": load_model(STUDENT)},
        "model is a loaded model: pass its tokenizer as processing_class",
    ),
    "a tokenizer of nobody": (
        {"teacher_processing_class": load_tokenizer(TEACHER)},
        "teacher_processing_class is the tokenizer of a loaded teacher",
    ),
    "a latent student": (
        {
            "model": LatentStudent.wrap(load_model(STUDENT), num_latents=1),
            "processing_class": load_tokenizer(STUDENT),
        },
        "holds a latent student",
    ),
    "splits": (
        {"train_dataset": DatasetDict(train=Dataset.from_list(ROWS))},
        "train_dataset is a DatasetDict, and a Dataset is read: pass one of its splits",
    ),
    "a stream": (
        {"eval_dataset": IterableDataset.from_generator(lambda: iter(ROWS))},
        "eval_dataset is a IterableDataset, and a Dataset is read: load it whole",
    ),
    "a name": ({"train_dataset": "gsm8k"}, "train_dataset is a str; pass a datasets.Dataset"),
    "lists": ({"train_dataset": [[1]]}, "train_dataset, row 0 is a list, not a dictionary"),
    "empty": ({"train_dataset": []}, "train_dataset is empty"),
    "other columns": (
        {"train_dataset": [{"prompt": "a", "completion": "b"}]},
        "train_dataset, row 0 has no field 'question'",
    ),
    "in both": ({"eval_dataset": ROWS[:2]}, "train and test share 2 questions"),
    "metrics of nothing": (
        {"compute_metrics": lambda _: {}},
        "compute_metrics is about evaluations: pass an eval_dataset",
    ),
    "a tracker that is not there": (
        {"args": {**SETTINGS, "report_to": "wandb"}},
        "--report_to wandb: WandbCallback requires wandb to be installed",
    ),
    "a tracker that nobody knows": (
        {"args": {"report_to": ["wnadb"]}},
        r"--report_to 'wnadb' is unknown \(did you mean 'wandb'\?\)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_refused_in_one_line(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    given, message = BAD[case]
    options = {"model": STUDENT, "args": SETTINGS, "train_dataset": ROWS, **given}
    with pytest.raises(ValueError, match=message) as caught:
        KVDistillTrainer(**options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_not_its_own_frozen_teacher(tmp_path: Path) -> None:
    both = loaded(STUDENT)
    with pytest.raises(ValueError, match="model and teacher are the same object"):
        KVDistillTrainer(**both, teacher=both["model"], args=settings(tmp_path))


def test_adapters_need_a_base_that_is_loaded_again(tmp_path: Path, train_set: Dataset) -> None:
    args = settings(tmp_path, lora_r=4)
    with pytest.raises(ValueError, match="lora_r=4 stores adapters and the name of their base"):
        KVDistillTrainer(**loaded(STUDENT), args=args, train_dataset=train_set)


def test_two_loaded_models_of_one_name_are_told_apart(tmp_path: Path, train_set: Dataset) -> None:
    trainer = KVDistillTrainer(
        **loaded(STUDENT),
        teacher=load_model(STUDENT),
        args=settings(tmp_path),
        train_dataset=train_set,
    )
    names = trainer.config.model_name, trainer.config.teacher_name
    assert names == (
        "LlamaForCausalLM (given in Python)",
        "LlamaForCausalLM, teacher (given in Python)",
    )
    assert trainer.config.alignment_mode == "structured"


def test_a_student_is_pushed_by_its_command(tmp_path: Path, train_set: Dataset) -> None:
    trainer = KVDistillTrainer(STUDENT, args=settings(tmp_path), train_dataset=train_set)
    with pytest.raises(ValueError, match=r"kava export .* --push user/name"):
        trainer.push_to_hub()


def test_a_tracker_hears_what_is_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[dict[str, float]] = []

    class Tracker(TrainerCallback):
        def on_log(self, *args: Any, logs: dict[str, float], **kwargs: Any) -> None:
            heard.append(logs)

    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "wandb", Tracker)
    run(small(tmp_path, max_steps=2, report_to="wandb"))
    assert [row["loss"] for row in heard if "loss" in row] == [
        row["loss"] for row in all_rows(tmp_path) if "loss" in row
    ]
    assert (tmp_path / "tensorboard").is_dir()
