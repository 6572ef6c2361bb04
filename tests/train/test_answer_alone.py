"""Samples without written reasoning: their answer is learned, and no latent has a target."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import distiller_and_batch, small

from kava.train.build import build_run
from kava.train.data import load_data
from kava.train.items import count_items
from kava.train.models import build_tokenizer

TEACHER = {"teacher_name": "kava/tiny-gpt2", "model_name": "kava/tiny-gpt2"}


@pytest.fixture
def mixed(tmp_path: Path) -> str:
    """A mix of problems with reasoning, and of ARC, which has none."""
    gsm = [
        {"question": f"How many, {i}?", "answer": f"One is {i}.\nAll.\n#### {i}"} for i in range(6)
    ]
    arc = [{"query": f"Which, {i}?", "choices": ["sand", "rain"], "gold": i % 2} for i in range(6)]
    for name, rows in (("gsm", gsm), ("arc_easy", arc)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return f"mix:gsm8k:{tmp_path}/gsm.jsonl=0.5,arc_easy:{tmp_path}/arc_easy.jsonl=0.5"


def settings(name: str, **options: Any) -> Any:
    return small(dataset_name=name, **{**TEACHER, "target_len": 3, "keep_short": True, **options})


def test_without_the_flag_the_sample_is_named(mixed: str) -> None:
    with pytest.raises(ValueError, match=r"sample 'arc_easy-\d' has no reasoning; .*--keep_short"):
        distiller_and_batch(settings(mixed, keep_short=False))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"teacher_name": None},
        {"student": "explicit"},
        {"kv_method": "right_crop"},
        {"kv_loss": "structural", "kv_layer_std": False, "cka_weight": 0.5, "codi_weight": 1.0},
        {"attention_weighted_kv": True},
        {"kv_layer_std": True},
        {"alignment_mode": "structured", "aligner_fit": "frozen"},
    ],
)
def test_their_latents_have_no_target_and_their_answer_counts(
    options: dict[str, Any], mixed: str
) -> None:
    config = settings(mixed, **options)
    distiller, batch = distiller_and_batch(config)
    bare_B = torch.tensor([name.startswith("arc_easy") for name in batch["ids"]])
    assert 0 < int(bare_B.sum()) < len(bare_B)
    forward = distiller(batch)
    assert forward.target is not None
    used_B = forward.target.trace.valid_BT().sum(1)
    assert used_B.tolist() == [0 if bare else 3 for bare in bare_B]
    assert count_items(batch, config)[2] == int(used_B.sum())
    forward.loss.backward()
    assert torch.isfinite(forward.loss)
    grads = [p.grad for p in distiller.parameters() if p.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)


def test_the_others_are_matched_as_if_they_were_alone(mixed: str) -> None:
    config = settings(mixed)
    distiller, batch = distiller_and_batch(config)
    gsm = mixed.removeprefix("mix:").partition(",")[0].rpartition("=")[0]
    _, alone = distiller_and_batch(settings(gsm))
    kept = [batch["ids"].index(name) for name in alone["ids"] if name in batch["ids"]]
    assert kept
    both, one = distiller(batch), distiller(alone)
    assert both.target is not None
    assert one.target is not None
    theirs = [alone["ids"].index(batch["ids"][row]) for row in kept]
    torch.testing.assert_close(
        both.target.trace.values[kept], one.target.trace.values[theirs], atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("options", [{}, {"teacher_name": None}, {"cka_weight": 0.5}])
def test_a_batch_of_them_alone_is_the_answers_loss(options: dict[str, Any], mixed: str) -> None:
    distiller, batch = distiller_and_batch(settings(mixed, **options), 12)
    bare = [i for i, name in enumerate(batch["ids"]) if name.startswith("arc_easy")]
    batch["ids"] = [batch["ids"][i] for i in bare]
    few: Any = {
        name: part[bare] if isinstance(part, torch.Tensor) else part for name, part in batch.items()
    }
    forward = distiller(few)
    assert float(forward.metrics["kv"]) == 0
    assert all(torch.isfinite(value).all() for value in forward.metrics.values())
    assert torch.isfinite(forward.loss)


def test_what_cannot_leave_them_out_is_refused(mixed: str, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    with pytest.raises(ValueError, match=r"6 samples have no reasoning .* --kv_method full needs"):
        build_run(settings(mixed, kv_method="full", output_dir=out))
    arc = mixed.partition(",")[2].rpartition("=")[0]
    with pytest.raises(ValueError, match="no written reasoning whose cache could be matched"):
        build_run(settings(arc, output_dir=out))
    only = settings(arc, kv_weight=0.0)
    assert {sample.num_reasoning for sample in load_data(only, build_tokenizer(only)).train} == {0}
