"""Power before a study, the detectable effect after it, and the area under a curve."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import integrate, stats
from statsmodels.stats.power import TTestIndPower

from kava.statistics import area_under_curve, detectable_effect, power_before, seeds_needed
from kava.statistics.power import power_of_t


@pytest.mark.parametrize("num_seeds", [2, 3, 5, 20])
@pytest.mark.parametrize("effect", [0.0, 0.02, 0.1, 0.3])
def test_power_is_that_of_students_test_by_statsmodels(num_seeds: int, effect: float) -> None:
    found = power_of_t(effect, 0.1 * (2 / num_seeds) ** 0.5, 2 * num_seeds - 2)
    expected = TTestIndPower().power(effect / 0.1, num_seeds, 0.05)
    if np.isnan(expected):  # statsmodels' answer where the lower tail is tiny
        assert found > 0.99
    else:
        assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("degrees", [1, 2, 4, 8])
@pytest.mark.parametrize("shift", [3.0, 10.0, 38.0])
def test_power_is_the_normals_averaged_over_the_standard_deviation(
    degrees: int, shift: float
) -> None:
    bound = stats.t.ppf(0.975, degrees)
    expected, _ = integrate.quad(
        lambda c: stats.norm.sf(bound * (c / degrees) ** 0.5 - shift) * stats.chi2.pdf(c, degrees),
        *stats.chi2.ppf([1e-13, 1 - 1e-13], degrees),
        limit=500,
    )
    assert power_of_t(shift, 1.0, degrees) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("degrees", [1, 2, 4, 8, 1e5])
@pytest.mark.parametrize("power", [0.5, 0.8, 0.99])
def test_the_detectable_effect_turns_power_round(degrees: float, power: float) -> None:
    effect = detectable_effect(0.03, degrees, power=power)
    assert power_of_t(effect, 0.03, degrees) == pytest.approx(power, abs=1e-5)


def test_power_of_many_degrees_is_the_normals() -> None:
    expected = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert detectable_effect(1.0, 1e6) == pytest.approx(expected, abs=1e-3)


def test_power_grows_with_what_a_study_has_more_of() -> None:
    base = {"effect": 0.1, "num_seeds": 5, "num_items": 200, "seed_std": 0.05}
    power = power_before(**base)  # type: ignore[arg-type]
    for change in (
        {"effect": 0.15}, {"num_seeds": 8}, {"num_items": 800}, {"seed_std": 0.02},
        {"accuracy": 0.85}, {"item_correlation": 0.5}, {"alpha": 0.1},
    ):  # fmt: skip
        assert power_before(**{**base, **change}) > power  # type: ignore[arg-type]
    assert power_before(**base, item_effect_std=0.5) < power  # type: ignore[arg-type]


def test_the_seeds_needed_are_the_fewest_that_do() -> None:
    study = {"effect": 0.1, "num_items": 1000, "seed_std": 0.05}
    needed = seeds_needed(**study)  # type: ignore[arg-type]
    assert power_before(num_seeds=needed, **study) >= 0.8  # type: ignore[arg-type]
    assert power_before(num_seeds=needed - 1, **study) < 0.8  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"20 seeds do not find an effect of 0.01"):
        seeds_needed(effect=0.01, num_items=100, seed_std=0.2, most=20)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_seeds": 1}, "1 seeds and 200 items show no spread"),
        ({"effect": 0.0}, "effect=0.0 in"),
        ({"effect": 0.6}, "effect=0.6 on accuracy=0.5 leaves"),
        ({"accuracy": 50}, "accuracy=50 must lie"),
        ({"item_correlation": 1.0}, "item_correlation=1.0"),
        ({"seed_std": -1}, "seed_std=-1"),
        ({"seed_std": 0, "accuracy": 0, "effect": 1}, "leave nothing to chance"),
        ({"alpha": 5}, "alpha=5"),
    ],
)
def test_a_study_that_cannot_be_is_named(change: dict[str, float], complaint: str) -> None:
    base = {"effect": 0.1, "num_seeds": 5, "num_items": 200, "seed_std": 0.05}
    with pytest.raises(ValueError, match=complaint):
        power_before(**{**base, **change})  # type: ignore[arg-type]


def test_a_power_below_the_level_cannot_be_asked_for() -> None:
    with pytest.raises(ValueError, match=r"power=0.01 must lie between alpha=0.05 and 1"):
        detectable_effect(0.1, 8, power=0.01)


def test_the_area_is_the_mean_height_whatever_the_steps() -> None:
    assert area_under_curve([0, 10, 40], [1.0, 1.0, 1.0]) == 1.0
    assert area_under_curve([0, 100], [0.0, 1.0]) == 0.5
    # steps of unequal length count by their length
    assert area_under_curve([0, 10, 100], [0.0, 0.0, 1.0]) == pytest.approx(0.45)
    dense = np.linspace(0, 50, 1001)
    assert area_under_curve(dense, (dense / 50) ** 2) == pytest.approx(1 / 3, abs=1e-4)


@pytest.mark.parametrize(
    ("steps", "values", "complaint"),
    [
        ([0], [1.0], "at least two"),
        ([0, 1], [1.0], "as many values as steps"),
        ([0, 0, 1], [1.0, 1.0, 1.0], "must rise"),
        ([1, 0], [1.0, 1.0], "must rise"),
        ([0, 1], [1.0, float("nan")], "not finite"),
    ],
)
def test_what_is_no_curve_is_named(steps: list[int], values: list[float], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        area_under_curve(steps, values)
