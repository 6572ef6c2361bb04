"""Latent supervision in a step: which tokens, no teacher, and nothing but the data moves it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import distiller_and_batch, rows, small

from kava.losses import latent_ce_loss
from kava.train.build import build_run
from kava.train.items import count_items

ALONE = {"kv_weight": 0.0, "ce_weight": 0.0, "teacher_ce_weight": 0.0, "latent_ce_weight": 1.0}
JACOBI = {"decoding": "jacobi", "jacobi_iterations": 2}
VERBOSE = {"dataset_name": "kava/shell-game?form=verbose&student_form=compact&num_train=16"}


@pytest.mark.parametrize("options", [{}, JACOBI, VERBOSE])
def test_latents_are_held_to_the_samples_own_reasoning(options: dict[str, Any]) -> None:
    config = small(**{**ALONE, **options})
    assert not config.needs_teacher
    distiller, batch = distiller_and_batch(config)
    forward = distiller(batch)
    readings = distiller.student(
        batch["prompt_ids"], batch["prompt_mask"], batch["answer_ids"], readings=True
    ).readings
    reasoning = batch["segment_ids"].eq(1)
    loss, metrics = latent_ce_loss(readings, batch["input_ids"], reasoning)
    torch.testing.assert_close(forward.loss, loss)
    torch.testing.assert_close(forward.metrics["latent_ce"], loss.detach())
    assert forward.metrics["latent_read"] == metrics["latent_read"]
    other = torch.roll(batch["input_ids"], 1, 0), torch.roll(reasoning, 1, 0)
    wrong, _ = distiller_and_batch(replace(config, wrong_sample=True))
    torch.testing.assert_close(wrong(batch).loss, latent_ce_loss(readings, *other)[0])
    assert not torch.isclose(wrong(batch).loss, loss)


def test_on_the_built_in_task_latent_m_is_step_m() -> None:
    _, batch = distiller_and_batch(small(**ALONE))
    steps = batch["input_ids"][batch["segment_ids"].eq(1)].reshape(8, 3)
    readings = torch.full((8, 3, 64), -1e9).scatter(2, steps[:, :, None], 0.0)
    loss, metrics = latent_ce_loss(readings, batch["input_ids"], batch["segment_ids"].eq(1))
    assert (loss.item(), metrics["latent_read"].item()) == (0.0, 1.0)


@pytest.mark.parametrize("options", [{}, JACOBI, {"teacher_name": "kava/tiny-llama"}])
def test_the_gradient_of_a_batch_is_the_sum_of_its_parts(
    options: dict[str, Any], tmp_path: Path
) -> None:
    """Reasoning of three to thirty tokens, and of two, which leaves a latent unsupervised."""
    file = tmp_path / "ragged.jsonl"
    texts = ["1 2 3\nend", "so much more of it\nand more\nend", "1\nend", "a b c d\nend"]
    lines = [
        {"question": f"{t}?" * n, "reasoning": t, "answer": "2"} for n, t in enumerate(texts, 1)
    ]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    config = small(
        model_name="kava/tiny-llama",
        dataset_name=str(file),
        max_length=256,
        keep_short=True,
        **{**ALONE, "ce_weight": 1.0, **options},
    )
    distiller, batch = distiller_and_batch(config, size=4)
    counts = torch.tensor(count_items(batch, config)).float()
    lengths = batch["segment_ids"].eq(1).sum(1)
    assert lengths.min() < 3
    assert counts[4] == lengths.clamp(max=3).sum()
    distiller(batch).loss.backward()
    whole = {n: p.grad.clone() for n, p in distiller.named_parameters() if p.grad is not None}
    distiller.zero_grad()
    for part in (slice(0, 1), slice(1, 3), slice(3, 4)):
        distiller(rows(batch, part), counts).loss.backward()
    for name, gradient in whole.items():
        ours = dict(distiller.named_parameters())[name].grad
        torch.testing.assert_close(ours, gradient, atol=1e-6, rtol=1e-4)


def test_accumulated_batches_log_what_one_batch_does(tmp_path: Path) -> None:
    logs = []
    for size, parts in ((8, 1), (2, 4)):
        config = small(
            tmp_path / str(size), batch_size=size, gradient_accumulation_steps=parts,
            max_steps=2, **ALONE,
        )  # fmt: skip
        trainer = build_run(config).trainer
        trainer.train()
        logs.append([row for row in trainer.state.log_history if "latent_ce" in row])
    whole, split = logs
    assert [row["step"] for row in whole] == [1, 2]
    for ours, theirs in zip(split, whole):
        for name in ("loss", "latent_ce", "latent_read", "grad_norm"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4), name


def test_without_its_weight_nothing_is_read() -> None:
    distiller, batch = distiller_and_batch(small(kv_weight=0.0))
    forward = distiller(batch)
    assert "latent_ce" not in forward.metrics


def test_a_few_steps_teach_latents_to_read_as_the_steps() -> None:
    distiller, batch = distiller_and_batch(small(**ALONE, model_name="kava/shell-llama"))
    optimizer = torch.optim.AdamW(distiller.parameters(), lr=3e-3)
    losses = []
    for _ in range(25):
        optimizer.zero_grad()
        forward = distiller(batch)
        forward.loss.backward()
        optimizer.step()
        losses.append(forward.loss.item())
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"student": "explicit", "teacher_name": "kava/shell-teacher"}, "has no latents to read"),
        ({"target_len": 0}, "leaves no latent to read"),
        ({"decoding": "jacobi", "jacobi_iterations": 0}, "the latents are pause tokens"),
        ({"latent_ce_weight": -1.0}, "must be at least 0"),
    ],
)
def test_settings_that_leave_nothing_to_read_are_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        small(**{**ALONE, **changes})
