"""The wrong-sample control: another sample's cache for each, however the data are cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from kava.data.collate import Collator
from kava.data.neighbours import with_neighbours
from kava.train.config import TrainConfig
from kava.train.data import load_data
from kava.train.models import build_distiller, build_teacher_tokenizer, build_tokenizer
from kava.train.wrong_sample import reasoning_to_read, wrong_weights
from train.runs import metrics, run, small

TEACHER = {"teacher_name": "kava/shell-teacher"}
OTHER = {
    "teacher_name": "kava/shell-gpt2", "alignment_mode": "structured", "aligner_fit": "frozen",
    "max_length": 256,
}  # fmt: skip
KINDS: dict[str, dict[str, Any]] = {
    "self-distillation": {},
    "another teacher": TEACHER,
    "jacobi": {"decoding": "jacobi", "jacobi_iterations": 2, **TEACHER},
    "a text of every position": {"student": "explicit", "kv_method": "full", **TEACHER},
    "a warped cache": {
        "kv_method": "full", "alignment_mode": "structured", "aligner_fit": "frozen",
    },
    "resampled segments": {"kv_method": "full", "use_segment_resampling": True, **TEACHER},
    "keys as the student's": {"key_space": "student", **TEACHER},
    "weighted slots": {"attention_weighted_kv": True, **TEACHER},
    "another tokenizer": {"token_alignment": "soft", **OTHER},
    "a teacher's own positions": {"token_alignment": "none", **OTHER},
}  # fmt: skip
RAGGED = "kava/shell-game?form=verbose&student_form=compact&num_train=5"


def collated(config: TrainConfig, size: int, neighbours: bool = True) -> list[Any]:
    """The batches of five samples, so many at a time."""
    tokenizer = build_tokenizer(config)
    theirs = build_teacher_tokenizer(config, tokenizer)
    samples = with_neighbours(load_data(config, tokenizer, theirs).train)
    assert isinstance(tokenizer.pad_token_id, int)
    pad = None if theirs is None else theirs.pad_token_id
    collate = Collator(tokenizer.pad_token_id, pad, neighbours=neighbours)
    return [collate(samples[start : start + size]) for start in range(0, 5, size)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_gets_the_same_wrong_cache_alone_and_in_any_batch(kind: str) -> None:
    config = small(dataset_name=RAGGED, wrong_sample=True, max_length=128)
    config = replace(config, **KINDS[kind])
    distiller = build_distiller(config).eval()
    whole = distiller(collated(config, 5, neighbours=False)[0]).target
    for size in (1, 2):
        start = 0
        for batch in collated(config, size):
            part = distiller(batch).target
            rows = slice(start, start + len(batch["ids"]))
            start = rows.stop
            valid = part.trace.valid_BT()
            M = valid.shape[1]
            assert torch.equal(whole.trace.valid_BT()[rows, :M], valid)
            assert not whole.trace.valid_BT()[rows, M:].any()
            for name in ("keys", "values"):
                ours, theirs = (getattr(t.trace, name) for t in (part, whole))
                kept = valid[:, None, None, :, None]
                torch.testing.assert_close(
                    ours * kept, theirs[rows, ..., :M, :] * kept, atol=2e-5, rtol=1e-4
                )
            if part.weights is not None:
                torch.testing.assert_close(part.weights, whole.weights[rows, :M])


def test_the_first_of_a_set_gets_the_last_ones_cache() -> None:
    config = small(dataset_name=RAGGED, max_length=128, **TEACHER)
    right = build_distiller(config).eval()(collated(config, 5)[0]).target.trace
    wrong = build_distiller(replace(config, wrong_sample=True)).eval()
    alone = wrong(collated(config, 1)[0]).target.trace
    torch.testing.assert_close(alone.keys[0], right.keys[4], atol=2e-5, rtol=1e-4)


def test_latents_read_as_the_same_wrong_reasoning_in_any_batch() -> None:
    config = small(dataset_name=RAGGED, max_length=128)

    def read(batch: Any) -> list[list[int]]:
        ids, reasoning = reasoning_to_read(batch, wrong_sample=True)
        return [row[here].tolist() for row, here in zip(ids, reasoning)]

    (whole,) = map(read, collated(config, 5, neighbours=False))
    for size in (1, 2, 5):
        assert [row for batch in collated(config, size) for row in read(batch)] == whole
    ids, reasoning = reasoning_to_read(collated(config, 5)[0], wrong_sample=False)
    right = [row[here].tolist() for row, here in zip(ids, reasoning)]
    assert whole == right[-1:] + right[:-1]


def test_weights_of_another_number_of_slots_are_cut_or_filled_up() -> None:
    own = torch.arange(6.0).reshape(2, 3)
    assert wrong_weights(own, torch.ones(1, 2))[0].tolist() == [1, 1, 0]
    assert wrong_weights(own, torch.ones(1, 4)).tolist() == [[1, 1, 1], [0, 1, 2]]


def test_a_batch_of_one_without_another_is_refused() -> None:
    config = small(dataset_name=RAGGED, max_length=128, wrong_sample=True)
    (batch, *_) = collated(config, 1)
    del batch["before"]
    with pytest.raises(ValueError, match="a batch of 1 sample has no wrong sample"):
        build_distiller(config)(batch)
    with pytest.raises(ValueError, match="a batch of 1 sample has no wrong sample"):
        reasoning_to_read(batch, wrong_sample=True)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_run_trains_and_evaluates_on_batches_of_one(batch_size: int, tmp_path: Path) -> None:
    """Five samples by two: the last is alone; three held out by two: so is the last of them."""
    config = small(
        tmp_path, batch_size=batch_size, max_steps=5, dataset_name="kava/shell-game?num_train=5",
        wrong_sample=True, latent_ce_weight=0.5, eval_dataset_name="kava/shell-game", eval_size=3,
        eval_batch_size=2, max_new_tokens=1,
    )  # fmt: skip
    built = run(config)
    assert len(metrics(tmp_path)) == 5
    assert built.trainer.guard.verdict is not None
