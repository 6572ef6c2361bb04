from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from kava import linear_cka
from kava.align import StreamingCKA

estimators = pytest.mark.parametrize("debiased", [False, True])


def loop_hsic(x: Tensor, y: Tensor, debiased: bool) -> float:
    """HSIC over pairs, triples and quadruples of rows: Song et al. (2012), eq. 4; or the plain."""
    n = len(x)
    K, L = (x @ x.T).tolist(), (y @ y.T).tolist()
    if not debiased:
        H = torch.eye(n, dtype=x.dtype) - 1 / n
        return float(torch.trace(x @ x.T @ H @ (y @ y.T) @ H))
    pairs = sum(K[i][j] * L[i][j] for i, j in itertools.permutations(range(n), 2))
    triples = sum(K[i][j] * L[i][k] for i, j, k in itertools.permutations(range(n), 3))
    quadruples = sum(K[i][j] * L[k][m] for i, j, k, m in itertools.permutations(range(n), 4))
    return (
        pairs / (n * (n - 1))
        - 2 * triples / (n * (n - 1) * (n - 2))
        + quadruples / (n * (n - 1) * (n - 2) * (n - 3))
    )


def loop_cka(x: Tensor, y: Tensor, debiased: bool) -> float:
    own = loop_hsic(x, x, debiased) * loop_hsic(y, y, debiased)
    return loop_hsic(x, y, debiased) / own**0.5


def random_pair(rows: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two views of the same rows, related but not equal, off centre and of different scale."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 5, dtype=torch.float64, generator=generator) + 3
    y = x[:, :3] ** 2 + torch.randn(rows, 3, dtype=torch.float64, generator=generator) - 7
    return x, 100 * y


@estimators
@pytest.mark.parametrize("rows", [4, 9])
def test_it_is_the_estimator_of_the_papers(rows: int, debiased: bool) -> None:
    x, y = random_pair(rows)
    assert linear_cka(x, y, debiased).item() == pytest.approx(loop_cka(x, y, debiased), abs=1e-10)


@estimators
@pytest.mark.parametrize("features", [3, 400])  # over features, and over positions
def test_equal_up_to_rotation_scale_and_offset_is_1(features: int, debiased: bool) -> None:
    x = torch.randn(60, features)
    basis = torch.linalg.qr(torch.randn(features, features)).Q
    for y in (x, x @ basis, -1e4 * x, 1e-25 * x @ basis, 1e25 * x - 1e24):
        assert linear_cka(x, y, debiased).item() == pytest.approx(1, abs=1e-5)


@estimators
def test_rotation_scale_and_offset_change_nothing(debiased: bool) -> None:
    x, y = random_pair(40)
    basis = torch.linalg.qr(torch.randn(5, 5, dtype=x.dtype)).Q
    expected = linear_cka(x, y, debiased)
    assert 0.2 < expected < 0.9
    torch.testing.assert_close(linear_cka(7 * x @ basis + 11, y - 5, debiased), expected)
    torch.testing.assert_close(linear_cka(y, x, debiased), expected)


def test_only_the_debiased_estimate_is_near_0_for_independent_data() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(200, 50, 300, generator=generator) for _ in range(2))
    plain, debiased = linear_cka(x, y), linear_cka(x, y, debiased=True)
    assert plain.mean() > 0.8
    assert abs(debiased.mean()) < 0.003
    assert debiased.abs().max() < 0.1
    assert (debiased < 0).any()


@estimators
def test_masked_positions_may_hold_anything(debiased: bool) -> None:
    x, y = random_pair(12)
    mask = torch.tensor([True, False, True, True] * 3)
    expected = linear_cka(x[mask], y[mask], debiased)
    x, y = x.clone().requires_grad_(), y.clone()
    with torch.no_grad():
        x[~mask], y[~mask] = torch.nan, torch.inf
    found = linear_cka(x, y, debiased, mask=mask)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, x)
    assert gradient[mask].abs().min() > 0
    assert torch.equal(gradient[~mask], torch.zeros_like(gradient[~mask]))


@estimators
def test_leading_axes_are_compared_one_by_one(debiased: bool) -> None:
    x, y = torch.randn(3, 2, 20, 4), torch.randn(3, 2, 20, 6)
    mask = torch.rand(3, 2, 20) < 0.7
    found = linear_cka(x, y, debiased, mask=mask)
    for i, j in itertools.product(range(3), range(2)):
        own = mask[i, j]
        torch.testing.assert_close(
            found[i, j], linear_cka(x[i, j, own], y[i, j, own], debiased), atol=1e-6, rtol=1e-5
        )


@estimators
@pytest.mark.parametrize("features", [3, 20])
def test_gradients_are_those_of_finite_differences(features: int, debiased: bool) -> None:
    x = torch.randn(8, features, dtype=torch.float64, requires_grad=True)
    y = torch.randn(8, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y: linear_cka(x, y, debiased), (x, y))


@estimators
@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_a_side_that_never_varies_has_nothing_in_common(value: float, debiased: bool) -> None:
    x = torch.full((30, 4), value, requires_grad=True)
    for y in (torch.randn(30, 4), x):
        found = linear_cka(x, y, debiased)
        assert found == 0
        (gradient,) = torch.autograd.grad(found, x)
        assert gradient.isfinite().all()


def test_half_precision_is_compared_in_single() -> None:
    x = torch.randn(200, 16)
    found = linear_cka(x.bfloat16(), x.bfloat16() * 8)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(1, abs=1e-5)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x \[4, 2\] and y \[5, 2\]"):
        linear_cka(torch.randn(4, 2), torch.randn(5, 2))
    with pytest.raises(ValueError, match="at least 4 valid positions, got 3"):
        linear_cka(torch.randn(3, 2), torch.randn(3, 2), debiased=True)
    with pytest.raises(ValueError, match="at least 2 valid positions, got 1"):
        linear_cka(torch.randn(3, 2), torch.randn(3, 2), mask=torch.tensor([True, False, False]))


def caches(
    B: int = 6, T: int = 11, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """A student's and a teacher's cache of related content, far off centre, and a mask."""
    generator = torch.Generator().manual_seed(0)
    shared = torch.randn(B, 1, T, 6, dtype=torch.float64, generator=generator)

    def cache(layers: int, heads: int, dim: int) -> Tensor:
        maps = torch.randn(layers, 6, heads * dim, dtype=torch.float64, generator=generator)
        noise = torch.randn(B, layers, T, heads * dim, dtype=torch.float64, generator=generator)
        x = shared @ maps + 2 * noise + 50
        return x.unflatten(-1, (heads, dim)).transpose(2, 3).to(dtype)

    mask = torch.rand(B, T, generator=generator) < 0.7
    return cache(3, 2, 4), cache(4, 1, 6), mask


def direct(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    """All valid positions at once, one pair of layers at a time."""
    x, y = (part.transpose(2, 3).flatten(3).double() for part in (student, teacher))
    rows = [
        torch.stack([linear_cka(x[:, s][mask], y[:, t][mask], True) for t in range(y.shape[1])])
        for s in range(x.shape[1])
    ]
    return torch.stack(rows)


@pytest.mark.parametrize("batch", [1, 2, 4, 6])
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_streaming_equals_all_positions_at_once(
    batch: int, dtype: torch.dtype, atol: float
) -> None:
    student, teacher, mask = caches(dtype=dtype)
    expected = direct(student, teacher, mask)
    assert expected.std() > 0.01
    student, teacher = student.clone(), teacher.clone()
    student.masked_fill_(~mask[:, None, None, :, None], torch.nan)
    teacher.masked_fill_(~mask[:, None, None, :, None], torch.inf)
    cka = StreamingCKA(3, 4)
    for rows in torch.arange(6).split(batch):
        cka.update(student[rows], teacher[rows], mask[rows])
    cka.update(student[:2], teacher[:2], torch.zeros(2, 11, dtype=torch.bool))
    assert cka.num_rows == mask.sum()
    torch.testing.assert_close(cka.matrix(), expected, atol=atol, rtol=0)


def test_without_a_mask_all_positions_are_valid() -> None:
    student, teacher, _ = caches()
    cka = StreamingCKA(3, 4)
    cka.update(student, teacher)
    expected = direct(student, teacher, torch.ones(6, 11, dtype=torch.bool))
    torch.testing.assert_close(cka.matrix(), expected, atol=1e-12, rtol=0)


def test_a_cache_beside_itself_has_1_on_the_diagonal() -> None:
    _, teacher, mask = caches(dtype=torch.float32)
    cka = StreamingCKA(4, 4)
    for row in range(6):
        cka.update(teacher[[row]], 3 * teacher[[row]].flip(-1), mask[[row]])
    matrix = cka.matrix()
    torch.testing.assert_close(matrix.diagonal(), torch.ones(4).double(), atol=1e-5, rtol=0)
    assert matrix.argmax(1).tolist() == [0, 1, 2, 3]


def test_memory_does_not_grow_with_the_data() -> None:
    student, teacher, mask = caches()

    def held(cka: StreamingCKA) -> int:
        assert cka._sums is not None
        parts = (part for sums in cka._sums for part in vars(sums).values())
        return sum(part.numel() for part in parts if isinstance(part, Tensor))

    cka = StreamingCKA(3, 4)
    cka.update(student, teacher, mask)
    before = held(cka)
    for _ in range(5):
        cka.update(student, teacher, mask)
    assert held(cka) == before


def test_a_layer_that_never_varies_has_nothing_in_common() -> None:
    student, teacher, mask = caches(dtype=torch.float32)
    student[:, 1] = 0.1
    cka = StreamingCKA(3, 4)
    for rows in torch.arange(6).split(2):
        cka.update(student[rows], teacher[rows], mask[rows])
    matrix = cka.matrix()
    assert torch.equal(matrix[1], torch.zeros(4).double())
    assert matrix[[0, 2]].abs().min() > 0


def test_a_stream_refuses_what_does_not_fit() -> None:
    student, teacher, mask = caches()
    cka = StreamingCKA(3, 4)
    with pytest.raises(ValueError, match="at least 4 valid positions, got 0"):
        cka.matrix()
    with pytest.raises(ValueError, match=r"teacher has shape .* expected \[B, 4, H, T, D\]"):
        cka.update(student, student)
    with pytest.raises(ValueError, match="bring the teacher to the student's positions"):
        cka.update(student, teacher[:, :, :, :5])
    with pytest.raises(ValueError, match=r"mask must be \[6, 11\]"):
        cka.update(student, teacher, mask[:, :5])
    cka.update(student, teacher, mask)
    with pytest.raises(ValueError, match="teacher has 3 features in a layer, earlier batches had"):
        cka.update(student, teacher[..., :3], mask)
    teacher[0, 2] = torch.nan
    cka.update(student, teacher)
    with pytest.raises(ValueError, match="layer 2 of the teacher holds NaN"):
        cka.matrix()
    with pytest.raises(ValueError, match="num_teacher_layers=0"):
        StreamingCKA(1, 0)
