"""Runs that share their data: which may, and that it changes no number."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kava.train.build import build_run
from kava.train.config import TrainConfig
from kava.train.data import data_key, load_data
from kava.train.models import build_teacher_tokenizer, build_tokenizer
from train.runs import metrics, small

HETERO: dict[str, Any] = {
    "teacher_name": "kava/shell-gpt2", "alignment_mode": "structured", "aligner_fit": "frozen",
}  # fmt: skip
KNOCKOUT: dict[str, Any] = {
    "teacher_name": "kava/shell-llama", "kv_method": "knockout",
    "dataset_name": "kava/shell-game?num_train=64&form=verbose&student_form=compact",
}  # fmt: skip


class Watched(TrainConfig):
    """A configuration that remembers which of its settings are read."""

    def __getattribute__(self, name: str) -> Any:
        if name in FIELDS:
            READ.add(name)
        return super().__getattribute__(name)


FIELDS = {field.name for field in fields(TrainConfig)}
READ: set[str] = set()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"eval_size": 8},
        {"eval_size": 8, "eval_dataset_name": "kava/shell-game?num_train=9"},
        {"subset_size": 32},
        {"student": "explicit", **HETERO},
        {"token_alignment": "none", **HETERO},
        {"kv_method": "positions", "keep_short": True},
    ],
    ids=str,
)
def test_every_setting_that_decides_the_data_is_in_their_key(changes: dict[str, Any]) -> None:
    """A setting that `load_data` reads and the key does not know would share data wrongly."""
    config = Watched(**vars(small(**changes)))
    READ.clear()
    tokenizer = build_tokenizer(config)
    load_data(config, tokenizer, build_teacher_tokenizer(config, tokenizer))
    read = set(READ)
    READ.clear()
    data_key(config)
    assert read - READ == set()


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"lr": 0.5, "output_dir": "elsewhere", "seed": 3, "wrong_sample": True}, True),
        ({"target_len": 2}, False),
        ({"kv_method": "positions"}, False),
        ({"dataset_name": "kava/shell-game?num_train=32"}, False),
        ({"kv_weight": 0.0, "teacher_ce_weight": 0.0}, False),
        ({"teacher_name": "kava/shell-gpt2"}, False),
        ({"token_alignment": "soft"}, False),
    ],
    ids=str,
)
def test_configurations_share_data_unless_something_in_them_decides(
    changes: dict[str, Any], same: bool
) -> None:
    assert (data_key(small()) == data_key(small(**changes))) == same


@pytest.mark.parametrize("drawing", [{"subset_size": 32}, {"eval_size": 8}], ids=str)
def test_the_seed_decides_where_samples_are_drawn_by_it(drawing: dict[str, Any]) -> None:
    assert data_key(small(**drawing)) != data_key(small(seed=1, **drawing))


@pytest.mark.parametrize("changes", [HETERO, KNOCKOUT], ids=["hetero", "knockout"])
def test_given_data_change_no_number(tmp_path: Path, changes: dict[str, Any]) -> None:
    first = build_run(small(tmp_path / "first", **changes))
    configs = [small(tmp_path / name, seed=1, **changes) for name in ("given", "read")]
    assert data_key(first.trainer.config) == data_key(configs[0])
    given, read = build_run(configs[0], first.data), build_run(configs[1])
    for ours, theirs in zip(given.data.train, read.data.train, strict=True):
        assert ours.id == theirs.id
        np.testing.assert_array_equal(ours.input_ids, theirs.input_ids)
        if ours.scores is not None and theirs.scores is not None:
            np.testing.assert_allclose(ours.scores, theirs.scores, rtol=1e-5)
        assert (ours.scores is None) == (theirs.scores is None) == ("kv_method" not in changes)
    for run in (given, read):
        run.trainer.train()
    told = [
        [
            (line["step"], line["loss"], line["kv"])
            for line in metrics(one.output_dir)
            if "kv" in line
        ]
        for one in configs
    ]
    assert len(told[0]) == 4
    assert told[0] == told[1]


def test_given_data_are_not_scored_again(tmp_path: Path) -> None:
    first = build_run(small(tmp_path / "first", **KNOCKOUT))
    given = build_run(small(tmp_path / "given", seed=1, **KNOCKOUT), first.data)
    assert given.data is first.data
    assert list((tmp_path / "first").glob("kv_scores*"))
    assert not list((tmp_path / "given").glob("kv_scores*"))
