"""Numbers as people write them, against exact fractions; and what is more than a number."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import kava.data.numbers.read
import kava.data.numbers.tokens
from kava.data.answers import answers_match, judge
from kava.data.numbers import last_number, read_number, whole_number

ALONE = [
    # digits
    ("18", "18"),
    ("18.", "18"),
    ("007", "7"),
    (".5", "0.5"),
    ("00.50", "0.5"),
    ("-0.0", "0"),
    ("１８", "18"),
    ("٣٫٥", "3.5"),
    ("𝟏𝟖", "18"),
    # groups of three, and of India
    ("1,234", "1234"),
    ("12,345,678.90", "12345678.9"),
    ("1,000.00", "1000"),
    ("1{,}000", "1000"),
    ("1,\\!000", "1000"),
    ("1\\,000", "1000"),
    ("1 000 000", "1000000"),
    ("1\u00a0000", "1000"),
    ("1\u2009000", "1000"),
    ("1\u202f000", "1000"),
    ("1\u2007000", "1000"),
    ("1'000", "1000"),
    ("1\u2019000", "1000"),
    ("1_000", "1000"),
    ("1,00,000", "100000"),
    ("12,34,56,789", "123456789"),
    # signs
    ("-3", "-3"),
    ("\u22123", "-3"),
    ("\u20133", "-3"),
    ("\u20103", "-3"),
    ("\uff0d3", "-3"),
    ("- 3", "-3"),
    ("+5", "5"),
    ("minus 3", "-3"),
    ("negative 3", "-3"),
    # powers of ten
    ("1e3", "1000"),
    ("1E+3", "1000"),
    ("1.5e-3", "0.0015"),
    ("10^3", "1000"),
    ("10^{3}", "1000"),
    ("10²", "100"),
    ("-10^3", "-1000"),
    ("1.5 × 10^3", "1500"),
    ("1.5x10^-3", "0.0015"),
    ("1.5*10³", "1500"),
    ("1.5 \\times 10^{-3}", "0.0015"),
    ("1.5 million", "1500000"),
    ("2 hundred thousand", "200000"),
    # currencies and percent
    ("$5.00", "5"),
    ("$ 5", "5"),
    ("5€", "5"),
    ("-$3", "-3"),
    ("$-3", "-3"),
    ("\\$18", "18"),
    ("$1{,}000$", "1000"),
    ("$\\$18$", "18"),
    ("50%", "50"),
    ("18\\%", "18"),
    ("18 %", "18"),
    ("18 per cent", "18"),
    # decoration
    ("**18**", "18"),
    ("*18*", "18"),
    ("`18`", "18"),
    ('"18"', "18"),
    ("_18_", "18"),
    ("#### 18", "18"),
    ("= 18", "18"),
    ("\\boxed{18}", "18"),
    ("\\boxed{\\text{18}}", "18"),
    ("\\(18\\)", "18"),
    ("<b>18</b>", "18"),
    ("\u200e18\u200f", "18"),
]
WITH_MORE = [
    ("18 eggs", "18"),
    ("5km", "5"),
    ("60 km/h", "60"),
    ("18 m²", "18"),
    ("18\\text{ eggs}", "18"),
    ("$18.00 a day", "18"),
    ("18 dollars, for 9 * 2 = 18", "18"),
    ("18 eggs, since 3 + 15 is that", "18"),
    ("18 because 9 * 2 = 18", "18"),
    ("18 (9 * 2)", "18"),
    ("18 - he sold 3", "18"),
    ("18. Then 19 is wrong", "18"),
    ("18-year-old", "18"),
    ("18th", "18"),
    ("5°C", "5"),
    ("5μm", "5"),
    ("Answer:18", "18"),
    ("**Answer: 18**", "18"),
    ("The answer is 18.", "18"),
    ("答案是18个", "18"),
    ("US$5", "5"),
    ("Rs.500", "500"),
    ("x = -3", "-3"),
    ("it leaves -3 eggs", "-3"),
    ("about 18", "18"),
    ("~18", "18"),
    ("-> 18", "18"),
    ("(18)", "18"),
    ("total **18**", "18"),
    ("9 * 2 = 18", "18"),
    ("9*2=18 dollars", "18"),
    ("9 eggs * $2 = $18", "18"),
    ("3 + 15 = 9 * 2 = 18", "18"),
    ("18 = 9 * 2", "18"),
    ("1/2 = 0.5", "0.5"),
]
NONE = [
    "",
    # shares, multiples and powers
    "half of 18",
    "a third of 18",
    "half 18",
    "twice 18",
    "double 18",
    "triple 18",
    "the square root of 18",
    "log 18",
    "18 squared",
    "18 cubed",
    "18 halves",
    "up to 18",
    "eighteen",
    "x",
    # ranges
    "18-20",
    "$18-20",
    "18\u201320",
    "18 - 20",
    "18~20",
    "18 to 20",
    "from 18 to 20",
    "between 18 and 20",
    # more than one number
    "2 3",
    "18 19",
    "18, 19",
    "18; 19",
    "18/19",
    "18 or 19",
    "18 and 19",
    "18 eggs, 3 hens",
    "18 eggs and 3 hens",
    "18, and 3",
    "5 hours and 30 minutes",
    "5 feet 6 inches",
    "18 per 3 days",
    "Step 3: 18",
    "1. 18",
    "March 5, 2010",
    "2 = 18",
    # expressions
    "2^3",
    "2**3",
    "2*3",
    "2 * 3",
    "2 x 3",
    "2·3",
    "5-3",
    "5 - 3",
    "5 + 3",
    "5 minus 3",
    "18 ± 2",
    "x-3",
    "x - 3",
    "x -3",
    "total - 3",
    "-(3)",
    "sqrt(16)",
    "√16",
    "\\sqrt{16}",
    "f(3)",
    "18x",
    "18 x",
    "2π",
    "5i",
    "18!",
    "18²",
    "18(3)",
    "10^3^2",
    # fractions, times, dates, versions, names
    "1/2",
    "½",
    "1½",
    "1 1/2",
    "18½",
    "18 and a half",
    "2 thirds",
    "3:30",
    "2010-05-03",
    "1.2.3",
    "CO2",
    "v1.2",
    "0x1F",
    "5'6\"",
    # decimal commas and groups that are none
    "1,23",
    "0,123",
    "1234,567",
    "1,2345",
    "1.234,56",
    "1 0000",
    "1,000 000",
    "18.000,5",
    # digits that go on
    "3.33...",
    "3.33…",
    "0.3\u0305",
    # bounds and hedges
    "> 18",
    "<18",
    "≥18",
    "≠ 18",
    "!= 18",
    "±18",
    "18 < 20",
    "at least 18",
    "more than 18",
    "not 18",
    "isn't 18",
    "18+",
    "18 or more",
    "18 and up",
    "18 below zero",
    # signs on signs
    "--5",
    "+-5",
    "-$-5",
    "$5 cents",
    # scales that are not read
    "5k",
    "$5K",
    "5M",
    "5bn",
    "5万",
    # numerals that are no digits
    "①",
    "18①",
    "XVIII",
    "1e9999999999",
]


@pytest.mark.parametrize(("text", "number"), ALONE)
def test_a_number_in_every_spelling(text: str, number: str) -> None:
    for found in (whole_number(text), last_number(text)):
        assert found is not None
        assert found.alone
        assert str(found.number) == number
    assert judge(f"#### {text}", number, "#### ").correct
    assert judge(f"#### {number}", text, "#### ").correct or found.unit == "%"
    assert not judge(f"#### {text}", f"1{number.lstrip('-')}", "#### ").correct


@pytest.mark.parametrize(("text", "number"), WITH_MORE)
def test_a_number_with_more_around_it(text: str, number: str) -> None:
    found = read_number(text)
    assert found is not None
    assert (str(found.number), found.alone) == (number, False)
    assert whole_number(text) is None


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_number_of_its_own(text: str) -> None:
    assert read_number(text) is None
    for digits in re.findall(r"\d+", text):
        assert not judge(f"#### {text}", digits, "#### ").correct


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("16 - 3 - 4 = 9, and 9 * 2 = 18.", "18"),
        ("It is 5.\nThat makes $18 a day!", "18"),
        ("That makes 18.\nAnd so on.", "18"),
        ("He has 5 eggs in 18 boxes", "18"),
        ("It is 18. Half of it: 18/2", None),
        ("so 9 * 2", None),
        ("from 18 to 20", None),
        ("18 or 19", None),
        ("5, 18", None),
        ("it is not 18", None),
        ("none", None),
    ],
)
def test_the_last_number_of_a_text(text: str, number: str | None) -> None:
    found = last_number(text)
    assert (None if found is None else str(found.number)) == number


@pytest.mark.parametrize(
    ("text", "unit", "written"),
    [
        ("-$1,234.50, then", "$", "-$1,234.50"),
        ("it is 5 euros", "€", "5 euros"),
        ("5 per cent of them", "%", "5 per cent"),
        ("1.5 million dollars", "$", "1.5 million dollars"),
        ("18 eggs", "", "18"),
    ],
)
def test_the_unit_and_the_text_of_a_number(text: str, unit: str, written: str) -> None:
    found = read_number(text)
    assert found is not None
    assert (found.unit, found.text) == (unit, written)


WHOLE = st.integers(0, 10**12)
FRACTION = st.sampled_from(["", ".5", ".50", ".125", ".0"])


@st.composite
def spelled(draw: st.DrawFn) -> tuple[str, Fraction]:
    """A number in a spelling at random, and its value by exact arithmetic."""
    whole, fraction = draw(WHOLE), draw(FRACTION)
    value = Fraction(f"{whole}{fraction}")
    by = draw(st.sampled_from(["", ",", "'", "_", " ", "\u202f", "{,}", "\\,"]))
    text = f"{whole:,}".replace(",", by) + fraction
    power = draw(st.sampled_from([0, 3, -2]))
    if power:
        form = draw(st.sampled_from(["{}e{}", "{}×10^{}", "{} \\times 10^{{{}}}"]))
        text, value = form.format(text, power), value * Fraction(10) ** power
    if draw(st.booleans()):
        text, value = draw(st.sampled_from("-–−")) + text, -value
    return draw(st.sampled_from(["{}", "**{}**", "\\boxed{{{}}}", "{}."])).format(text), value


@given(spelled(), spelled())
@settings(max_examples=150)
def test_numbers_are_equal_exactly_where_their_fractions_are(
    one: tuple[str, Fraction], other: tuple[str, Fraction]
) -> None:
    assert answers_match(one[0], other[0]) == (one[1] == other[1])
    found = whole_number(one[0])
    assert found is not None
    assert Fraction(str(found.number)) == one[1]


def test_huge_numbers_are_compared_without_being_written_out() -> None:
    assert answers_match("1e999999999", "10e999999998")
    assert not answers_match("1e999999999", "1e999999998")
    assert str(whole_number("1e999999999").number) == "1e999999999"  # type: ignore[union-attr]


SLOW_TEXTS = [
    "1,234" * 2000,
    "1,234," * 2000 + "5",
    "1" * 10_000,
    "1 " * 5000,
    "* " * 5000,
    "5 " + "* " * 5000,
    "(" * 10_000 + "5",
    "- " * 5000 + "5",
    "5 and " * 2000,
    "= 5 " * 2500,
    "$5 " * 3000,
    "\\boxed{" * 1500,
    "\\frac{" * 1500 + "}" * 1500,
    " " * 10_000 + "5",
    "a'" * 5000,
    "10^" * 3000,
    "5 or " * 2000,
    "5\n" * 5000,
    "...." * 2500,
]


@pytest.mark.parametrize("text", SLOW_TEXTS, ids=lambda text: f"{text[:8]!r}")
def test_every_piece_of_a_text_is_looked_at_a_few_times_at_most(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = 0

    class Counted(kava.data.numbers.tokens.Token):
        @property
        def says(self) -> bool:
            nonlocal looks
            looks += 1
            return super().says

        @property
        def word(self) -> str:
            nonlocal looks
            looks += 1
            return super().word

    def counted(text: str) -> list[Counted]:
        return [Counted(*token) for token in kava.data.numbers.tokens.tokens_of(text)]

    monkeypatch.setattr(kava.data.numbers.read, "tokens_of", counted)
    read_number.__wrapped__(text)  # past its cache
    last_number(text)
    assert looks <= 20 * len(text)
