"""Evictions that ask the teacher, in training: asked once, and what is kept follows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from kava.data.collate import Collator
from kava.importance import SCORERS, score_samples
from kava.importance.knockout import knockout
from kava.train.build import build_run
from kava.train.config import TrainConfig
from kava.train.data import load_data
from kava.train.models import build_teacher_tokenizer, build_tokenizer
from kava.train.scores import with_scores
from train.runs import distiller_and_batch, run, small

VERBOSE = "kava/shell-game?form=verbose&student_form=compact&num_train=24"
KNOCKOUT = {
    "kv_method": "knockout",
    "dataset_name": VERBOSE,
    "teacher_name": "kava/shell-teacher",
    "eval_size": 8,
}


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the samples that a teacher is asked for."""
    ids: list[str] = []

    def counting(model, batch, stages):
        ids.extend(batch["ids"])
        return knockout(model, batch, stages)

    monkeypatch.setitem(SCORERS, "knockout", counting)
    return ids


def test_a_run_asks_once_and_a_later_run_not_at_all(asked: list[str], tmp_path: Path) -> None:
    path = str(tmp_path / "scores.safetensors")
    first = run(small(tmp_path / "a", kv_scores_path=path, **KNOCKOUT))
    assert len(asked) == 24
    assert len(set(asked)) == 24
    assert all(np.isfinite(s.scores).all() for s in [*first.data.train, *first.data.eval])
    asked.clear()
    # another seed, another split: the same samples
    run(small(tmp_path / "b", kv_scores_path=path, seed=1, **KNOCKOUT))
    assert asked == []
    assert not (tmp_path / "b" / "kv_scores.safetensors").exists()


def test_scores_are_kept_in_the_output_folder_for_a_resumed_run(
    asked: list[str], tmp_path: Path
) -> None:
    run(small(tmp_path, max_steps=2, **KNOCKOUT))
    asked.clear()
    resumed = build_run(small(tmp_path, max_steps=2, resume=True, **KNOCKOUT))
    assert asked == []
    assert all(sample.scores is not None for sample in resumed.data.train)


def test_the_target_stands_at_the_highest_scores() -> None:
    distiller, batch = distiller_and_batch(small(**KNOCKOUT))
    with torch.no_grad():
        forward = distiller(batch)
    reasoning = batch["segment_ids"] == 1
    best = batch["scores"].masked_fill(~reasoning, -torch.inf).topk(3).indices.sort().values
    assert torch.equal(forward.target.columns, best)


def test_scores_of_another_teacher_are_refused(tmp_path: Path) -> None:
    path = str(tmp_path / "scores.safetensors")
    build_run(small(tmp_path / "a", kv_scores_path=path, **KNOCKOUT))
    with pytest.raises(ValueError, match=r"holds scores of teacher .* another --kv_scores_path"):
        build_run(small(tmp_path / "b", kv_scores_path=path, **{**KNOCKOUT, "teacher_name": None}))


def test_a_path_that_no_method_reads_is_refused() -> None:
    with pytest.raises(ValueError, match="--kv_scores_path holds knockout's scores, which --kv_me"):
        small(kv_scores_path="x", kv_method="rkv")
    with pytest.raises(ValueError, match="--knockout_reach 'far' is unknown; choose later_steps"):
        small(knockout_reach="far")


def test_a_run_without_a_kv_loss_asks_nobody(asked: list[str], tmp_path: Path) -> None:
    build_run(small(tmp_path, kv_weight=0.0, **KNOCKOUT))
    assert asked == []


def test_batches_without_scores_are_refused() -> None:
    distiller, batch = distiller_and_batch(small(**KNOCKOUT))
    del batch["scores"]
    with pytest.raises(ValueError, match="--kv_method knockout needs samples with scores"):
        distiller(batch)


def of_another_tokenizer(token_alignment: str) -> tuple[TrainConfig, list, list[np.ndarray]]:
    """A student of words under a teacher of pieces: samples, and the teacher's own scores."""
    config = small(
        kv_method="knockout",
        dataset_name="kava/shell-game?num_train=4",
        teacher_name="kava/shell-gpt2",
        alignment_mode="structured",
        aligner_fit="frozen",
        token_alignment=token_alignment,
        max_length=256,
    )
    tokenizer = build_tokenizer(config)
    data = load_data(config, tokenizer, build_teacher_tokenizer(config, tokenizer))
    distiller, _ = distiller_and_batch(config)
    arguments = (data.train_records, data.template)
    samples = with_scores(config, distiller.teacher, data.train, *arguments)
    theirs = [sample.teacher.encoded for sample in data.train]
    return config, samples, score_samples(distiller.teacher, theirs, *arguments)


@pytest.mark.parametrize("token_alignment", ["hard", "soft"])
def test_the_scores_of_another_tokenizer_come_to_the_students_tokens(token_alignment: str) -> None:
    _, samples, scores = of_another_tokenizer(token_alignment)
    for sample, row in zip(samples, scores):
        own = sample.teacher.encoded
        whole = np.zeros(len(own.input_ids))
        whole[own.prompt_length : own.answer_start] = row
        for place in range(sample.prompt_length, sample.answer_start):
            alignment = sample.teacher.alignment
            covered = slice(alignment.indptr[place], alignment.indptr[place + 1])
            wanted = (alignment.weights[covered] * whole[alignment.indices[covered]]).sum()
            if token_alignment == "hard":
                wanted = whole[alignment.last[place]]
            got = sample.scores[place - sample.prompt_length]
            assert got == pytest.approx(wanted, rel=1e-5)


def test_where_the_teachers_own_positions_are_kept_its_scores_stay_with_them() -> None:
    _, samples, scores = of_another_tokenizer("none")
    for sample, row in zip(samples, scores):
        assert sample.scores is None
        assert np.array_equal(sample.teacher.encoded.scores, row)
    batch = Collator(0, 0)(samples)
    start = max(sample.teacher.encoded.prompt_length for sample in samples)
    assert batch["teacher"]["scores"][0, start : start + len(scores[0])].tolist() == list(scores[0])


def test_a_batch_needs_scores_for_all_or_none() -> None:
    _, samples, _ = of_another_tokenizer("hard")
    object.__setattr__(samples[1], "scores", None)
    with pytest.raises(ValueError, match="1 of the 4 samples of a batch have no scores"):
        Collator(0, 0)(samples)
