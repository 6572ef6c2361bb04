"""Held-out losses and the guard's numbers: those of the set, however it is cut into batches."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from kava.losses import CollapseReport, collapse_report
from kava.losses.guard import parts_of
from kava.trace import KVTrace
from kava.train import guard
from kava.train import held_out as held_out_module
from kava.train.build import build_run
from kava.train.items import Items, count_items
from kava.train.trainer import RunTrainer
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


def held_out(tmp_path: Path, **options: Any) -> RunTrainer:
    """A trainer with held-out samples of unequal prompts, reasoning and answers."""
    draw = random.Random(0)

    def words(most: int) -> str:
        return " ".join(
            draw.choice(["a", "so", "three", "40"]) for _ in range(draw.randint(1, most))
        )

    for name, count in (("train", 4), ("test", SAMPLES)):
        rows = [
            {
                "question": f"{name} {number}: {words(9)}",
                "reasoning": f"{words(9)}\n{words(6)}\nend",
                "answer": words(6),
            }
            for number in range(count)
        ]
        rows[-1]["reasoning"] = "so " * 20 + "it is\nend"  # the longest comes last
        text = "\n".join(map(json.dumps, rows))
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")
    config = small(
        tmp_path / "run", model_name="kava/tiny-llama", dataset_name=str(tmp_path / "train.jsonl"),
        target_len=6, eval_dataset_name=str(tmp_path / "test.jsonl"), eval_size=SAMPLES,
        max_length=256, keep_short=True, max_new_tokens=1, **options,
    )  # fmt: skip
    return build_run(config).trainer


def numbers(trainer: RunTrainer, batch_size: int) -> dict[str, float]:
    """What an evaluation logs, without the answers."""
    trainer.args.per_device_eval_batch_size = batch_size
    metrics = trainer.held_out_losses()
    trainer.guard.judge(metrics, trainer.state)
    return metrics


@pytest.mark.parametrize("wrong_sample", [False, True], ids=["own", "wrong"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_does_not_depend_on_its_batches(
    kind: str, wrong_sample: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(held_out_module, "ENTROPY_SAMPLES", 5)
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
def test_groups_of_the_guard_are_large_enough_and_have_the_same_parts(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of unequal length: the parts are those of the longest in the set."""
    sizes: list[int] = []
    parts: list[list[tuple[int, int]]] = []

    def report(student: KVTrace, target: KVTrace, *others: Any) -> CollapseReport:
        found = collapse_report(student, target, *others)
        sizes.append(target.batch_size)
        parts.append([(slot.first, slot.last) for slot in found.slots])
        return found

    monkeypatch.setattr(guard, "collapse_report", report)
    trainer = held_out(tmp_path, eval_batch_size=3, **{**TEXT, "kv_method": "full"})
    samples = list(trainer.eval_dataset)[:size]
    trainer.guard.judge(trainer.held_out_losses(samples), trainer.state)
    assert sizes == [8] * (len(sizes) - 1) + [size - 8 * (len(sizes) - 1)]
    assert len(sizes) == 1 or sizes[-1] >= 8
    longest = max(sample.num_reasoning for sample in samples)
    assert parts == [[(start, stop - 1) for start, stop in parts_of(longest)]] * len(sizes)
