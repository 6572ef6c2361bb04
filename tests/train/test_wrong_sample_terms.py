"""The wrong-sample control, term by term: nothing of a sample's own teacher reaches its student."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kava.data.collate import Batch, Collator
from kava.data.encoded import Encoded
from kava.data.neighbours import with_neighbours
from kava.train.config import TrainConfig
from kava.train.data import load_data
from kava.train.models import build_distiller, build_teacher_tokenizer, build_tokenizer
from kava.train.objective import Distiller, count_items
from kava.train.wrong_sample import of_sample_before
from train.runs import small

ALONE = {
    "ce_weight": 0.0,
    "text_ce_weight": 0.0,
    "teacher_ce_weight": 0.0,
    "kv_weight": 0.0,
    "wrong_sample": True,
}
TERMS: dict[str, dict[str, Any]] = {
    "kv": {"kv_weight": 1.0},
    "structural": {"kv_weight": 1.0, "kv_loss": "structural", "kv_layer_std": False},
    "weighted by attention": {"kv_weight": 1.0, "attention_weighted_kv": True},
    "codi": {"codi_weight": 1.0},
    "latent_ce": {"latent_ce_weight": 1.0},
}
TEACHERS: dict[str, dict[str, Any]] = {
    "itself": {},
    "another": {"teacher_name": "kava/shell-teacher"},
    "another tokenizer": {
        "teacher_name": "kava/shell-gpt2", "alignment_mode": "structured",
        "aligner_fit": "frozen", "token_alignment": "soft",
    },
}  # fmt: skip
GAME = "kava/shell-game?form=verbose&student_form=compact&num_train=5"


class Data:
    """A configuration's distiller, and its samples in batches of any size."""

    def __init__(self, config: TrainConfig):
        tokenizer = build_tokenizer(config)
        theirs = build_teacher_tokenizer(config, tokenizer)
        self.samples: Sequence[Encoded] = with_neighbours(
            load_data(config, tokenizer, theirs).train
        )
        assert isinstance(tokenizer.pad_token_id, int)
        pad = None if theirs is None else theirs.pad_token_id
        self.collate = Collator(tokenizer.pad_token_id, pad)
        self.distiller: Distiller = build_distiller(config)

    def batches(self, size: int, neighbours: bool = True) -> list[Batch]:
        collate = replace(self.collate, neighbours=neighbours)
        samples = self.samples
        return [collate(samples[start : start + size]) for start in range(0, len(samples), size)]


def with_other_text(batch: Batch, sample: int, seed: int = 0) -> Batch:
    """The batch with other reasoning and answer tokens in what one sample's teacher reads."""
    changed = Batch(**batch)  # type: ignore[typeddict-item]

    def other(ids_BT: Tensor, segments_BT: Tensor) -> Tensor:
        ids_BT = ids_BT.clone()
        written_T = segments_BT[sample] > 0
        ids_BT[sample, written_T] = ids_BT[sample, written_T].flip(0).roll(1)
        return ids_BT

    changed["input_ids"] = other(batch["input_ids"], batch["segment_ids"])
    if "teacher" in batch:
        theirs = batch["teacher"]
        ids = other(theirs["input_ids"], theirs["segment_ids"])
        changed["teacher"] = {**theirs, "input_ids": ids}
    return changed


def pulls(distiller: Distiller, batch: Batch) -> Tensor:
    """[B, W]: the gradient of the loss at the input embeddings of each sample's student."""
    B = len(batch["ids"])
    embed = distiller.base.get_input_embeddings()
    shift = torch.zeros(B, 1, distiller.base.config.hidden_size, requires_grad=True)
    handle = embed.register_forward_hook(
        lambda module, args, output: output + shift if len(output) == B else None
    )
    try:
        (gradient,) = torch.autograd.grad(distiller(batch).loss, shift)
    finally:
        handle.remove()
    return gradient[:, 0]


@pytest.mark.parametrize("teacher", TEACHERS)
@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("neighbours", [False, True], ids=["roll", "before"])
def test_a_term_moves_with_the_text_of_the_sample_before_and_no_other(
    term: str, teacher: str, neighbours: bool
) -> None:
    options = {**ALONE, **TERMS[term], **TEACHERS[teacher], "max_length": 256}
    data = Data(small(dataset_name=GAME, target_len=4, **options))
    data.distiller.double().eval()
    if data.distiller.teacher is not None:
        data.distiller.teacher.double()
    (batch,) = data.batches(5, neighbours)
    before = pulls(data.distiller, batch)
    assert (before.abs().amax(1) > 1e-12).all()

    def moved(changed: Batch) -> list[int]:
        apart_B = (pulls(data.distiller, changed) - before).abs().amax(1)
        scale = before.abs().max()
        assert ((apart_B < 1e-9 * scale) | (apart_B > 1e-6 * scale)).all()
        return (apart_B > 1e-6 * scale).nonzero()[:, 0].tolist()

    for sample in range(4):
        assert moved(with_other_text(batch, sample)) == [sample + 1]
    assert moved(with_other_text(batch, 4)) == ([] if neighbours else [0])
    if neighbours:
        other = Batch(**batch)  # type: ignore[typeddict-item]
        other["before"] = with_other_text(batch["before"], 0)
        assert moved(other) == [0]


def ragged(tmp_path: Path) -> str:
    """Reasoning of two tokens to some twenty."""
    file = tmp_path / "ragged.jsonl"
    texts = ["1 2 3\nend", "so much more of it\nand more\nend", "1\nend", "a b c d\nend", "23\nend"]
    lines = [
        {"question": f"{text}?" * n, "reasoning": text, "answer": "2" * n}
        for n, text in enumerate(texts, 1)
    ]
    file.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    return str(file)


OTHER: dict[str, Any] = {"teacher_name": "kava/tiny-llama"}
TEXT: dict[str, Any] = {**OTHER, "student": "explicit"}
KINDS: dict[str, dict[str, Any]] = {
    "latents": OTHER,
    "all terms": {"codi_weight": 1.0, "latent_ce_weight": 1.0, "teacher_ce_weight": 1.0},
    "latents of a whole cache": {**OTHER, "kv_method": "full"},
    "latents by segments": {**OTHER, "kv_method": "full", "use_segment_resampling": True},
    "a text": TEXT,
    "a text, whole": {**TEXT, "kv_method": "full"},
    "a text by segments": {**TEXT, "kv_method": "full", "use_segment_resampling": True},
}


def ragged_data(kind: str, tmp_path: Path, wrong_sample: bool = True) -> tuple[TrainConfig, Data]:
    options = {"ce_weight": 1.0, "model_name": "kava/tiny-llama", "keep_short": True, **KINDS[kind]}
    config = small(
        dataset_name=ragged(tmp_path), target_len=6, max_length=256, wrong_sample=wrong_sample,
        **options,
    )  # fmt: skip
    return config, Data(config)


@pytest.mark.parametrize("wrong_sample", [False, True], ids=["own", "wrong"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_is_the_mean_over_the_pairs_that_are_compared(
    kind: str, wrong_sample: bool, tmp_path: Path
) -> None:
    config, data = ragged_data(kind, tmp_path, wrong_sample)
    for size in (5, 2):
        for batch in data.batches(size):
            forward = data.distiller(batch)
            assert forward.student is not None
            assert forward.target is not None
            total, pairs = 0.0, 0
            for sample in range(len(batch["ids"])):
                ours, theirs = (
                    trace.samples([sample]) for trace in (forward.student, forward.target.trace)
                )
                total += data.distiller.matching.kv_loss(ours, theirs, 1)[0].item()
                pairs += int((ours.valid_BT() & theirs.valid_BT()).sum())
            assert count_items(batch, config)[2] == pairs
            assert forward.metrics["kv"].item() == pytest.approx(total / pairs, rel=1e-5)


def test_fewer_pairs_than_the_samples_own_are_not_divided_by_theirs(tmp_path: Path) -> None:
    """A text is compared where both samples have positions, and divided by these alone."""
    config, data = ragged_data("a text", tmp_path)
    (batch,) = data.batches(5)
    own = count_items(batch, replace(config, wrong_sample=False))[2]
    assert 0 < count_items(batch, config)[2] < 0.8 * own
    # latents are compared wherever the other sample has a target: as many as without the control
    config, data = ragged_data("latents", tmp_path)
    (batch,) = data.batches(5)
    assert count_items(batch, config) == count_items(batch, replace(config, wrong_sample=False))


@pytest.mark.parametrize("kind", KINDS)
def test_the_controls_gradient_does_not_depend_on_how_a_batch_is_cut(
    kind: str, tmp_path: Path
) -> None:
    config, data = ragged_data(kind, tmp_path)
    data.distiller.double().eval()
    if data.distiller.teacher is not None:
        data.distiller.teacher.double()
    (whole,) = data.batches(5, neighbours=False)
    counts = torch.tensor(count_items(whole, config))
    data.distiller(whole).loss.backward()
    named = {n: p for n, p in data.distiller.named_parameters() if p.grad is not None}
    gradients = {name: p.grad.clone() for name, p in named.items() if p.grad is not None}
    for size in (1, 2, 3):
        parts = data.batches(size)
        assert torch.equal(
            torch.tensor([count_items(part, config) for part in parts]).sum(0), counts
        )
        data.distiller.zero_grad()
        for part in parts:
            data.distiller(part, counts.double()).loss.backward()
        for name, gradient in gradients.items():
            torch.testing.assert_close(named[name].grad, gradient, atol=1e-7, rtol=1e-5)


def test_the_row_before_of_a_batch() -> None:
    own = torch.arange(6).view(3, 2)
    assert of_sample_before(own).tolist() == [[4, 5], [0, 1], [2, 3]]
    assert of_sample_before(own, 10 * own).tolist() == [[40, 50], [0, 1], [2, 3]]
    assert of_sample_before(own[:1], own[1:]).tolist() == [[4, 5]]
    with pytest.raises(ValueError, match="a batch of 1 sample has no wrong sample"):
        of_sample_before(own[:1])
