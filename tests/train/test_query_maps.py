"""Maps of queries are there where a loss compares queries; older checkpoints may hold more."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from kava.align.heads.build import QUERY_PROJECTORS
from kava.train.loading import holds_query_maps
from kava.train.models import build_distiller
from train.runs import interrupted, run, small, weights

OTHER = {"teacher_name": "kava/shell-gpt2", "alignment_mode": "structured"}


@pytest.mark.parametrize("mode", ["structured", "flat"])
@pytest.mark.parametrize("fit", ["frozen", "joint", "calibrated"])
@pytest.mark.parametrize(
    ("changes", "compared"),
    [
        ({}, False),
        ({"kv_method": "rkv"}, False),  # the teacher's queries choose, and are not mapped
        ({"kv_loss": "structural"}, True),
        ({"kv_loss": "structural", "alpha_attn": 0.0}, False),
        ({"kv_loss": "structural", "distill_v_only": True}, False),
        ({"kv_loss": "structural", "kv_weight": 0.0, "cka_weight": 1.0}, False),
    ],
)
def test_queries_have_maps_where_a_loss_compares_them(
    changes: dict[str, Any], compared: bool, fit: str, mode: str
) -> None:
    settings = {**OTHER, "alignment_mode": mode, "kv_layer_std": False, "aligner_fit": fit}
    aligner = build_distiller(small(**settings | changes)).map_aligner
    assert aligner.maps_queries is compared
    held = {name.partition(".")[0] for name in aligner.state_dict()}
    assert held.isdisjoint(QUERY_PROJECTORS) is not compared


@pytest.mark.parametrize("fit", ["joint", "frozen"])
def test_a_checkpoint_with_maps_that_nothing_read_goes_on(
    fit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the first releases wrote them: every aligner had maps of queries."""
    settings = {**OTHER, "aligner_fit": fit, "max_steps": 2, "save_steps": 1}
    with monkeypatch.context() as patch:
        patch.setattr("kava.train.models.compares_queries", lambda config: True)
        whole = run(small(tmp_path / "whole", **settings))
        interrupted(small(tmp_path / "cut", **settings), step=2)
    assert holds_query_maps(tmp_path / "cut" / "checkpoint-1")
    resumed = run(small(tmp_path / "cut", resume=True, **settings))
    assert resumed.trainer.state.global_step == 2
    expected = weights(whole.trainer.model)
    for name, part in weights(resumed.trainer.model).items():
        assert torch.equal(part, expected[name]), name
    # those that were trained are kept, for the optimiser's state counts them
    now = tmp_path / "cut" / "checkpoint-2"
    assert holds_query_maps(now) is (fit == "joint")
