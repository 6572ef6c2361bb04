from __future__ import annotations

import pytest
import torch

from fit.pairs import L_S, SHAPE, random_terms, statistics_of, vectors
from kava.fit.least_squares import fit_ridge, fit_scale
from kava.fit.moments import r_squared


def test_a_known_map_and_its_bias_are_recovered() -> None:
    weight = random_terms(4)
    found, bias = fit_ridge(statistics_of(*vectors(60, weight)), ridge=1e-12)
    torch.testing.assert_close(found, weight, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(bias, torch.full_like(bias, 7.0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ridge", [1e-3, 0.3])
def test_ridge_equals_least_squares_on_data_with_extra_rows(ridge: float) -> None:
    """Ridge is least squares on centred data with √(λ s)·I below x and zeros below y."""
    x, y = vectors(60, random_terms(2), noise=0.5)
    weight, bias = fit_ridge(statistics_of(x, y), ridge)
    for layer in range(L_S):
        dx, dy = x[:, layer] - x[:, layer].mean(0), y[:, layer] - y[:, layer].mean(0)
        strength = ridge * dx.square().sum() / SHAPE.dim_in
        rows = torch.cat([dx, strength.sqrt() * torch.eye(SHAPE.dim_in, dtype=x.dtype)])
        targets = torch.cat([dy, torch.zeros(SHAPE.dim_in, SHAPE.dim_out, dtype=x.dtype)])
        expected = torch.linalg.lstsq(rows, targets).solution.T
        torch.testing.assert_close(weight[layer], expected)
        torch.testing.assert_close(
            bias[layer], y[:, layer].mean(0) - expected @ x[:, layer].mean(0)
        )


def test_the_ridge_is_relative_to_the_size_of_the_inputs() -> None:
    x, y = vectors(60, random_terms(2), noise=0.5)
    weight, bias = fit_ridge(statistics_of(x, y), 0.1)
    larger, same_bias = fit_ridge(statistics_of(1000 * x, y), 0.1)
    torch.testing.assert_close(1000 * larger, weight)
    torch.testing.assert_close(same_bias, bias)


def test_each_layer_can_have_a_ridge_of_its_own() -> None:
    statistics = statistics_of(*vectors(60, random_terms(2), noise=0.5))
    both, _ = fit_ridge(statistics, torch.tensor([1e-3, 0.5]))
    torch.testing.assert_close(both[0], fit_ridge(statistics, 1e-3)[0][0])
    torch.testing.assert_close(both[1], fit_ridge(statistics, 0.5)[0][1])


def test_the_best_scalars_equal_a_regression_for_each_output() -> None:
    x, y = vectors(60, random_terms(2), noise=0.5)
    weight = random_terms(3, seed=8)
    scaled, bias = fit_scale(statistics_of(x, y), weight)
    predicted = torch.einsum("nli,loi->nlo", x, weight)
    for layer in range(L_S):
        for output in range(SHAPE.dim_out):
            rows = torch.stack([predicted[:, layer, output], torch.ones(60)], dim=1)
            scale, offset = torch.linalg.lstsq(rows, y[:, layer, output, None]).solution[:, 0]
            torch.testing.assert_close(
                scaled[layer, output], scale * weight[layer, output], rtol=1e-6, atol=1e-6
            )
            torch.testing.assert_close(bias[layer, output], offset, rtol=1e-4, atol=1e-4)


def test_an_output_that_reads_nothing_becomes_its_mean() -> None:
    x, y = vectors(60, random_terms(2))
    scaled, bias = fit_scale(statistics_of(x, y), torch.zeros_like(random_terms(2)))
    explained = r_squared(statistics_of(x, y), scaled, bias)
    torch.testing.assert_close(explained, torch.zeros_like(explained), atol=1e-9, rtol=0)


def test_inputs_that_tell_nothing_apart_are_refused() -> None:
    x, y = vectors(60, random_terms(2))
    x[:, 1, 3] = x[:, 1, 2]
    with pytest.raises(ValueError, match=r"layer 1 depend linearly.*larger one, such as 1e-4"):
        fit_ridge(statistics_of(x, y), 0.0)
    x[:, 1] = 2.0
    with pytest.raises(ValueError, match="60 inputs are constant in layer 1"):
        fit_ridge(statistics_of(x, y), 1e-4)
