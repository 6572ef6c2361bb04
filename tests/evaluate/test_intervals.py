"""The Wilson interval, against its formula."""

import math

import pytest

from kava.statistics.intervals import wilson


@pytest.mark.parametrize(
    ("correct", "total"), [(0, 1), (1, 1), (0, 50), (50, 50), (1, 1000), (37, 100), (960, 1000)]
)
@pytest.mark.parametrize(("confidence", "z"), [(0.95, 1.95996398454), (0.9, 1.64485362695)])
def test_it_is_that_of_the_formula(correct: int, total: int, confidence: float, z: float) -> None:
    p = correct / total
    middle = (p + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(p * (1 - p) / total + z * z / (4 * total**2))
    low, high = wilson(correct, total, confidence)
    assert low == pytest.approx(max(middle - half, 0), abs=1e-10)
    assert high == pytest.approx(min(middle + half, 1), abs=1e-10)
    assert 0 <= low <= p <= high <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0), "0 right answers of 0"),
        ((3, 2), "3 right answers of 2"),
        ((-1, 2), "-1 right answers of 2"),
        ((1, 2, 1.0), "confidence=1.0"),
        ((1, 2, 95), "confidence=95"),
    ],
)
def test_what_has_no_interval(arguments: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wilson(*arguments)
