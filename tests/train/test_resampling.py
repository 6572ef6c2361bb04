"""Segment-wise resampling in training: which places are compared, by whom, and how many."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from runs import distiller_and_batch, metrics, rows, run, small, weights

from kava.trace import Segment
from kava.train.items import count_items
from kava.train.resampling import parse_segment_numbers

TEACHER = {"teacher_name": "kava/shell-teacher"}
VERBOSE = {"dataset_name": "kava/shell-game?form=verbose&num_train=64", "max_length": 96}
RESAMPLED: dict[str, Any] = {
    "use_segment_resampling": True,
    "kv_method": "full",
    **VERBOSE,
    **TEACHER,
}
HETERO = {
    "teacher_name": "kava/shell-gpt2",
    "alignment_mode": "structured",
    "aligner_fit": "frozen",
    "max_length": 256,
}


def test_latents_are_given_the_whole_reasoning_from_end_to_end() -> None:
    """By default the reasoning alone, as a full cache is warped without the flag."""
    distiller, batch = distiller_and_batch(small(**RESAMPLED))
    target = distiller(batch).target
    reasoning = batch["segment_ids"] == Segment.REASONING
    first = reasoning.long().argmax(1)
    last = reasoning.shape[1] - 1 - reasoning.flip(1).long().argmax(1)
    assert torch.equal(target.columns[:, 0], first)
    assert torch.equal(target.columns[:, -1], last)
    plain, _ = distiller_and_batch(small(kv_method="full", **TEACHER, **VERBOSE))
    full = plain(batch).target.trace
    torch.testing.assert_close(target.trace.keys, full.keys, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(target.trace.values, full.values, atol=1e-5, rtol=1e-5)


def test_segments_share_the_latents_by_their_ratios() -> None:
    config = small(segment_ratios="0:0.2,1:1", segment_alphas="1:0", target_len=4, **RESAMPLED)
    distiller, batch = distiller_and_batch(config)
    trace = distiller(batch).target.trace
    assert set(trace.segment_ids.unique().tolist()) == {0, 1}
    assert (trace.segment_ids == 1).sum(1).ge(2).all()
    assert count_items(batch, config)[2] == 4 * len(batch["ids"])


@pytest.mark.parametrize(
    ("ratios", "segments"), [("1:1", {1}), ("0:1,1:1,2:1", {0, 1, 2}), ("1:0.5,2:1", {1, 2})]
)
def test_a_reader_of_the_same_text_is_compared_at_its_own_positions(
    ratios: str, segments: set[int]
) -> None:
    """Equal weights, equal text: the target is the student's own cache, at every place."""
    config = small(
        model_name="kava/shell-teacher",
        student="explicit",
        segment_ratios=ratios,
        segment_alphas="0:0.5",
        **RESAMPLED,
    )
    distiller, batch = distiller_and_batch(config)
    forward = distiller(batch)
    ours, theirs = forward.student, forward.target.trace
    valid = theirs.valid_BT()
    torch.testing.assert_close(
        ours.keys.movedim(3, 1)[valid], theirs.keys.movedim(3, 1)[valid], atol=1e-5, rtol=1e-5
    )
    found = batch["segment_ids"].gather(1, forward.target.columns)[valid]
    assert set(found.tolist()) == segments
    assert int(valid.sum()) == count_items(batch, config)[2]
    assert forward.metrics["kv"] < 1e-6
    if ratios == "1:1":
        assert int(valid.sum()) == int((batch["segment_ids"] == 1).sum())


@pytest.mark.parametrize("student", ["latent", "explicit"])
@pytest.mark.parametrize("tokens", ["hard", "soft", "none"])
def test_a_teacher_of_other_tokens_is_read_by_segments(student: str, tokens: str) -> None:
    config = small(
        student=student,
        token_alignment=tokens,
        segment_ratios="0:1,1:1,2:1",
        **RESAMPLED | HETERO,
    )
    distiller, batch = distiller_and_batch(config)
    assert batch["teacher"]["input_ids"].shape != batch["input_ids"].shape
    forward = distiller(batch)
    forward.loss.backward()
    assert torch.isfinite(forward.loss)
    trace = forward.target.trace
    assert trace.length == (3 if student == "latent" else int(batch["attention_mask"].sum(1).max()))
    if student == "explicit":
        theirs = batch["segment_ids"].gather(1, forward.target.columns)
        valid = trace.valid_BT()
        assert torch.equal(trace.segment_ids[valid], theirs[valid])


@pytest.mark.parametrize("tokens", ["hard", "soft"])
def test_a_teacher_brought_to_the_students_tokens_is_read_at_these(tokens: str) -> None:
    options = {"student": "explicit", "token_alignment": tokens, **RESAMPLED, **HETERO}
    distiller, batch = distiller_and_batch(small(**options))
    warped = distiller(batch).target
    plain, _ = distiller_and_batch(small(**options | {"use_segment_resampling": False}))
    kept = plain(batch).target
    assert torch.equal(warped.columns, kept.columns)
    torch.testing.assert_close(warped.trace.keys, kept.trace.keys, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(warped.trace.values, kept.trace.values, atol=1e-5, rtol=1e-5)
    by_segments, _ = distiller_and_batch(small(**options | {"token_alignment": "none"}))
    assert not torch.allclose(by_segments(batch).target.trace.keys, kept.trace.keys, atol=1e-3)


@pytest.mark.parametrize("student", ["latent", "explicit"])
def test_a_sample_is_warped_the_same_alone_and_in_a_batch(student: str) -> None:
    config = small(student=student, segment_ratios="0:0.5,1:0.5", **RESAMPLED)
    distiller, batch = distiller_and_batch(config)
    whole = distiller(batch).target.trace
    half = distiller(rows(batch, slice(4, 8))).target.trace
    kept = half.valid_BT()
    assert torch.equal(whole.valid_BT()[4:, : half.length], kept)
    torch.testing.assert_close(
        whole.keys[4:, :, :, : half.length].movedim(3, 1)[kept],
        half.keys.movedim(3, 1)[kept],
        atol=1e-5,
        rtol=1e-5,
    )


@pytest.mark.parametrize("student", ["latent", "explicit"])
def test_it_trains(student: str, tmp_path: Any) -> None:
    config = small(tmp_path, student=student, segment_ratios="1:0.5", **RESAMPLED)
    before = weights(distiller_and_batch(config)[0].student)
    built = run(config)
    losses = [line["kv"] for line in metrics(tmp_path)]
    assert len(losses) == 4
    after = weights(built.trainer.model.student)
    assert any(not torch.equal(after[name], weight) for name, weight in before.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kv_method": "rkv"}, "of which --kv_method rkv keeps a part: pass --kv_method full"),
        ({"segment_ratios": "1:0"}, "leave every segment out"),
        ({"segment_ratios": "one"}, "--segment_ratios 'one': 'one' is not segment:number"),
        ({"segment_alphas": "1:2"}, "1:2 must be from 0 to 1"),
        ({"kv_scope": "head"}, "leave out --kv_scope head"),
        ({"key_space": "rotated"}, "or --segment_alphas 1:0"),
        ({"use_segment_resampling": False, "segment_ratios": "1:0.5"}, "--use_segment_resampling"),
        ({"use_segment_resampling": False, "segment_alphas": "1:0"}, "--use_segment_resampling"),
        (
            {"use_segment_resampling": False, "student": "explicit", "token_alignment": "none"},
            "or add --use_segment_resampling",
        ),
    ],
)
def test_flags_that_exclude_each_other_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small(**RESAMPLED | changes)


def test_cached_keys_may_be_read_at_the_nearest_position() -> None:
    config = small(key_space="rotated", segment_alphas="1:0", **RESAMPLED)
    distiller, batch = distiller_and_batch(config)
    assert distiller(batch).target.trace.rotated


def test_numbers_by_segment_are_read_as_they_are_written() -> None:
    assert parse_segment_numbers("0:1.0,1:0.5, 2:1", "--x") == {0: 1.0, 1: 0.5, 2: 1.0}
    for bad in ("", "1", "a:1", "1:b", "1:1,,"):
        with pytest.raises(ValueError, match=r"--x .* is not segment:number"):
            parse_segment_numbers(bad, "--x")
    for bad in ("3:1", "-1:1", "1:1,1:2"):
        with pytest.raises(ValueError, match="name each of the segments"):
            parse_segment_numbers(bad, "--x")
    for bad in ("0:nan", "0:inf", "0:-1", "0:1e999"):
        with pytest.raises(ValueError, match="must be finite and not negative"):
            parse_segment_numbers(bad, "--x")
    with pytest.raises(ValueError, match=r"1:1\.5 must be from 0 to 1"):
        parse_segment_numbers("0:1,1:1.5", "--x", most=1)
