from __future__ import annotations

import pytest
import torch

from fit.pairs import L_S, SHAPE, random_terms, statistics_of, vectors
from kava.fit.moments import PairStatistics, r_squared, squared_error

PARTS = ("count", "mean_x", "mean_y", "moment_xx", "moment_xy", "moment_y")


def assert_same(one: PairStatistics, other: PairStatistics) -> None:
    for part in PARTS:
        torch.testing.assert_close(getattr(one, part), getattr(other, part), rtol=1e-9, atol=1e-9)


def test_moments_equal_their_definition() -> None:
    x, y = vectors(50, random_terms(2), noise=0.5)
    statistics = statistics_of(x, y)
    assert statistics.num_positions == 50
    for layer in range(L_S):
        dx, dy = x[:, layer] - x[:, layer].mean(0), y[:, layer] - y[:, layer].mean(0)
        torch.testing.assert_close(statistics.moment_xx[layer], dx.T @ dx)
        torch.testing.assert_close(statistics.moment_xy[layer], dx.T @ dy)
        torch.testing.assert_close(statistics.moment_y[layer], (dy**2).sum(0))


@pytest.mark.parametrize("sizes", [(50,), (1, 49), (7, 0, 13, 30)])
def test_batches_and_merged_parts_equal_one_batch(sizes: tuple[int, ...]) -> None:
    x, y = vectors(50, random_terms(2), noise=0.5)
    streamed = PairStatistics(L_S, SHAPE.dim_in, SHAPE.dim_out)
    merged = PairStatistics(L_S, SHAPE.dim_in, SHAPE.dim_out)
    for some_x, some_y in zip(x.split(sizes), y.split(sizes)):
        streamed.update(some_x, some_y)
        merged = merged + statistics_of(some_x, some_y) if len(some_x) else merged
    assert_same(streamed, statistics_of(x, y))
    assert_same(merged, statistics_of(x, y))


def test_small_variances_beside_large_means_keep_their_digits() -> None:
    x, y = vectors(400, random_terms(2), noise=0.5)
    far = PairStatistics(L_S, SHAPE.dim_in, SHAPE.dim_out)
    for some_x, some_y in zip(x.split(40), y.split(40)):
        far.update(some_x + 1e7, some_y - 1e7)
    near = statistics_of(x, y)
    torch.testing.assert_close(far.moment_xx, near.moment_xx, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(far.moment_xy, near.moment_xy, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_vectors_of_any_precision_are_summed_in_double(dtype: torch.dtype) -> None:
    x, y = (part.to(dtype) for part in vectors(30, random_terms(1)))
    statistics = PairStatistics(L_S, SHAPE.dim_in, SHAPE.dim_out)
    statistics.update(x, y)
    assert_same(statistics, statistics_of(x.double(), y.double()))


def test_some_outputs_alone_are_what_they_are_among_others() -> None:
    x, y = vectors(30, random_terms(1))
    some = slice(2, 5)
    assert_same(statistics_of(x, y).outputs(some), statistics_of(x, y[..., some]))


def test_held_out_r_squared_equals_a_direct_computation() -> None:
    weight, bias = random_terms(3, seed=9), torch.randn(L_S, SHAPE.dim_out, dtype=torch.float64)
    x, y = vectors(40, random_terms(2), noise=0.4)
    statistics = statistics_of(x, y)
    errors = (y - torch.einsum("nli,loi->nlo", x, weight) - bias).square().sum((0, 2))
    torch.testing.assert_close(squared_error(statistics, weight, bias), errors)
    expected = 1 - errors / (y - y.mean(0)).square().sum((0, 2))
    torch.testing.assert_close(r_squared(statistics, weight, bias), expected)


def test_the_exact_map_explains_all_and_the_mean_nothing() -> None:
    weight = random_terms(2)
    x, y = vectors(40, weight)
    statistics = statistics_of(x, y)
    seven = torch.full((L_S, SHAPE.dim_out), 7.0)
    torch.testing.assert_close(
        r_squared(statistics, weight, seven), torch.ones(L_S, dtype=torch.float64)
    )
    explained = r_squared(statistics, torch.zeros_like(weight), y.mean(0))
    torch.testing.assert_close(explained, torch.zeros_like(explained), atol=1e-12, rtol=0)


def test_bad_vectors_are_refused() -> None:
    statistics = PairStatistics(2, 3, 4)
    with pytest.raises(ValueError, match=r"x must be \[N, 2, 3\], got \[5, 2, 4\]"):
        statistics.update(torch.randn(5, 2, 4), torch.randn(5, 2, 4))
    with pytest.raises(ValueError, match=r"y must be \[N, 2, 4\], got \[5, 4\]"):
        statistics.update(torch.randn(5, 2, 3), torch.randn(5, 4))
    with pytest.raises(ValueError, match="5 vectors x cannot be paired with 6 y"):
        statistics.update(torch.randn(5, 2, 3), torch.randn(6, 2, 4))
    with pytest.raises(ValueError, match="cannot be merged"):
        _ = statistics + PairStatistics(2, 3, 5)


def test_targets_that_do_not_vary_have_no_r_squared() -> None:
    x, y = vectors(20, random_terms(1))
    y[:, 1] = 4.0
    with pytest.raises(ValueError, match="20 positions are constant in layer 1"):
        r_squared(statistics_of(x, y), random_terms(1), torch.zeros(L_S, SHAPE.dim_out))
