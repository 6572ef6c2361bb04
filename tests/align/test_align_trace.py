from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from kava.align import MapProjectionAligner, align_trace
from kava.attention import AttentionForm
from kava.rope import Rotary, rotate_trace, unrotate_trace
from kava.trace import KVTrace, Scope


def make(equal: bool = False, **options: Any) -> MapProjectionAligner:
    student = (4, 6, 16) if equal else (2, 4, 8)
    return MapProjectionAligner(
        num_teacher_layers=4,
        num_student_layers=student[0],
        num_teacher_heads=6,
        num_student_heads=student[1],
        teacher_head_dim=16,
        student_head_dim=student[2],
        **options,
    )


def make_trace(**parts: Any) -> KVTrace:
    torch.manual_seed(0)
    mask = torch.ones(2, 9).bool()
    mask[0, :2], mask[1, 7:] = False, False
    segment_ids = torch.tensor([[-1, -1, 0, 0, 1, 1, 1, 1, 2], [0, 1, 1, 1, 1, 2, 2, -1, -1]])
    positions = (mask.long().cumsum(1) - 1).clamp(min=0)
    keys, values, queries = (torch.randn(2, 4, 6, 9, 16) for _ in range(3))
    trace = KVTrace(keys, values, queries, mask, segment_ids, positions, rotated=False)
    return replace(trace, **parts)


def test_without_a_warp_everything_about_positions_stays() -> None:
    trace = make_trace(scope="model", rotated=True)
    aligner = make()
    aligned = align_trace(aligner, trace)
    assert aligned.keys.shape == (2, 2, 4, 9, 8)
    for part in ("mask", "segment_ids", "positions", "scope", "rotated"):
        assert getattr(aligned, part) is getattr(trace, part)
    keys, values, queries = aligner(trace.keys, trace.values, trace.queries)
    assert torch.equal(aligned.keys, keys)
    assert torch.equal(aligned.values, values)
    assert torch.equal(aligned.queries, queries)


@pytest.mark.parametrize("target_length", [4, 9, 15])
def test_a_warp_takes_mask_segments_and_positions_along(target_length: int) -> None:
    trace = make_trace()
    # Values that say their own position must come out at the positions that the trace reports.
    values = trace.positions[:, None, None, :, None].expand(2, 4, 6, 9, 16).float()
    aligned = align_trace(make(), replace(trace, values=values), target_length)
    assert aligned.length == target_length
    assert aligned.mask.all()
    spoken = aligned.values[:, 0, 0, :, 0]
    assert torch.equal(aligned.positions, spoken.round().long())
    assert (aligned.positions.diff(dim=1) >= 0).all()
    # The only slot of a prompt of two positions reads the second.
    assert aligned.positions[:, 0].tolist() == ([1, 0] if target_length == 4 else [0, 0])
    assert aligned.positions[:, -1].tolist() == [6, 6]
    assert aligned.segment_ids.unique().tolist() == [0, 1, 2]
    assert (aligned.segment_ids.diff(dim=1) >= 0).all()


def test_a_trace_without_its_optional_parts() -> None:
    trace = KVTrace(torch.randn(2, 4, 6, 9, 16), torch.randn(2, 4, 6, 9, 16))
    aligned = align_trace(make(), trace, 5)
    assert aligned.keys.shape == (2, 2, 4, 5, 8)
    assert (aligned.queries, aligned.mask, aligned.segment_ids, aligned.positions) == (None,) * 4


def by_head(part: torch.Tensor) -> torch.Tensor:
    return part[:, None, None].expand(2, 4, 6, 9)


@pytest.mark.parametrize(
    ("scope", "layer_map", "message"),
    [
        ("head", "skip", "scope='head' keeps other positions in every head"),
        ("head", "uniform", "scope='head'"),
        ("layer", "uniform", "the layer map would mix layers"),
        ("layer", "skip", None),
        ("model", "uniform", None),
    ],
)
def test_only_vectors_of_one_position_are_mixed(
    scope: Scope, layer_map: str, message: str | None
) -> None:
    trace = make_trace(scope=scope)
    trace = replace(trace, positions=by_head(trace.positions))
    for mode in ("structured", "flat"):
        aligner = make(mode=mode, layer_map=layer_map)
        if message is not None:
            with pytest.raises(ValueError, match=message):
                align_trace(aligner, trace)
        else:
            assert align_trace(aligner, trace).scope == scope


def test_positions_per_head_without_a_recorded_scope_are_not_mixed() -> None:
    trace = make_trace()
    with pytest.raises(ValueError, match="scope='head'"):
        align_trace(make(), replace(trace, positions=by_head(trace.positions)))


def test_positions_of_the_chosen_layers_are_taken_along() -> None:
    trace = make_trace(scope="layer")
    layers = torch.arange(4).view(1, 4, 1, 1)
    positions = by_head(trace.positions) + 100 * layers
    aligned = align_trace(make(layer_map="skip"), replace(trace, positions=positions))
    assert aligned.positions.shape == (2, 2, 4, 9)
    assert torch.equal(aligned.positions[:, 0, 2], trace.positions)
    assert torch.equal(aligned.positions[:, 1, 3], trace.positions + 300)


def test_identity_keeps_a_scope_per_head_but_cannot_warp_it() -> None:
    trace = make_trace(scope="head")
    trace = replace(trace, positions=by_head(trace.positions))
    aligned = align_trace(make(equal=True, mode="identity"), trace)
    assert torch.equal(aligned.keys, trace.keys)
    assert torch.equal(aligned.positions, trace.positions)
    with pytest.raises(ValueError, match="no common time to warp"):
        align_trace(make(equal=True, mode="identity"), trace, 5)


def test_rotated_keys_are_not_interpolated_but_may_be_picked() -> None:
    trace = make_trace(rotated=True)
    with pytest.raises(ValueError, match="un-rotate them first"):
        align_trace(make(), trace, 5)
    nearest = align_trace(make(alpha_map=dict.fromkeys(range(3), 0.0)), trace, 5)
    assert nearest.rotated
    assert nearest.positions.shape == (2, 5)


def form() -> AttentionForm:
    """Every layer attends in a way of its own."""
    return AttentionForm(
        scaling=(1.0, 2.0, 3.0, 4.0),
        softcap=(None, 5.0, None, 6.0),
        window=(2, None, 3, None),
        sinks=torch.arange(24.0).view(4, 6),
    )


@pytest.mark.parametrize("unrotates", [False, True])
@pytest.mark.parametrize("target_length", [None, 5])
@pytest.mark.parametrize(
    ("equal", "options", "layers"),
    [
        (True, {"mode": "identity"}, [0, 1, 2, 3]),
        (False, {"direction": "student_to_teacher", "layer_map": "skip"}, [0, 3]),
        # mapped heads attend as whatever they are compared with
        (False, {"mode": "structured"}, None),
        (True, {"mode": "flat"}, None),
    ],
)
def test_each_layer_attends_as_the_one_that_it_reads(
    equal: bool,
    options: dict[str, Any],
    layers: list[int] | None,
    target_length: int | None,
    unrotates: bool,
) -> None:
    trace = make_trace(attention=form(), rotated=unrotates)
    if unrotates:
        rotary = Rotary(inv_freq=torch.tensor([1.0, 0.1]), rotary_dim=4)
        trace = unrotate_trace(trace, rotary)
        assert rotate_trace(trace, rotary).attention is trace.attention
    aligned = align_trace(make(equal=equal, **options), trace, target_length).attention
    if layers is None:
        assert aligned is None
        return
    assert aligned is not None
    expected = form().layers(layers)
    for part in ("scaling", "softcap", "window", "chunk"):
        assert getattr(aligned, part) == getattr(expected, part)
    assert torch.equal(aligned.sinks, expected.sinks)
