"""Ticks: round places, and labels that state them to the last digit."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kava.pictures.theme import drawing, new_figure
from kava.pictures.ticks import (
    LEAST_RATIO,
    in_percent,
    in_points,
    linear_axis,
    log_axis,
    log_places,
    plain,
    round_places,
    step_axis,
    ticks,
)

Limits = st.tuples(
    st.floats(-1e4, 1e4, allow_nan=False), st.floats(1e-4, 1e5, allow_nan=False)
).map(lambda pair: (pair[0], pair[0] + pair[1]))


def number(text: str) -> float:
    return float(text.replace("−", "-").replace(",", ""))


@given(Limits, st.integers(2, 8))
def test_there_are_some_ticks_and_not_too_many(limits: tuple[float, float], most: int) -> None:
    places = round_places(*limits, most)
    assert 2 <= len(places) <= most
    assert places == sorted(set(places))
    slack = 1e-6 * (limits[1] - limits[0])
    assert limits[0] - slack <= places[0]
    assert places[-1] <= limits[1] + slack


@given(Limits, st.integers(2, 8))
def test_a_label_is_its_place(limits: tuple[float, float], most: int) -> None:
    for place in round_places(*limits, most):
        assert number(plain(place)) == pytest.approx(place, rel=1e-10, abs=1e-12)


@given(st.floats(0, 1), st.floats(0.001, 1), st.sampled_from([3, 6]))
def test_per_cents_are_not_rounded(low: float, reach: float, most: int) -> None:
    for place in round_places(low, low + reach, most):
        assert number(in_percent(place)) == pytest.approx(100 * place, rel=1e-10)
        assert number(in_points(-place)) == pytest.approx(-100 * place, rel=1e-10)


@pytest.mark.parametrize(
    ("limits", "most", "expected"),
    [
        ((-0.04, 1.06), 3, ["0", "50", "100"]),
        ((0.0, 0.135), 7, ["0", "2", "4", "6", "8", "10", "12"]),
        ((0.0, 0.12), 4, ["0", "5", "10"]),
        ((0.61, 0.69), 3, ["62", "68"]),
        ((0.6, 1.4), 3, ["60", "140"]),
    ],
)
def test_the_places_of_shares(limits: tuple[float, float], most: int, expected: list[str]) -> None:
    assert [in_percent(place) for place in round_places(*limits, most)] == expected


def test_multiples_of_two_and_a_half_keep_their_half() -> None:
    assert [in_percent(x) for x in (0.0, 0.025, 0.05, 0.075, 0.1, 0.125)] == [
        "0", "2.5", "5", "7.5", "10", "12.5",
    ]  # fmt: skip


@given(st.floats(1e-6, 1e3), st.floats(1.5, 1e6), st.integers(2, 6))
def test_a_logarithmic_axis_has_ticks_too(low: float, ratio: float, most: int) -> None:
    places = log_places(low, low * ratio, most)
    assert 2 <= len(places) <= most
    assert all(low * 0.99 <= place <= low * ratio * 1.01 for place in places)


def test_no_axis_is_refused() -> None:
    for limits in ((1.0, 1.0), (2.0, 1.0), (0.0, math.nan)):
        with pytest.raises(ValueError, match="is no axis"):
            round_places(*limits, 3)


def test_signs() -> None:
    assert [in_points(x) for x in (0.1, -0.1, 0.0, 0.0001)] == ["+10", "−10", "0", "+0.01"]
    assert [plain(x) for x in (1500.0, -0.5, 1e-5)] == ["1,500", "−0.5", "0.00001"]


def test_a_narrow_range_does_not_fill_the_axis() -> None:
    with drawing():
        axes = new_figure(3, 2).add_subplot()
        axes.plot([0, 1], [0.100, 0.101])
        log_axis([axes])
        assert axes.get_ylim()[1] / axes.get_ylim()[0] == pytest.approx(LEAST_RATIO)
        linear_axis([axes])
        low, high = axes.get_ylim()
        assert high - low >= 0.1 * 0.101


def test_what_is_zero_throughout_has_a_linear_axis() -> None:
    with drawing():
        axes = new_figure(3, 2).add_subplot()
        axes.plot([0, 1], [0.0, 0.0])
        log_axis([axes])
    assert axes.get_yscale() == "linear"
    assert axes.get_ylim()[0] < 0 < axes.get_ylim()[1]


@pytest.mark.parametrize(("last", "labels"), [(1, "0 1"), (3, "0 1 3"), (1500, "0 750 1,500")])
def test_steps_are_labelled_once_each(last: int, labels: str) -> None:
    axes = new_figure(3, 2).add_subplot()
    step_axis(axes, last)
    assert [label.get_text() for label in axes.get_xticklabels()] == labels.split()


def test_there_is_nothing_between_the_ticks() -> None:
    axes = new_figure(3, 2).add_subplot()
    axes.set_ylim(0, 1)
    ticks(axes.yaxis, in_percent)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "50", "100"]
    assert axes.yaxis.get_minorticklocs().tolist() == []
