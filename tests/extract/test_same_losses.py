"""A run that reads a store logs the losses of one whose teacher reads at every step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import kava.train.models as models
from extract.stores import check_same_losses, rows_of, store, write_rows
from kava.store.reader import Tier

OTHER_TOKENS: dict[str, Any] = {
    "model_name": "kava/tiny-qwen2",
    "teacher_name": "kava/tiny-gpt2",
    "max_length": 128,
    "calibration_samples": 24,
}
TWO: dict[str, Any] = {
    "model_name": "kava/tiny-qwen2",
    "teacher_name": None,
    "teachers": ["gpt2=kava/tiny-gpt2", "llama=kava/tiny-llama"],
    "max_length": 128,
    "calibration_samples": 24,
    "kv_layer_std": False,
}
STRUCTURED = {"alignment_mode": "structured", "calibration_samples": 64}
RUNS: dict[str, dict[str, Any]] = {
    "same heads, each with positions of its own": {"kv_scope": "head", "eval_size": 4},
    "flat, calibrated": {"alignment_mode": "flat", "calibration_samples": 64},
    "structured, CODI, wrong sample": {**STRUCTURED, "codi_weight": 0.5, "wrong_sample": True},
    "attention-weighted, batches of one": {
        **STRUCTURED,
        "attention_weighted_kv": True,
        "batch_size": 1,
    },
    "queries": {"kv_loss": "structural", "kv_layer_std": False},
    "whole reasoning, warped": {"kv_method": "full", **STRUCTURED, "target_len": 2},
    "explicit": {"student": "explicit", **STRUCTURED},
    "rotated keys": {"key_space": "rotated", "kv_method": "random", "wrong_sample": True},
    "the student's rotation": {"key_space": "student", **STRUCTURED},
    "knockout": {
        "kv_method": "knockout",
        "dataset_name": "kava/shell-game?form=verbose&student_form=compact&num_train=64",
    },
    "given positions": {
        "kv_method": "positions",
        "dataset_name": "kava/shell-game?form=verbose&student_form=compact&num_train=64",
    },
    "inject": {**STRUCTURED, "inject_weight": 0.5, "text_ce_weight": 1.0},
}
FROM_TEXT: dict[str, dict[str, Any]] = {
    "hard": {**OTHER_TOKENS, "alignment_mode": "structured"},
    "soft, flat": {**OTHER_TOKENS, "token_alignment": "soft", "alignment_mode": "flat"},
    "own positions": {**OTHER_TOKENS, "token_alignment": "none", "alignment_mode": "structured"},
    "explicit": {**OTHER_TOKENS, "student": "explicit", "alignment_mode": "structured"},
    "student to teacher": {
        **OTHER_TOKENS,
        "alignment_mode": "structured",
        "align_direction": "student_to_teacher",
    },
    "two, fixed": {**TWO, "alignment_mode": "structured"},
    "two, by confidence": {**TWO, "alignment_mode": "structured", "fusion": "confidence"},
    "two, union": {**TWO, "alignment_mode": "structured", "fusion": "union"},
    "two, named by the data, explicit": {
        **TWO,
        "alignment_mode": "structured",
        "fusion": "oracle",
        "kv_method": "uniform",
        "student": "explicit",
    },
    "two, wrong sample": {**TWO, "alignment_mode": "structured", "wrong_sample": True},
}


@pytest.fixture(autouse=True)
def no_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run with a store loads its student and no other model."""
    load = models.load_model

    def watched(name: str, **options: Any) -> Any:
        if not options.get("encoders"):
            return load(name, **options)
        assert not reading, f"{name} was loaded beside the store"
        return load(name, **options)

    monkeypatch.setattr(models, "load_model", watched)


reading: list[bool] = []


def check(folder: Path, **settings: Any) -> None:
    include = ("calibration",) if settings.get("alignment_mode", "identity") != "identity" else ()
    stores = [str(one) for one in store(folder / "store", include=include, **settings)]
    live = rows_of(folder / "live", **settings)
    reading.append(True)
    try:
        check_same_losses(live, rows_of(folder / "stored", store=stores, **settings))
    finally:
        reading.clear()


@pytest.mark.parametrize("name", RUNS)
def test_losses_of_one_teacher(name: str, tmp_path: Path) -> None:
    check(tmp_path, **RUNS[name])


@pytest.mark.slow
def test_losses_in_a_shared_space(tmp_path: Path) -> None:
    space = {"alignment_mode": "structured", "shared_space_weight": 0.5}
    check(tmp_path, dataset_name=write_rows(tmp_path / "rows.jsonl"), **TWO, **space)


@pytest.mark.parametrize("name", FROM_TEXT)
def test_losses_with_ragged_texts_and_other_tokens(name: str, tmp_path: Path) -> None:
    check(tmp_path, dataset_name=write_rows(tmp_path / "rows.jsonl"), **FROM_TEXT[name])


WHOLE: dict[str, dict[str, Any]] = {
    "another eviction and number": {**STRUCTURED, "kv_method": "h2o", "target_len": 2},
    "resampled": {
        **STRUCTURED,
        "use_segment_resampling": True,
        "kv_method": "full",
        "student": "explicit",
    },
    "CODI, wrong sample, weighted": {
        **STRUCTURED,
        "codi_weight": 0.5,
        "wrong_sample": True,
        "attention_weighted_kv": True,
        "batch_size": 1,
    },
    "queries": {"kv_loss": "structural", "kv_layer_std": False},
}


@pytest.mark.parametrize("name", WHOLE)
def test_losses_from_whole_texts_with_other_options(name: str, tmp_path: Path) -> None:
    settings = WHOLE[name]
    store(tmp_path / "store", full=True, include=("codi", "queries"))
    live = rows_of(tmp_path / "live", **settings)
    read = {"store": [str(tmp_path / "store")], "store_tier": "full"}
    check_same_losses(live, rows_of(tmp_path / "stored", **read, **settings))


def test_losses_from_whole_texts_of_other_tokens(tmp_path: Path) -> None:
    data = {"dataset_name": write_rows(tmp_path / "rows.jsonl")}
    soft = {**OTHER_TOKENS, **data, "token_alignment": "soft", "alignment_mode": "structured"}
    store(tmp_path / "store", full=True, **OTHER_TOKENS, **data)
    live = rows_of(tmp_path / "live", **soft)
    read = {"store": [str(tmp_path / "store")], "store_tier": "full"}
    check_same_losses(live, rows_of(tmp_path / "stored", **read, **soft))


def test_a_stored_number_that_is_off_shows(tmp_path: Path, monkeypatch: Any) -> None:
    """The comparison of the other tests would see a hundredth of a percent."""
    store(tmp_path / "store")
    live = rows_of(tmp_path / "live")
    read = Tier.read_into

    def off(self: Tier, row: int, name: str, out: Any) -> None:
        read(self, row, name, out)
        out.mul_(1.001)

    monkeypatch.setattr(Tier, "read_into", off)
    stored = rows_of(tmp_path / "stored", store=[str(tmp_path / "store")])
    with pytest.raises(AssertionError):
        check_same_losses(live, stored)
