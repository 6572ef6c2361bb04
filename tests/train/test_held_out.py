"""Held-out losses and the guard's numbers: those of the set, however it is cut into batches."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from kava.train.build import build_run
from kava.train.objective import Items, count_items
from kava.train.trainer import KVDistillTrainer
from train.runs import small

SAMPLES = 19
SIZES = (1, 3, 7, SAMPLES)
OTHER: dict[str, Any] = {"teacher_name": "kava/tiny-llama"}
TEXT: dict[str, Any] = {**OTHER, "student": "explicit"}
KINDS: dict[str, dict[str, Any]] = {
    "all terms of self-distillation": {"codi_weight": 1.0, "latent_ce_weight": 1.0},
    "another teacher": OTHER,
    "a whole cache, in an aligner": {
        **OTHER, "kv_method": "full", "alignment_mode": "structured", "aligner_fit": "frozen",
    },
    "a text": TEXT,
    "attention over a whole text": {
        **TEXT, "kv_method": "full", "kv_loss": "structural", "kv_layer_std": False,
    },
    "no cache": {"kv_weight": 0.0},
}  # fmt: skip


def held_out(tmp_path: Path, **options: Any) -> KVDistillTrainer:
    """A trainer with held-out samples of unequal prompts, reasoning and answers."""
    draw = random.Random(0)

    def words(most: int) -> str:
        return " ".join(
            draw.choice(["a", "so", "three", "40"]) for _ in range(draw.randint(1, most))
        )

    files = {}
    for name in ("train", "test"):
        rows = [
            {
                "question": f"{name} {words(9)}",
                "reasoning": f"{words(9)}\n{words(6)}\nend",
                "answer": words(6),
            }
            for _ in range(SAMPLES)
        ]
        files[name] = tmp_path / f"{name}.jsonl"
        files[name].write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    config = small(
        tmp_path / "run", model_name="kava/tiny-llama", target_len=6,
        dataset_name=str(files["train"]), eval_dataset_name=str(files["test"]),
        eval_size=SAMPLES, max_length=256, keep_short=True, max_new_tokens=1, **options,
    )  # fmt: skip
    return build_run(config).trainer


def numbers(trainer: KVDistillTrainer, batch_size: int) -> dict[str, float]:
    """What an evaluation logs, without the answers."""
    trainer.args.per_device_eval_batch_size = batch_size
    metrics = trainer.held_out_losses()
    trainer.guard.judge(metrics, trainer.state)
    return metrics


@pytest.mark.parametrize("wrong_sample", [False, True], ids=["own", "wrong"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_does_not_depend_on_its_batches(
    kind: str, wrong_sample: bool, tmp_path: Path
) -> None:
    trainer = held_out(tmp_path, wrong_sample=wrong_sample, **KINDS[kind])
    trainer.model.double()
    if trainer.model.teacher is not None:
        trainer.model.teacher.double()
    found = [numbers(trainer, size) for size in SIZES]
    assert "eval_attention_entropy" in found[0]
    assert ("eval_erank_target" in found[0]) == (kind != "no cache")
    for other in found[1:]:
        assert other.keys() == found[0].keys()
        for name, value in found[0].items():
            assert other[name] == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_every_term_is_divided_by_its_own_items(tmp_path: Path) -> None:
    """The sum over samples of each term alone times its items, by the items of all."""
    options = {**KINDS["all terms of self-distillation"], "eval_batch_size": 3}
    trainer = held_out(tmp_path, **options)
    totals, counts = dict.fromkeys(("ce", "kv", "codi", "latent_ce", "teacher_ce"), 0.0), []
    place = {
        "ce": "answer_tokens", "kv": "slots", "codi": "samples", "latent_ce": "latents",
        "teacher_ce": "written_tokens",
    }  # fmt: skip
    distiller = trainer.model.eval()
    for sample in trainer.eval_dataset:
        batch = trainer.data_collator([sample])
        items = Items(*count_items(batch, trainer.config))
        counts.append(items)
        with torch.no_grad():
            terms = distiller(batch).metrics
        for name in totals:
            totals[name] += terms[name].item() * getattr(items, place[name])
    found = trainer.held_out_losses()
    sums = Items(*map(sum, zip(*counts)))
    for name, total in totals.items():
        expected = total / getattr(sums, place[name])
        assert found[f"eval_{name}"] == pytest.approx(expected, rel=1e-5), name
    # means over samples are something else where samples differ in length
    assert len({items.answer_tokens for items in counts}) > 2


def test_cka_alone_depends_on_the_batches(tmp_path: Path) -> None:
    """A statistic of a batch; the CKA of the caches over the whole set does not."""
    trainer = held_out(tmp_path, cka_weight=1.0, **OTHER)
    few, all_ = (numbers(trainer, size) for size in (7, SAMPLES))
    apart = {n for n in few if few[n] != pytest.approx(all_[n], rel=1e-4, abs=1e-6)}
    assert apart == {"eval_cka", "eval_cka_k", "eval_cka_v", "eval_loss"}


@pytest.mark.parametrize("size", [2, 8, 15, 16, 19])
def test_no_group_of_the_guard_is_smaller_than_the_others(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    from kava.train import guard

    report = guard.collapse_report
    monkeypatch.setattr(
        guard, "collapse_report", lambda *args: (sizes.append(args[1].batch_size), report(*args))[1]
    )
    trainer = held_out(tmp_path, eval_batch_size=3, **OTHER)
    trainer.guard.judge(trainer.held_out_losses(list(trainer.eval_dataset)[:size]), trainer.state)
    assert sum(sizes) == size
    assert sizes == [8] * (len(sizes) - 1) + [size - 8 * (len(sizes) - 1)]
    assert len(sizes) == 1 or sizes[-1] >= 8
