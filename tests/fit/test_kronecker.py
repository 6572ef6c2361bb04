from __future__ import annotations

import pytest
import torch

from fit.pairs import L_S, SHAPE, random_terms, statistics_of, vectors
from kava.align.geometry import HeadDims
from kava.fit import kronecker
from kava.fit.kronecker import fit_kronecker
from kava.fit.least_squares import fit_ridge
from kava.fit.moments import r_squared, squared_error


@pytest.mark.parametrize(
    ("shape", "shared", "per_head"),
    [(HeadDims(6, 4, 16, 16), 24, 6), (HeadDims(3, 2, 4, 5), 6, 3), (HeadDims(8, 8, 2, 2), 4, 4)],
)
def test_the_full_rank(shape: HeadDims, shared: int, per_head: int) -> None:
    assert shape.full_rank(per_head=False) == shared
    assert shape.full_rank(per_head=True) == per_head


@pytest.mark.parametrize("per_head", [False, True])
def test_at_full_rank_it_is_the_ridge_solution(per_head: bool) -> None:
    statistics = statistics_of(*vectors(60, random_terms(6), noise=0.5))
    weight, bias = fit_ridge(statistics, 0.01)
    fit = fit_kronecker(statistics, SHAPE, SHAPE.full_rank(per_head), per_head, ridge=0.01)
    torch.testing.assert_close(fit.dense(), weight)
    torch.testing.assert_close(fit.bias, bias)


@pytest.mark.parametrize("per_head", [False, True])
def test_one_below_full_rank_is_close_to_it(per_head: bool) -> None:
    """The half steps themselves, which the full rank goes without."""
    statistics = statistics_of(*vectors(60, random_terms(6), noise=0.5))
    full = r_squared(statistics, *fit_ridge(statistics, 1e-6))
    rank = SHAPE.full_rank(per_head) - 1
    fit = fit_kronecker(statistics, SHAPE, rank, per_head, ridge=1e-6)
    lost = full - r_squared(statistics, fit.dense(), fit.bias)
    assert (lost > 0).all()
    assert (lost < 0.1).all()


@pytest.mark.parametrize("per_head", [False, True])
@pytest.mark.parametrize("rank", [1, 2])
def test_a_map_of_some_rank_is_recovered_by_that_rank(rank: int, per_head: bool) -> None:
    weight = random_terms(rank, per_head)
    statistics = statistics_of(*vectors(200, weight))
    fit = fit_kronecker(statistics, SHAPE, rank, per_head, ridge=1e-10, tolerance=1e-12)
    torch.testing.assert_close(fit.dense(), weight, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(fit.bias, torch.full_like(fit.bias, 7.0), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("per_head", [False, True])
def test_more_terms_explain_more(per_head: bool) -> None:
    statistics = statistics_of(*vectors(100, random_terms(6), noise=0.3))
    explained = []
    for rank in range(1, SHAPE.full_rank(per_head) + 1):
        fit = fit_kronecker(statistics, SHAPE, rank, per_head, ridge=1e-6)
        explained.append(r_squared(statistics, fit.dense(), fit.bias))
    assert (torch.stack(explained).diff(dim=0) > 0).all()


@pytest.mark.parametrize("per_head", [False, True])
def test_no_round_makes_it_worse(per_head: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    plain = kronecker._System.round

    def watched(
        system: kronecker._System, factors: kronecker._Factors
    ) -> tuple[kronecker._Factors, torch.Tensor]:
        after = plain(system, factors)
        seen.append(after[1])
        return after

    monkeypatch.setattr(kronecker._System, "round", watched)
    monkeypatch.setattr(kronecker, "TRIAL_ROUNDS", 0)
    statistics = statistics_of(*vectors(100, random_terms(6), noise=0.3))
    fit_kronecker(statistics, SHAPE, 2, per_head, ridge=0.01, tolerance=1e-9)
    assert len(seen) > 10
    falls = torch.stack(seen[2:]).diff(dim=0)  # after one round from each start
    assert (falls <= 1e-12).all()
    assert (falls < 0).any()


@pytest.mark.parametrize("per_head", [False, True])
def test_f_is_the_penalised_error_up_to_a_constant(per_head: bool) -> None:
    statistics = statistics_of(*vectors(100, random_terms(6), noise=0.3))
    ridge = 0.1
    system = kronecker._System(kronecker.ridge_system(statistics, ridge), SHAPE, per_head)
    factors, f = system.round(system.start(2))
    fit = kronecker._to_fit(statistics, factors, per_head)
    scale = statistics.moment_xx.diagonal(dim1=1, dim2=2).mean(1)
    penalty = ridge * fit.dense().square().sum((1, 2))
    error = squared_error(statistics, fit.dense(), fit.bias) / scale + penalty
    torch.testing.assert_close(f.sum(1), error - statistics.moment_y.sum(1) / scale)


@pytest.mark.parametrize("per_head", [False, True])
def test_no_map_near_the_solution_is_better(per_head: bool) -> None:
    """The gradient of the error with respect to every factor is zero."""
    statistics = statistics_of(*vectors(100, random_terms(6), noise=0.3))
    fit = fit_kronecker(statistics, SHAPE, 2, per_head, ridge=1e-9, tolerance=0.0, max_rounds=3000)
    mix = fit.head_mix.requires_grad_()
    dims = fit.dim_map.requires_grad_()
    bias = fit.bias.requires_grad_()
    error = squared_error(statistics, fit.dense(), bias).sum()
    error.backward()
    for part in (mix, dims, bias):
        assert part.grad is not None
        assert (part.grad * part.detach()).abs().max() < 1e-4 * error.detach()


def test_layers_are_fitted_the_same_alone_and_together(monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = statistics_of(*vectors(100, random_terms(6), noise=0.3))
    together = fit_kronecker(statistics, SHAPE, 2, ridge=0.01, tolerance=1e-9)
    monkeypatch.setattr(kronecker, "SYSTEM_BYTES", 1)
    alone = fit_kronecker(statistics, SHAPE, 2, ridge=0.01, tolerance=1e-9)
    assert len(alone.head_mix) == L_S
    torch.testing.assert_close(alone.dense(), together.dense(), rtol=1e-2, atol=1e-2)


def test_bad_ranks_and_shapes_are_refused() -> None:
    statistics = statistics_of(*vectors(30, random_terms(1)))
    with pytest.raises(ValueError, match=r"rank=7 is out of reach.*sum of 6 terms.*choose 1 to 6"):
        fit_kronecker(statistics, SHAPE, 7)
    with pytest.raises(ValueError, match="rank=0 is out of reach"):
        fit_kronecker(statistics, SHAPE, 0)
    with pytest.raises(ValueError, match="12 → 10 coordinates do not fit 2 heads of 4"):
        fit_kronecker(statistics, SHAPE._replace(num_heads_in=2), 1)
