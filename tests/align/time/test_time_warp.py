from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from align.oracles import loop_share_out, loop_warp
from kava.align import TimeWarper
from kava.align.time.time_warp import _share_out


def ramp(length: int) -> torch.Tensor:
    return torch.arange(float(length)).view(1, 1, 1, length, 1)


def test_a_ramp_of_ten_in_five_slots() -> None:
    def warp(alpha: float) -> list[float]:
        return TimeWarper(alpha_map={0: alpha})(ramp(10), None, 5).flatten().tolist()

    assert warp(1.0) == [0, 2.25, 4.5, 6.75, 9]
    assert warp(0.0) == [0, 2, 5, 7, 9]
    assert warp(0.5) == [0, 2.125, 4.75, 6.875, 9]


samples = st.lists(
    st.tuples(
        *(st.integers(0, 6) for _ in range(5))  # pads, prompt, reasoning, answer, pads
    ).filter(lambda sizes: sum(sizes[1:4]) > 0),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=150)
@given(
    samples=samples,
    target_length=st.integers(1, 20),
    ratios=st.tuples(*(st.sampled_from([0.25, 0.5, 1.0, 3.0]) for _ in range(3))),
    alphas=st.tuples(*(st.sampled_from([0.0, 0.3, 1.0]) for _ in range(3))),
)
def test_ragged_batches_equal_the_loop(
    samples: list[tuple[int, ...]],
    target_length: int,
    ratios: tuple[float, ...],
    alphas: tuple[float, ...],
) -> None:
    T = max(sum(sizes) for sizes in samples)
    rows = [
        sum(([s] * n for s, n in zip((-1, 0, 1, 2, -1), sizes)), [])  # noqa: RUF017
        for sizes in samples
    ]
    rows = [row + [-1] * (T - len(row)) for row in rows]
    segment_ids = torch.tensor(rows)
    x = torch.randn(len(rows), 3, 2, T, 4)
    x.masked_fill_((segment_ids < 0)[:, None, None, :, None], float("nan"))
    warper = TimeWarper(ratio_map=dict(enumerate(ratios)), alpha_map=dict(enumerate(alphas)))
    warped = warper(x, segment_ids, target_length)
    assert warped.shape == (len(rows), 3, 2, target_length, 4)
    for b, row in enumerate(rows):
        expected = loop_warp(x[b].movedim(2, 0), row, target_length, list(ratios), list(alphas))
        torch.testing.assert_close(warped[b].movedim(2, 0), expected, atol=1e-5, rtol=1e-5)
        alone = warper(x[b : b + 1], segment_ids[b : b + 1], target_length)
        assert torch.equal(alone[0], warped[b])


@settings(deadline=None, max_examples=200)
@given(
    counts=st.lists(st.integers(0, 50), min_size=1, max_size=4).filter(lambda n: sum(n) > 0),
    target_length=st.integers(1, 60),
)
def test_slots_are_shared_out_exactly(counts: list[int], target_length: int) -> None:
    slots = _share_out(torch.tensor([counts], dtype=torch.float64), target_length)[0].tolist()
    assert slots == loop_share_out([float(n) for n in counts], target_length)
    assert sum(slots) == target_length
    nonempty = sum(n > 0 for n in counts)
    for count, slot in zip(counts, slots):
        assert slot >= 0
        assert slot == 0 if count == 0 else slot > 0 or nonempty > target_length


@pytest.mark.parametrize("target_length", [30, 50, 80, 100, 130])
def test_a_hundred_positions_in_other_lengths(target_length: int) -> None:
    segment_ids = torch.tensor([0] * 30 + [1] * 60 + [2] * 10).expand(2, -1)
    warper = TimeWarper()
    x = ramp(100).expand(2, 3, 4, 100, 2)
    warped = warper(x, segment_ids, target_length)
    assert warped.shape == (2, 3, 4, target_length, 2)
    line = warped[0, 0, 0, :, 0]
    assert (line.diff() >= 0).all()
    plan = warper.plan(segment_ids, target_length)
    for segment, (first, last) in enumerate([(0, 29), (30, 89), (90, 99)]):
        of_segment = line[segment_ids[0].gather(0, plan.lower[0]) == segment]
        assert of_segment[0] == first
        assert of_segment[-1] == last
        share = (last - first + 1) * target_length / 100
        assert abs(len(of_segment) - share) < 1


def test_the_ratio_moves_slots_to_a_segment() -> None:
    segment_ids = torch.tensor([[0] * 10 + [1] * 10 + [2] * 10])

    def slots(**options: dict[int, float]) -> list[int]:
        plan = TimeWarper(**options).plan(segment_ids, 12)  # type: ignore[arg-type]
        return segment_ids.gather(1, plan.lower)[0].bincount(minlength=3).tolist()

    assert slots() == [4, 4, 4]
    assert slots(ratio_map={1: 4.0}) == [2, 8, 2]
    assert slots(ratio_map={0: 0.0, 2: 0.0}) == [0, 12, 0]
    assert slots(ratio_map={1: 1e-6}) == [5, 1, 6] or slots(ratio_map={1: 1e-6}) == [6, 1, 5]


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_nothing_changes_at_the_same_length(alpha: float) -> None:
    segment_ids = torch.tensor([[0] * 3 + [1] * 40 + [2]]).expand(3, -1)
    x = torch.randn(3, 3, 2, 44, 4)
    warper = TimeWarper(alpha_map=dict.fromkeys(range(3), alpha))
    assert torch.equal(warper(x, segment_ids, 44), x)
    assert torch.equal(warper(x, None, 44), x)


def test_without_segments_the_valid_positions_are_one_segment() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1]]).bool()
    warped = TimeWarper()(ramp(7).expand(2, 1, 1, 7, 1), None, 3, mask)
    assert warped.flatten(1).tolist() == [[2, 3.5, 5], [0, 3, 6]]


def test_a_hole_in_a_segment_is_stepped_over() -> None:
    segment_ids = torch.tensor([[0, -1, 0, 0, 1, -1, 1]])
    warped = TimeWarper(num_segments=2)(ramp(7), segment_ids, 5)
    assert warped.flatten().tolist() == [0, 2, 3, 4, 6]


def test_one_slot_reads_the_last_position() -> None:
    assert TimeWarper()(ramp(9), None, 1).item() == 8


def test_a_batch_as_large_as_the_layers_keeps_its_axes() -> None:
    x = torch.randn(3, 3, 3, 6, 3)
    segment_ids = torch.tensor([[0] * n + [-1] * (6 - n) for n in (2, 4, 6)])
    warped = TimeWarper()(x, segment_ids, 3)
    for b, n in enumerate((2, 4, 6)):
        for m in range(3):
            expected = torch.nn.functional.interpolate(
                x[b, m, :, :n].mT, size=3, mode="linear", align_corners=True
            ).mT
            torch.testing.assert_close(warped[b, m], expected)


def test_gradients_and_half_precision() -> None:
    segment_ids = torch.tensor([[0, 0, 1, 1, 1, 2, -1], [-1, 0, 1, 1, 1, 1, 2]])
    warper = TimeWarper(alpha_map={1: 0.5})
    x = torch.randn(2, 1, 2, 7, 2, dtype=torch.float64, requires_grad=True)
    for target_length in (4, 9):
        assert torch.autograd.gradcheck(lambda x, n=target_length: warper(x, segment_ids, n), [x])
    (grad,) = torch.autograd.grad(warper(x, segment_ids, 5).sum(), x)
    assert (grad.movedim(3, 1)[segment_ids < 0] == 0).all()
    half = warper(x.detach().bfloat16(), segment_ids, 5)
    assert half.dtype == torch.bfloat16
    exact = warper(x.detach(), segment_ids, 5)
    torch.testing.assert_close(half.double(), exact, atol=0.05, rtol=0.05)


def test_a_permuted_view_gives_what_its_copy_gives() -> None:
    x = torch.randn(3, 2, 4, 6, 5)
    view = x.transpose(0, 1)
    assert torch.equal(TimeWarper()(view, None, 4), TimeWarper()(view.contiguous(), None, 4))


def test_a_plan_interpolates_positions() -> None:
    plan = TimeWarper().plan(torch.zeros(1, 4, dtype=torch.long), 3)
    assert plan.interpolate(torch.tensor([[10, 11, 12, 13]])).tolist() == [[10, 11.5, 13]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio_map": {3: 1.0}}, "ratio_map names segment 3, but segments run from 0 to 2"),
        ({"ratio_map": {1: -1.0}}, r"ratio_map\[1\]=-1.0 must be finite and not negative"),
        ({"ratio_map": {1: float("inf")}}, r"ratio_map\[1\]=inf must be finite"),
        ({"alpha_map": {1: 1.5}}, r"alpha_map\[1\]=1.5 must be between 0 and 1"),
        ({"alpha_map": {1: float("nan")}}, r"alpha_map\[1\]=nan must be between 0 and 1"),
        ({"num_segments": 0}, "num_segments=0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TimeWarper(**options)  # type: ignore[arg-type]


def test_inputs_that_cannot_be_warped_are_named() -> None:
    x = torch.randn(2, 1, 1, 4, 1)
    good = torch.tensor([[0, 1, 1, 2], [0, 0, 1, 2]])
    warper = TimeWarper()
    with pytest.raises(ValueError, match="target_length=0"):
        warper(x, good, 0)
    with pytest.raises(ValueError, match="sample 1 of the batch has no valid position"):
        warper(x, torch.tensor([[0, 1, 1, 2], [-1, -1, -1, -1]]), 3)
    with pytest.raises(ValueError, match="sample 0 of the batch has no valid position"):
        TimeWarper(ratio_map={0: 0.0})(x, torch.tensor([[0, 0, 0, -1], [0, 0, 1, 2]]), 3)
    with pytest.raises(ValueError, match="sample 1 of the batch has a segment that comes after"):
        warper(x, torch.tensor([[0, 1, 1, 2], [0, 2, 1, 2]]), 3)
    with pytest.raises(ValueError, match="segment_ids hold 3, but num_segments=3"):
        warper(x, good + 1, 3)
    with pytest.raises(ValueError, match=r"segment_ids must be \[2, 4\]"):
        warper(x, good[:, :3], 3)
    with pytest.raises(ValueError, match=r"mask must be \[2, 4\]"):
        warper(x, good, 3, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"\[B, L, H, T, D\]"):
        warper(x[0], good, 3)
