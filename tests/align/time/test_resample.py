"""Segments keep their ends, their order and their proportions, in every sample by itself."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kava.align import TimeWarper
from kava.align.time.resample import SegmentResampling
from kava.align.time.trace import warp_trace
from kava.trace import KVTrace

PAD = -1


def trace_of(rows: list[list[int]], *, rotated: bool = False) -> KVTrace:
    """Values that say which column they come from; padding holds NaN."""
    segment_ids = torch.tensor(rows)
    B, T = segment_ids.shape
    column = torch.arange(float(T)).expand(B, 2, 3, T)[..., None].clone()
    column.masked_fill_((segment_ids < 0)[:, None, None, :, None], math.nan)
    return KVTrace(
        column,
        column.expand(-1, -1, -1, -1, 4),
        queries=column.repeat(1, 1, 2, 1, 1),
        mask=segment_ids >= 0,
        segment_ids=segment_ids,
        positions=torch.arange(T).expand(B, T),
        rotated=rotated,
    )


def read(trace: KVTrace, sample: int = 0) -> list[float]:
    in_use = trace.valid_BT()[sample]
    return trace.keys[sample, 1, 2, in_use, 0].tolist()


ROWS = [
    [0, 0, 0, 1, 1, 1, 1, 1, 2, 2, PAD],
    [PAD, 0, 1, 1, 1, 1, 1, 1, 1, 2, 2],
    [PAD, PAD, PAD, 0, 0, 1, 1, 1, 2, PAD, PAD],
]


def test_latents_read_the_reasoning_from_end_to_end() -> None:
    resampling = SegmentResampling(ratios={1: 1.0}, alphas={})
    warped, columns = resampling.to_latents(trace_of(ROWS), 3)
    assert [read(warped, sample) for sample in range(3)] == [[3, 5, 7], [2, 5, 8], [5, 6, 7]]
    assert columns.tolist() == [[3, 5, 7], [2, 5, 8], [5, 6, 7]]
    assert (warped.segment_ids == 1).all()
    assert warped.mask.all()
    assert warped.queries.shape == (3, 2, 6, 3, 1)


def test_latents_are_shared_out_by_ratio_and_read_by_alpha() -> None:
    resampling = SegmentResampling(ratios={0: 0.5, 1: 1.0, 2: 0.0}, alphas={1: 0.0})
    warped, _ = resampling.to_latents(trace_of(ROWS[:1]), 4)
    assert read(warped) == [2.0, 3.0, 5.0, 7.0]
    assert warped.segment_ids.tolist() == [[0, 1, 1, 1]]
    smooth, _ = SegmentResampling(ratios={1: 1.0}, alphas={}).to_latents(trace_of(ROWS[:1]), 4)
    assert read(smooth) == pytest.approx([3, 3 + 4 / 3, 3 + 8 / 3, 7])
    half, _ = SegmentResampling(ratios={1: 1.0}, alphas={1: 0.5}).to_latents(trace_of(ROWS[:1]), 4)
    assert read(half) == pytest.approx([3, 3 + 4 / 3 / 2 + 0.5, 3 + 8 / 3 / 2 + 1.5, 7])


def test_a_student_of_the_same_text_is_compared_at_its_own_positions() -> None:
    trace = trace_of(ROWS)
    everything = SegmentResampling(ratios={0: 1.0, 1: 1.0, 2: 1.0}, alphas={0: 0.3})
    warped, columns = everything.to_text(trace, trace.segment_ids, trace.mask)
    for sample, row in enumerate(ROWS):
        valid = [column for column, segment in enumerate(row) if segment != PAD]
        assert read(warped, sample) == valid
        assert columns[sample, : len(valid)].tolist() == valid
        assert warped.mask[sample].sum() == len(valid)
    halved = SegmentResampling(ratios={0: 0.5, 1: 0.5}, alphas={})
    warped, columns = halved.to_text(trace, trace.segment_ids)
    assert [read(warped, sample) for sample in range(3)] == [
        [0, 2, 3, 5, 7],
        [1, 2, 4, 6, 8],
        [4, 5, 7],
    ]
    ours = trace.gather(columns, mask=warped.mask)
    for sample in range(3):
        assert read(ours, sample) == read(warped, sample)


def test_a_student_of_other_tokens_reads_the_same_place_of_the_same_segment() -> None:
    teacher = trace_of([[0, 0, 1, 1, 1, 1, 1, 2, 2, 2]])
    student_ids = torch.tensor([[PAD, 0, 1, 1, 1, 2, 2]])
    resampling = SegmentResampling(ratios={0: 1.0, 1: 1.0, 2: 1.0}, alphas={})
    warped, columns = resampling.to_text(teacher, student_ids)
    assert columns.tolist() == [[1, 2, 3, 4, 5, 6]]
    assert read(warped) == [1, 2, 4, 6, 7, 9]
    assert warped.segment_ids.tolist() == [[0, 1, 1, 1, 2, 2]]
    # a segment that is left out need not be there
    reasoning = SegmentResampling(ratios={1: 1.0}, alphas={})
    warped, columns = reasoning.to_text(trace_of([[1, 1, 1, 1, 2]]), student_ids)
    assert (columns.tolist(), read(warped)) == ([[2, 3, 4]], [0, 1.5, 3])
    with pytest.raises(ValueError, match="sample 0 of the batch has no valid position in segment"):
        resampling.to_text(trace_of([[1, 1, 1, 1, 2]]), student_ids)


segment_sizes = st.tuples(
    st.integers(0, 3), *(st.integers(1, 7) for _ in range(3)), st.integers(0, 3)
)


def rows_of(samples: list[tuple[int, ...]]) -> list[list[int]]:
    rows = [[s for s, n in zip((PAD, 0, 1, 2, PAD), sizes) for _ in range(n)] for sizes in samples]
    T = max(map(len, rows))
    return [row + [PAD] * (T - len(row)) for row in rows]


@settings(deadline=None, max_examples=100)
@given(
    samples=st.lists(st.tuples(segment_sizes, segment_sizes), min_size=1, max_size=4),
    ratios=st.tuples(*(st.sampled_from([0.0, 0.3, 1.0, 2.0]) for _ in range(3))).filter(any),
    alphas=st.tuples(*(st.sampled_from([0.0, 0.4, 1.0]) for _ in range(3))),
)
def test_a_slow_loop_finds_the_same_places(
    samples: list[tuple[tuple[int, ...], tuple[int, ...]]],
    ratios: tuple[float, ...],
    alphas: tuple[float, ...],
) -> None:
    teachers = rows_of([teacher for teacher, _ in samples])
    students = rows_of([student for _, student in samples])
    resampling = SegmentResampling(ratios=dict(enumerate(ratios)), alphas=dict(enumerate(alphas)))
    warped, columns = resampling.to_text(trace_of(teachers), torch.tensor(students))
    for sample, (teacher, student) in enumerate(zip(teachers, students)):
        expected_columns: list[int] = []
        expected: list[float] = []
        for segment in range(3):
            ours = [column for column, s in enumerate(student) if s == segment]
            theirs = [column for column, s in enumerate(teacher) if s == segment]
            share = ratios[segment] * len(ours)
            m = max(1, math.floor(share + 0.5)) if share else 0
            for slot in range(m):
                p = math.floor(slot * (len(ours) - 1) / (m - 1) + 0.5) if m > 1 else len(ours) - 1
                expected_columns.append(ours[p])
                at = p * (len(theirs) - 1) / (len(ours) - 1) if len(ours) > 1 else len(theirs) - 1
                linear = theirs[0] + at
                nearest = theirs[0] + math.floor(at + 0.5 + 1e-9)
                alpha = alphas[segment]
                expected.append(alpha * linear + (1 - alpha) * nearest)
        in_use = int(warped.valid_BT()[sample].sum())
        assert columns[sample, :in_use].tolist() == expected_columns
        assert read(warped, sample) == pytest.approx(expected, abs=1e-5)
        assert in_use == int(resampling.slots(torch.tensor(students))[sample].sum())


def test_rotated_keys_of_different_positions_are_not_averaged() -> None:
    rotated = trace_of(ROWS, rotated=True)
    with pytest.raises(ValueError, match="un-rotate them first"):
        SegmentResampling(ratios={1: 1.0}, alphas={}).to_latents(rotated, 4)
    nearest = SegmentResampling(ratios={1: 1.0}, alphas={1: 0.0})
    assert nearest.to_latents(rotated, 4)[0].rotated


def test_gradients_pass_and_a_warp_leaves_the_parts_that_are_not_there() -> None:
    keys = torch.randn(1, 2, 2, 6, 4, dtype=torch.float64, requires_grad=True)
    ids = torch.tensor([[0, 1, 1, 1, 1, 2]])
    resampling = SegmentResampling(ratios={1: 1.0, 2: 1.0}, alphas={1: 0.5})

    def warped(keys: torch.Tensor) -> torch.Tensor:
        return resampling.to_latents(KVTrace(keys, keys, segment_ids=ids, rotated=False), 3)[0].keys

    assert torch.autograd.gradcheck(warped, keys)
    plan = TimeWarper().plan(ids, 4)
    bare = warp_trace(KVTrace(keys, keys), plan)
    assert (bare.mask, bare.queries, bare.positions) == (None, None, None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratios": {1: 0.0}, "alphas": {}}, "leave every segment out"),
        ({"ratios": {}, "alphas": {}}, "leave every segment out"),
        ({"ratios": {1: -1.0}, "alphas": {}}, r"ratio_map\[1\]=-1.0"),
        ({"ratios": {1: 1.0}, "alphas": {1: 2.0}}, r"alpha_map\[1\]=2.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SegmentResampling(**options)  # type: ignore[arg-type]


def test_a_trace_without_segments_is_refused() -> None:
    bare = KVTrace(torch.zeros(1, 1, 1, 2, 1), torch.zeros(1, 1, 1, 2, 1))
    resampling = SegmentResampling(ratios={1: 1.0}, alphas={})
    with pytest.raises(ValueError, match="segments of a whole text"):
        resampling.to_latents(bare, 1)
