"""Two models that rotate otherwise: the comparison of key spaces runs, and each of them teaches."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from conftest import ROOT
from kava.data.collate import Collator
from kava.models.load import load_model
from kava.models.rotary import rotary_of
from kava.train.data import load_data
from kava.train.models import build_distiller, build_tokenizer

FLAGS = ["--teacher_steps", "2", "--num_steps", "2", "--num_test", "8", "--seeds", "1"]


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    path = ROOT / "experiments" / "compare_key_spaces.py"
    spec = importlib.util.spec_from_file_location("compare_key_spaces", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "compare_key_spaces", module)
    spec.loader.exec_module(module)
    return module


def test_the_comparison_runs_and_prints_its_table(
    experiment: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert experiment.main([*FLAGS, "--output_dir", str(tmp_path)]) == 0
    rows = json.loads((tmp_path / "results.json").read_text())
    assert [row["key_space"] for row in rows] == ["unrotated", "rotated", "student"]
    assert all(0 < row["kv"] < 10 for row in rows)
    # maps are fitted in the space that is compared
    assert rows[0]["r_squared_keys"] == rows[2]["r_squared_keys"] != rows[1]["r_squared_keys"]
    printed = capsys.readouterr().out
    assert "teacher: " in printed
    assert printed.splitlines()[-3].startswith("unrotated ")


@pytest.mark.parametrize("key_space", ["unrotated", "rotated", "student"])
def test_gradients_flow_from_a_teacher_that_rotates_otherwise(
    experiment: ModuleType, tmp_path: Path, key_space: str
) -> None:
    """4 layers, 16 query over 8 key/value heads of 24, θ = 1e6, onto 2 layers, 4 heads of 16."""
    experiment.save_untrained_teacher(tmp_path)
    theirs, ours = rotary_of(load_model(tmp_path)), rotary_of(load_model("kava/shell-teacher"))
    assert theirs is not None
    assert ours is not None
    assert (theirs.rotary_dim, ours.rotary_dim) == (24, 16)
    assert theirs.inv_freq[1].item() == pytest.approx(1e6 ** (-2 / 24))
    assert ours.inv_freq[1].item() == pytest.approx(1e4 ** (-2 / 16))
    options = experiment.USAGE.parse([*FLAGS, "--output_dir", str(tmp_path)])
    config = experiment.student_config(key_space, 1, tmp_path, options)
    config.ce_weight = 0.0
    tokenizer = build_tokenizer(config)
    data = load_data(config, tokenizer)
    distiller = build_distiller(config)
    assert distiller.teacher is not None
    assert distiller.teacher.config.num_key_value_heads == 8
    assert isinstance(tokenizer.pad_token_id, int)
    forward = distiller(Collator(tokenizer.pad_token_id)(data.train[:8]))
    forward.loss.backward()
    assert torch.isfinite(forward.loss)
    named = distiller.base.named_parameters()
    grads = [p.grad for name, p in named if "k_proj" in name or "v_proj" in name]
    assert all(grad is not None and grad.abs().sum() > 0 for grad in grads)
    assert all(p.grad is None for p in distiller.teacher.parameters())
