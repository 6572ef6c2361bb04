"""A teacher of another family, geometry and tokenizer: what is read, mapped, trained and kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import distiller_and_batch, run, small, weights

from kava.data.collate import Batch
from kava.train.build import build_run
from kava.train.config import TrainConfig
from kava.train.items import count_items

OTHER: dict[str, Any] = {
    "model_name": "kava/shell-teacher",
    "teacher_name": "kava/shell-gpt2-teacher",
    "kv_method": "full",
    "alignment_mode": "structured",
    "calibration_samples": 64,
    "dataset_name": "kava/shell-game?num_train=320",
}
MAPS = [
    pytest.param({}, id="per_head"),
    pytest.param({"map_proj_share_dim": True, "map_rank": "2"}, id="rank"),
    pytest.param({"alignment_mode": "flat", "calibration_samples": 320}, id="flat"),
    pytest.param({"aligner_fit": "frozen"}, id="frozen"),
    pytest.param({"aligner_fit": "joint"}, id="joint"),
]


def other(output_dir: Path | str = "unused", **changes: Any) -> TrainConfig:
    return small(output_dir, **{**OTHER, **changes})


@pytest.mark.parametrize("tokens", ["hard", "soft"])
def test_the_target_is_the_teachers_cache_under_each_word(tokens: str) -> None:
    """Oracle: each sample alone, unpadded, through the teacher; loops over tokens."""
    config = other(token_alignment=tokens, aligner_fit="frozen", map_proj_init_uniform=True)
    distiller, batch = distiller_and_batch(config, 5)
    target = distiller(batch).target
    theirs, teacher = batch["teacher"], distiller.teacher
    assert teacher is not None
    reasoning = batch["segment_ids"] == 1
    for sample in range(5):
        row = theirs["attention_mask"][sample].bool()
        past = teacher(theirs["input_ids"][sample][row][None], use_cache=True).past_key_values
        first = int((~row[: int(row.long().argmax()) + 1]).sum())  # columns of left padding
        slots = reasoning[sample].nonzero().flatten().tolist()
        for slot, column in enumerate(slots):
            if tokens == "hard":
                shares = {int(theirs["last"][sample, column]): 1.0}
            else:
                pairs = zip(theirs["covered"][sample, column], theirs["shares"][sample, column])
                shares = {}
                for place, share in pairs:
                    shares[int(place)] = shares.get(int(place), 0.0) + float(share)
            values = torch.stack(
                [
                    sum(
                        share * layer.values[0, :, place - first] for place, share in shares.items()
                    )
                    for layer in past.layers
                ]
            )
            aligned = distiller.map_aligner(values[None, :, :, None], values[None, :, :, None])
            expected = aligned.values[0, :, :, 0]
            assert (target.trace.values[sample, :, :, slot] - expected).abs().max() < 1e-4


def test_a_word_of_two_pieces_is_read_where_it_is_complete() -> None:
    _, batch = distiller_and_batch(other(), 2)
    theirs = batch["teacher"]
    word = int((batch["segment_ids"][0] == 1).nonzero()[0])
    used = theirs["shares"][0, word] > 0
    columns = theirs["covered"][0, word][used].tolist()
    assert len(columns) == 2
    assert int(theirs["last"][0, word]) == max(columns)
    assert theirs["shares"][0, word].sum() == pytest.approx(1.0)


@pytest.mark.parametrize("tokens", ["hard", "soft"])
@pytest.mark.parametrize("changes", MAPS)
def test_it_trains(changes: dict[str, Any], tokens: str, tmp_path: Path) -> None:
    config = other(tmp_path, token_alignment=tokens, max_steps=2, **changes)
    built = build_run(config)
    distiller = built.trainer.model
    assert distiller.teacher is not None
    before, teacher = weights(distiller), weights(distiller.teacher)
    assert (built.calibration is not None) == config.calibrates
    built.trainer.train()
    after = weights(distiller)
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert "student" in moved
    assert ("map_aligner" in moved) == config.trains_aligner
    assert all(torch.equal(teacher[n], p) for n, p in weights(distiller.teacher).items())


@pytest.mark.parametrize("fit", ["calibrated", "frozen", "joint"])
@pytest.mark.parametrize("mode", ["structured", "flat"])
def test_the_students_cache_can_be_mapped_to_the_teachers(
    mode: str, fit: str, tmp_path: Path
) -> None:
    config = other(
        tmp_path,
        alignment_mode=mode,
        aligner_fit=fit,
        align_direction="student_to_teacher",
        max_steps=2,
    )
    built = build_run(config)
    distiller = built.trainer.model
    before = weights(distiller.map_aligner)
    _, batch = distiller_and_batch(config)
    forward = distiller(batch)
    assert forward.target.trace.keys.shape[2::2] == (3, 32)
    assert forward.student.keys.shape == forward.target.trace.keys.shape
    built.trainer.train()
    moved = any(not torch.equal(before[n], p) for n, p in weights(distiller.map_aligner).items())
    assert moved == (fit == "joint")


def test_the_teachers_own_positions_can_be_kept() -> None:
    config = other(token_alignment="none", kv_method="rkv", target_len=4)
    distiller, batch = distiller_and_batch(config, 4)
    forward = distiller(batch)
    assert forward.target.trace.length == 4
    columns = forward.target.columns
    assert (batch["teacher"]["segment_ids"].gather(1, columns) == 1).all()
    assert count_items(batch, config)[2] == 16


@pytest.mark.parametrize("changes", [{"codi_weight": 1.0}, {"student": "explicit"}])
def test_other_objectives_read_the_teachers_text(changes: dict[str, Any]) -> None:
    distiller, batch = distiller_and_batch(other(**changes), 4)
    forward = distiller(batch)
    assert forward.loss.isfinite()
    forward.loss.backward()


def test_a_batch_gives_what_its_samples_give_alone() -> None:
    config = other(token_alignment="soft")
    distiller, batch = distiller_and_batch(config, 4)
    distiller.eval()
    whole = distiller(batch).target.trace
    for sample in range(4):
        alone = distiller(_sample(batch, sample)).target.trace
        assert (alone.keys[0] - whole.keys[sample]).abs().max() < 1e-5


def _sample(batch: Batch, index: int) -> Batch:
    cut = slice(index, index + 1)
    return {  # type: ignore[return-value]
        name: _sample(part, index)
        if isinstance(part, dict)
        else part[cut]
        if isinstance(part, torch.Tensor | list)
        else part
        for name, part in batch.items()
    }


def test_a_resumed_run_keeps_its_fitted_maps(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"map_proj_share_dim": True, "map_rank": "auto", "save_steps": 2}
    whole = run(other(tmp_path / "whole", max_steps=4, **changes)).trainer.model
    run(other(tmp_path / "parts", max_steps=4, **changes))
    for checkpoint in (tmp_path / "parts").glob("checkpoint-4"):
        for path in checkpoint.iterdir():
            path.unlink()
        checkpoint.rmdir()
    resumed = run(other(tmp_path / "parts", max_steps=4, resume=True, **changes)).trainer.model
    ours, theirs = weights(whole), weights(resumed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"map_rank": "0"}, "--map_rank '0' must be a number above 0"),
        ({"map_rank": "2", "aligner_fit": "frozen"}, "needs --alignment_mode structured and"),
        ({"map_rank": "2", "alignment_mode": "flat"}, "needs --alignment_mode structured and"),
        ({"alignment_mode": "flat", "flat_variant": "elastic"}, "cannot be fitted in closed form"),
        ({"student": "explicit", "token_alignment": "none"}, "choose hard or soft"),
        ({"calibration_samples": 0}, "--calibration_samples 0 must be at least 1"),
        (
            {"alignment_mode": "identity", "align_direction": "student_to_teacher"},
            "--alignment_mode identity maps none",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        other(**changes)
    assert "\n" not in str(error.value)


def test_too_few_samples_to_fit_on_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="calibration_samples") as error:
        build_run(other(tmp_path, alignment_mode="flat", calibration_samples=8))
    assert "\n" not in str(error.value)
