"""Numbers read the same wherever they stand."""

import pytest

from kava import format as text


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (text.percent(0.0417), "4.2 %"),
        (text.percents(0.041, 0.5), "4.1 to 50.0 %"),
        (text.points(0.123), "+12.3 points"),
        (text.points(-0.02, unit=False), "−2.0"),
        (text.points(-0.0001), "0.0 points"),
        (text.point_interval(-0.01, 0.05), "−1.0 to +5.0"),
        (text.p_text(0.0314), "0.031"),
        (text.p_text(0.00042), "0.0004"),
        (text.p_text(0.00001), "< 0.0001"),
        (text.p_text(1.0), "1"),
        (text.p_text(float("nan")), "–"),
        (text.p_clause(0.00001), "p < 0.0001"),
        (text.number(0.08312), "0.0831"),
        (text.number(12345.6), "12,346"),
        (text.number(0.0), "0"),
        (text.number(None), "–"),
        (text.fixed(-1.234), "−1.23"),
        (text.seconds(41.3), "41 s"),
        (text.seconds(754.0), "12 min 34 s"),
        (text.listed(["a", "b", "c"]), "a, b and c"),
        (text.listed(["a"]), "a"),
        (text.counted(1, "seed"), "1 seed"),
        (text.counted(1200, "item"), "1,200 items"),
    ],
)
def test_a_number_reads_as_expected(said: str, expected: str) -> None:
    assert said == expected
