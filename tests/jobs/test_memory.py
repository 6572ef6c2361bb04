"""What a worker keeps from one run to the next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

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
    first = small(tmp_path)
    other = replace(first, dataset_name="kava/shell-game?num_train=70")
    memory = Memory()
    runs = [memory.build(config) for config in (first, replace(first, seed=1), other, first)]
    assert read == [first.dataset_name, other.dataset_name, first.dataset_name]
    assert runs[1].data is runs[0].data
    assert runs[2].data is not runs[0].data
