"""What a worker keeps from one run to the next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kava.demo.arms import MAIN, train_config
from kava.demo.worker import mean_r_squared
from kava.jobs.worker import Memory
from kava.train import build
from train.runs import small


def test_data_are_read_anew_only_when_they_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    load_data = build.load_data

    def counted(config: Any, *tokenizers: Any) -> Any:
        read.append(config.dataset_name)
        return load_data(config, *tokenizers)

    monkeypatch.setattr(build, "load_data", counted)
    kv = next(arm for arm in MAIN.arms if arm.name == "kv")
    first, second = (
        train_config(
            MAIN, kv, seed, num_steps=2, num_items=4, model_name="kava/shell-llama",
            output_dir=tmp_path,
        )
        for seed in (0, 1)
    )  # fmt: skip
    other = replace(first, dataset_name="kava/shell-game?num_train=70")
    memory = Memory()
    runs = [memory.build(config) for config in (first, second, other, first)]
    names = [first.dataset_name, other.dataset_name, first.dataset_name]
    assert read == names
    assert runs[1].data is runs[0].data
    assert runs[2].data is not runs[0].data


def test_a_run_says_how_large_and_how_good_its_maps_are(tmp_path: Path) -> None:
    pair = {"teacher_name": "kava/shell-gpt2", "kv_method": "full", "calibration_samples": 64}
    flat = build.build_run(small(tmp_path / "flat", alignment_mode="flat", **pair))
    assert flat.trainer.model.map_aligner.num_parameters == 2 * 2 * (96 * 64 + 64)
    assert flat.calibration is not None
    explained = [
        fit.calibrated.r_squared for fit in flat.calibration.layers if fit.part != "queries"
    ]
    assert mean_r_squared(flat) == pytest.approx(sum(explained) / 4)
    same = build.build_run(small(tmp_path / "same", teacher_name="kava/shell-llama"))
    assert same.trainer.model.map_aligner.num_parameters == 0
    assert mean_r_squared(same) is None
