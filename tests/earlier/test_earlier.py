"""Files that an earlier version wrote are read, and mean the same as then; see README.md here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedModel

from kava.commands.evaluate import main as evaluate_main
from kava.data import Encoded, Record, encode_records, load_records
from kava.data.shell_game import SHELL_GAME_TEMPLATE, shell_game_tokenizer
from kava.importance import SCORERS, ScoreStore, score_samples, weights_fingerprint
from kava.models.load import load_model
from kava.student.checkpoint import load_student
from kava.student.latent import LatentStudent

HERE = Path(__file__).parent
CHECKPOINT = HERE / "checkpoint"
SCORES = HERE / "scores.safetensors"
ASKED = "kava/shell-game"
SCORED = "kava/shell-game?num_moves=3&form=verbose&num_train=24"
ANSWERS = [json.loads(line) for line in (HERE / "answers.jsonl").read_text().splitlines()]


def test_a_checkpoint_gives_the_answers_that_it_gave(tmp_path: Path) -> None:
    output = tmp_path / "items.jsonl"
    asked = ["--dataset_name", ASKED, "--subset_size", "16"]
    flags = ["--checkpoint", str(CHECKPOINT), *asked, "--output", str(output), "--device", "cpu"]
    assert evaluate_main(flags) == 0
    given = [json.loads(line) for line in output.read_text().splitlines()]
    assert len(given) == len(ANSWERS) == 16
    for ours, theirs in zip(given, ANSWERS):
        assert {name: ours[name] for name in theirs} == theirs


def test_a_checkpoint_is_a_student_of_transformers_and_of_load_student() -> None:
    loaded = load_student(CHECKPOINT)
    student = LatentStudent.from_pretrained(CHECKPOINT)
    assert loaded.template == SHELL_GAME_TEMPLATE
    assert loaded.settings["config"]["target_len"] == student.config.num_latents == 3
    questions = {record.id: record.question for record in load_records(ASKED, split="test")}
    prompts = [loaded.template.prompt(questions[answer["id"]]) for answer in ANSWERS]
    batch = loaded.tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    tokens = student.eval().answer(batch.input_ids, batch.attention_mask, max_new_tokens=2).tokens
    for answer, row in zip(ANSWERS, loaded.tokenizer.batch_decode(tokens)):
        assert row == f"Answer {answer['prediction']}"


@pytest.fixture(scope="module")
def teacher() -> PreTrainedModel:
    return load_model("kava/shell-teacher")


@pytest.fixture(scope="module")
def scored() -> tuple[list[Encoded], list[Record]]:
    """The samples whose scores are stored."""
    records = load_records(SCORED, split="train")
    samples, _ = encode_records(records, shell_game_tokenizer(), SHELL_GAME_TEMPLATE, 64)
    return samples, records


def test_stored_scores_are_read_and_nothing_is_computed_again(
    teacher: PreTrainedModel,
    scored: tuple[list[Encoded], list[Record]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = SCORES.read_bytes()
    fresh = score_samples(teacher, *scored, SHELL_GAME_TEMPLATE)
    monkeypatch.setitem(SCORERS, "knockout", None)
    stored = score_samples(teacher, *scored, SHELL_GAME_TEMPLATE, path=SCORES)
    assert len(stored) == 24
    for ours, theirs in zip(fresh, stored):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)
    assert SCORES.read_bytes() == before


def test_a_store_of_scores_names_its_teacher_and_method(teacher: PreTrainedModel) -> None:
    said = {"method": "knockout", "reach": "later_steps", "teacher": weights_fingerprint(teacher)}
    assert len(ScoreStore.load(SCORES, said).scores) == 24
    with pytest.raises(ValueError, match="holds scores of reach 'later_steps'"):
        ScoreStore.load(SCORES, {**said, "reach": "all"})
